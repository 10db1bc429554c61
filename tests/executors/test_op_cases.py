"""Every case of tests/ops on onnxruntime, with its gradient: what it runs forward, it runs backward, with numpy's results.

By default one case of each operation is run; all are with ``-m slow``, with and without known dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import irgrad as ig
from irgrad.errors import ExecutionError, ExportError
from irgrad.graph import Graph
from irgrad.ops import FAMILIES
from irgrad.passes.convert_float import ConvertFloat
from irgrad.testing import assert_close, assert_type, mapped
from irgrad.types import TensorType, dtype_from_name, is_differentiable
from tests.ops.harness import Case, rng

pytest.importorskip("onnxruntime")

OTHERWISE = {
    "*Cast*-text*": "numbers as text, and text that is no number",
    "CastLike-text": "numbers as text",
    "Attention-softmax-half": "softmax_precision is not lowered",
    "Attention-softmax-brain": "softmax_precision is not lowered",
    "DFT-inverse-onesided-*": "the missing half is not completed",
    "ConvTranspose-same_negative*": "the padding that SAME leads to is not allowed to be negative",
    "*MaxPool-nan": "NaN is not passed on",
    "MaxPool-only_padding": "the smallest number in place of -Inf",
    "*Pool*-same_dilations*": "SAME does not count dilations",
    "*Pool*-valid_ceil*": "VALID does not round up",
    "MaxUnpool-output_shape": "indices count in the smaller result",
    "Resize-crop-axes": "roi is read for all axes",
    "Resize-linear-u8": "integers are cut off, not rounded",
    "*AffineGrid*-1": "align_corners with a single position",
    "TopK-unsorted": "an order of its own",
    "NonZero-scalar": "a scalar has no axis",
    "DynamicQuantizeLinear-zeros": "a scale of 1",
    "StringSplit-*": "empty texts have no part",
    "Pow-float16-float32": "the power is formed in float16",
    "Loop-no trips": "the shape of a scan output that has no element",
    "Loop-condition false at first": "the shape of a scan output that has no element",
    "Loop-negative count": "the shape of a scan output that has no element",
}
"""Pattern of cases → what onnxruntime does otherwise than the specification, or where that leaves a choice."""

REFUSED = {
    "*GridSample*": "only images of two axes, or three where not cubic",
    "*PixelSample-1d*": "its meaning is told by GridSample, along one axis",
    "DeformConv-1d": "its meaning is told by GridSample, along one axis",
    "*ResizeGrad-cubic-*": "the gradient is a cubic Resize of a tensor of another rank than 2 and 4",
    "*Resize*-positions-cubic-*": "the gradient is a cubic Resize along one axis",
    "*ResizeGrad-sparse": "a linear Resize of two axes that are not the last ones",
    "*Resize*-of-nothing": "no elements",
    "Resize*": "some ranks and axes",
    "*Pad*-reflect-9": "reflecting more than once",
    "*Pad*-reflect-of-one": "reflecting one element",
    "*Pad*-of-nothing-left": "no elements",
    "irgrad.Conv*Grad-same_*": "SAME with dilations",
    "Conv-same_*": "SAME with dilations",
    "ReduceProd-empty*": "ReduceMax of no truth values",
    "LRN-*": "an even size, or other than four axes",
    "RoiAlign-*": "no elements",
    "AffineGrid-nothing": "no elements",
    "RotaryEmbedding-no-*": "a dimension that follows from the others, of no elements",
    "CausalConvWithState-no-*": "no elements",
    "STFT-one-frame": "a signal as long as its only frame",
    "ConvTranspose-output_*": "a result that is larger than its operand makes it",
    "LpPool-ceil_dropped": "onnx counts one window more, so that the model is invalid to it",
    "InstanceNormalization-*": "one axis",
    "Einsum-*": "labels other than letters",
    "EyeLike-*": "a diagonal that lies outside",
    "Dropout-*": "a ratio of 1",
    "Attention-*": "some masks and caches",
    "ScatterElements-f16": "sums in float16",
    "ai.onnx.preview.training.*": "it has no operations for training",
    "CenterCropPad-*": "the function of onnx takes shapes of int64 only",
    "StringNormalizer-*": "locales that are not installed",
    "SplitToSequence-*": "a split that is known at run time",
    "DeformConv-*": "some numbers of groups",
    "QLinearMatMul-*": "scales per row",
    "DequantizeLinear-one-scale-in-blocks": "blocks of a single scale",
    "*Integer-*": "zero points of another rank",
}
"""Pattern of cases → what onnxruntime refuses to run, where it says something else than that it has no such kernel."""

CRASHES = {
    "*LinearAttention*-no-*": "a Scan over nothing divides by zero",
    "CausalConvWithState-no-batch": "it divides by zero",
}
"""Pattern of cases → with what onnxruntime takes the process with it."""

NO_KERNEL = ("NOT_IMPLEMENTED", "MLDataType for")
UNKNOWN_RANK = "must be known at compile time"
BF16 = np.dtype(ml_dtypes.bfloat16)
CASES: list[Case] = [case for family in FAMILIES for case in import_module(f"tests.ops.{family}_cases").CASES]


def reason(table: Mapping[str, str], case: Case) -> str | None:
    return next((why for pattern, why in table.items() if fnmatchcase(case.name, pattern)), None)


def sampled() -> list[Any]:
    """The first case of each operation; the others are slow."""
    seen: set[str] = set()
    found = []
    for case in CASES:
        known = case.definition.random or reason({**CRASHES, **OTHERWISE, **REFUSED}, case)
        name = case.definition.qualified_name
        marks = [] if not known and name not in seen else [pytest.mark.slow]
        seen.update([] if known else [name])
        found += [pytest.param(case, False, id=f"{case.name}-static", marks=marks)]
        found += [pytest.param(case, True, id=f"{case.name}-dynamic", marks=pytest.mark.slow)] if case.dynamic else []
    return found


def joint_of(case: Case, graph: Graph, feeds: Mapping[str, Any]) -> tuple[Graph, dict[str, Any]]:
    """The joint graph of a case (the forward one, where it has no gradient), and its feeds."""
    feeds = dict(feeds)
    if case.order < 1:
        return graph, feeds
    results = ig.compile(graph)(feeds)
    named = {f"y{k}" for k in case.wanted} if case.wanted is not None else set(graph.outputs)
    wanted = [name for name, value in graph.outputs.items() if name in named and value.type.differentiable]
    generator = rng(1)
    for name in wanted:
        feeds[f"{name}_cotangent"] = mapped(lambda y: generator.standard_normal(y.shape).astype(y.dtype), results[name])
    return ig.vjp(graph, [f"x{k}" for k in case.differentiated()], wanted), feeds


def narrowed(graph: Graph, feeds: Mapping[str, Any], to: str = "f32") -> tuple[Graph, dict[str, Any]]:
    """The same in a smaller dtype in place of float64."""

    def narrow(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype_from_name(to)) if array.dtype == np.float64 else array

    smaller = ig.apply(graph, [ConvertFloat(to, "f64")])
    return smaller, {name: mapped(narrow, feed) for name, feed in feeds.items()}


def attempt(graph: Graph, feeds: Mapping[str, Any]) -> dict[str, Any] | Exception:
    """The results on onnxruntime, or why there are none."""
    try:
        return ig.compile(graph, executor="onnxruntime")(feeds)
    except (ExecutionError, ExportError) as error:
        return error


def dtypes(graph: Graph) -> set[np.dtype]:
    return {value.type.dtype for value in graph.values() if isinstance(value.type, TensorType)}


def run_or_skip(case: Case, forward: Graph) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    """The joint graph, its feeds and its results, in float32 where onnxruntime does not run it in float64."""
    joint, feeds = joint_of(case, forward, case.feeds(forward))
    results = attempt(joint, feeds)
    if isinstance(results, Exception) and np.dtype(np.float64) in dtypes(joint):  # ONNX, too, has more in float32
        forward, _ = narrowed(forward, {})
        joint, feeds = narrowed(joint, feeds)
        results = attempt(joint, feeds)
    if not isinstance(results, Exception):
        return joint, feeds, results
    why = UNKNOWN_RANK if UNKNOWN_RANK in str(results) else reason(REFUSED, case)
    if why is None and (isinstance(results, ExportError) or any(text in str(results) for text in NO_KERNEL)):
        alone = attempt(forward, {name: feeds[name] for name in forward.inputs})
        why = str(alone) if isinstance(alone, Exception) else "bfloat16" if BF16 in dtypes(joint) else None
    assert why is not None, f"onnxruntime runs the operation, but not its gradient: {results}"
    return pytest.skip(why)


@pytest.mark.parametrize(("case", "dynamic"), sampled())
def test_onnxruntime_agrees_with_numpy(case: Case, dynamic: bool) -> None:
    if case.requires:
        pytest.importorskip(case.requires)
    why = "random numbers of its own" if case.definition.random else reason({**CRASHES, **OTHERWISE}, case)
    if why is not None:
        pytest.skip(why)
    joint, feeds, results = run_or_skip(case, case.graph(dynamic=dynamic))
    want = ig.compile(joint)(feeds)
    short = any(is_differentiable(dtype) and dtype.itemsize == 2 for dtype in dtypes(joint))
    single = np.dtype(np.float32) in dtypes(joint)
    rtol, atol = (2e-2, 2e-2) if short else (2e-4, 2e-5) if single else (1e-5, 1e-7)
    for name, value in joint.outputs.items():
        assert_type(results[name], value.type)
        assert_close(results[name], want[name], name, rtol=rtol, atol=atol)


@pytest.mark.parametrize("op", ["Compress", "Gather", "GatherElements", "GatherND", "OneHot", "TopK"])
def test_gradients_that_sum_at_places_are_formed_in_float32(op: str) -> None:
    """onnxruntime adds no numbers of float16 at places, nor should anybody."""
    case = next(case for case in CASES if case.op == op and case.order >= 1)
    graph = case.graph()
    joint, feeds = joint_of(case, *narrowed(graph, case.feeds(graph), "f16"))
    results, want = ig.compile(joint, executor="onnxruntime")(feeds), ig.compile(joint)(feeds)
    for name, result in results.items():
        assert_close(result, want[name], name, rtol=2e-3, atol=2e-3)
