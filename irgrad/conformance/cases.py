"""The node tests that ship inside the onnx package: a small model, operands and results, for each mode of each operation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from irgrad.op import qualified_name

__all__ = ["EXCLUDED", "MISSED", "NodeCase", "node_cases"]

_EXPANDED = "_expanded"

_RANDOM = "draws random numbers, which no two implementations share"
_WIDTH = (
    "expects a fraction of an element, scale times length, as the width of the result; ONNX's text and onnxruntime take the "
    "number of elements that it has"
)

EXCLUDED: dict[str, str] = {
    "test_bernoulli": _RANDOM,
    "test_bernoulli_double": _RANDOM,
    "test_bernoulli_double_expanded": _RANDOM,
    "test_bernoulli_expanded": _RANDOM,
    "test_bernoulli_seed": _RANDOM,
    "test_bernoulli_seed_expanded": _RANDOM,
}
"""Name → reason, of the node tests whose results cannot be compared."""

MISSED: dict[str, str] = {
    "test_attention_4d_causal_fp16_expanded": "2 of 192 results differ by one unit in the last place of float16",
    "test_resize_downsample_scales_cubic_align_corners": _WIDTH,
    "test_resize_downsample_scales_linear_align_corners": _WIDTH,
}
"""Name → reason, of the node tests whose results are not those that onnx expects."""


@dataclass(frozen=True)
class NodeCase:
    """One node test.

    Attributes:
        name: as onnx calls it.
        ops: qualified names of the operations that it tests.
        model: the model, of the opset that it was written for.
        operands: what is fed, in the order of the model's inputs: arrays, lists of arrays, or None for an empty optional.
        results: what has to come out, likewise.
        rtol: relative tolerance of the results.
        atol: absolute tolerance of the results.
    """

    name: str
    ops: tuple[str, ...]
    model: ModelProto
    operands: Sequence[Any]
    results: Sequence[Any]
    rtol: float
    atol: float


@cache
def node_cases() -> tuple[NodeCase, ...]:
    """All node tests of the installed onnx, sorted by name.

    A test of a function's body ("…_expanded") counts for the operation whose body it is.
    """
    with warnings.catch_warnings():
        # The tests compute their own data when they are loaded, overflows and logarithms of zero among it.
        warnings.simplefilter("ignore")
        tests = {test.name: test for test in load_model_tests(kind="node")}
    cases = []
    for name in sorted(tests):
        test = tests[name]
        assert test.model is not None and test.data_sets is not None
        base = tests.get(name[: name.find(_EXPANDED)] if _EXPANDED in name else name, test)
        operands, results = test.data_sets[0]
        cases.append(
            NodeCase(
                name=name,
                ops=_operations(base.model or test.model),
                model=test.model,
                operands=tuple(map(_as_array, operands)),
                results=tuple(map(_as_array, results)),
                rtol=test.rtol,
                atol=test.atol,
            )
        )
    return tuple(cases)


def _operations(model: ModelProto) -> tuple[str, ...]:
    return tuple(dict.fromkeys(qualified_name(node.domain, node.op_type) for node in model.graph.node))


def _as_array(item: Any) -> Any:
    return numpy_helper.to_array(item) if isinstance(item, TensorProto) else item
