"""Verdicts on one node test: its results, its gradient, the gradient's gradient, and the gradient in shorter floats.

Gradients are checked in float64 by all floating-point operands together, against finite differences along random
directions. Where the operands of the test lie on a kink (a tie, an integer under Floor, a zero under Relu) they are moved
off it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from itertools import chain
from typing import Any, ParamSpec

import numpy as np
from onnx.backend.test.runner import Runner

from irgrad.api import load
from irgrad.conformance.cases import EXCLUDED, NodeCase
from irgrad.errors import ExecutionError, FeedError, IrgradError, TypeInferenceError
from irgrad.gradcheck import GradientChecker, as_float, return_gradients
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import compile
from irgrad.types import TensorType, dtype_from_name

__all__ = [
    "Finding",
    "Verdict",
    "assert_same_results",
    "judge_forward",
    "judge_gradient",
    "judge_precision",
    "judge_second_order",
]

RTOL = 1e-5
PRECISION = {"f32": 2e-3, "f16": 2e-2, "bf16": 1e-1}
"""Short dtype name → how far a gradient in it may be from that in float64, relative to its norm."""


class Verdict(str, Enum):
    """What was found.

    OK, WRONG; REFUSED: an error said why; UNDECIDED: finite differences cannot tell, wherever the operands were moved;
    ABSENT: there is nothing to check.
    """

    OK = "ok"
    WRONG = "wrong"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """A verdict, and what led to it.

    Attributes:
        verdict: the verdict.
        reason: one sentence where the verdict is not OK.
    """

    verdict: Verdict
    reason: str = ""


_OK = Finding(Verdict.OK)
_ABSENT = Finding(Verdict.ABSENT)

P = ParamSpec("P")


def _or_refused(judge: Callable[P, Finding]) -> Callable[P, Finding]:
    """Decorator: an error of irgrad's is a refusal, and its sentence the reason."""

    @wraps(judge)
    def run(*args: P.args, **kwargs: P.kwargs) -> Finding:
        try:
            return judge(*args, **kwargs)
        except IrgradError as error:
            return Finding(Verdict.REFUSED, f"{type(error).__name__}: {error}")

    return run


# --- forward ----------------------------------------------------------------------------------------------------------


@_or_refused
def judge_forward(case: NodeCase) -> Finding:
    """Whether the results are those of the test, by onnx's own comparison."""
    graph = load(case.model)
    results = list(compile(graph)(_feeds(graph, case)).values())
    try:
        assert_same_results(case.results, results, case.rtol, case.atol)
    except AssertionError as error:
        return Finding(Verdict.WRONG, " ".join(str(error).split())[:200])
    return _OK


def assert_same_results(expected: Sequence[Any], results: Sequence[Any], rtol: float, atol: float) -> None:
    """The comparison of results that onnx makes, which cannot look into a sequence that has scalars in it.

    Raises:
        AssertionError: number, shape, dtype or elements differ.
    """
    Runner.assert_similar_outputs(list(_arrays(expected)), list(_arrays(results)), rtol, atol)


def _arrays(results: Sequence[Any]) -> Iterator[Any]:
    """The arrays of results, and the lengths of the sequences among them."""
    for result in results:
        if isinstance(result, list):
            yield np.array(len(result))
            yield from _arrays(result)
        else:
            yield result


def _feeds(graph: Graph, case: NodeCase) -> dict[str, Any]:
    return dict(zip(graph.inputs, case.operands, strict=True))


# --- gradients --------------------------------------------------------------------------------------------------------


@_or_refused
def judge_gradient(case: NodeCase) -> Finding:
    """Whether the gradient of all floating-point results by all floating-point operands is right."""
    return _over_places(case, _first_order)


@_or_refused
def judge_second_order(case: NodeCase) -> Finding:
    """Whether the gradient's own gradient is right, by the operands and by the cotangents."""
    return _over_places(case, _second_order)


Check = Callable[[Graph, Mapping[str, Any], Sequence[str], Sequence[str]], Finding]


def _over_places(case: NodeCase, check: Check) -> Finding:
    """The first verdict that is one, moving away from where the test is."""
    graph = load(case.model)
    wrt, outputs = _differentiated(graph)
    empty = all(np.size(operand) == 0 for name, operand in _feeds(graph, case).items() if name in wrt)
    if not outputs or empty or case.name in EXCLUDED:
        return _ABSENT
    finding = Finding(Verdict.UNDECIDED, "no place was found where finite differences can tell")
    for feeds in _places(_feeds(graph, case), wrt):
        try:
            finding = check(graph, feeds, wrt, outputs)
        except (ExecutionError, FeedError):
            continue  # operands that decide shapes do not fit there, or give others than the file declares
        if finding.verdict is not Verdict.UNDECIDED:
            return finding
    return finding


def _differentiated(graph: Graph) -> tuple[list[str], list[str]]:
    """The floating-point inputs and outputs that are tensors."""
    return tuple(  # type: ignore[return-value]
        [name for name, v in values.items() if isinstance(v.type, TensorType) and v.type.differentiable]
        for values in (graph.inputs, graph.outputs)
    )


def _places(feeds: Mapping[str, Any], moved: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Where to check: at the operands of the test, and at others near them. What is not finite becomes so."""
    generator = np.random.default_rng(0)
    yield feeds
    for shrink, noise in [(1.0, 1e-2)] * 12 + [(0.9, 1e-2), (1.0, 0.1), (0.5, 0.1), (0.3, 0.3)] * 2:
        place = dict(feeds)
        for name in moved:
            array = np.nan_to_num(np.asarray(feeds[name], np.float64), nan=0.5, posinf=3.0, neginf=-3.0)
            place[name] = shrink * array + noise * generator.standard_normal(array.shape)
        yield place


def _first_order(graph: Graph, feeds: Mapping[str, Any], wrt: Sequence[str], outputs: Sequence[str]) -> Finding:
    return _checked(GradientChecker(graph, feeds, wrt, outputs, rtol=RTOL), directions=2)


def _second_order(graph: Graph, feeds: Mapping[str, Any], wrt: Sequence[str], outputs: Sequence[str]) -> Finding:
    joint = graph.copy()
    ConvertFloat("f64").run(joint)
    results = compile(joint)({name: as_float(feed) for name, feed in feeds.items()})
    gradients = return_gradients(joint, wrt, outputs)
    generator = np.random.default_rng(2)
    cotangents = {
        f"{n}_cotangent": generator.standard_normal(results[n].shape).astype(results[n].dtype, copy=False) for n in outputs
    }
    return _checked(GradientChecker(joint, {**feeds, **cotangents}, [*wrt, *cotangents], gradients, rtol=RTOL), directions=1)


def _checked(checker: GradientChecker, directions: int) -> Finding:
    generator = np.random.default_rng(1)
    for result in chain((checker.check(generator) for _ in range(directions)), checker.check_faint(generator)):
        if not result.conclusive:
            return Finding(Verdict.UNDECIDED, str(result))
        if not result.ok:
            return Finding(Verdict.WRONG, str(result))
    return _OK


# --- shorter floats ---------------------------------------------------------------------------------------------------


@_or_refused
def judge_precision(case: NodeCase, dtype: str) -> Finding:
    """Whether the gradient computed in a shorter float is that in float64, but for rounding.

    Args:
        case: the test.
        dtype: "f32", "f16" or "bf16"; the test is absent where its operation does not take it.
    """
    graph = load(case.model)
    wrt, outputs = _differentiated(graph)
    if not wrt or not outputs:
        return _ABSENT
    narrow = dtype_from_name(dtype)
    feeds = {name: as_float(feed, narrow) for name, feed in _feeds(graph, case).items()}
    gradients = _gradients(graph, feeds, wrt, outputs, dtype)
    if gradients is None:
        return _ABSENT
    exact = _gradients(graph, {name: as_float(feed) for name, feed in feeds.items()}, wrt, outputs, "f64")
    assert exact is not None, "what runs and is finite in a shorter float is in float64"
    largest = max(float(np.linalg.norm(want)) for want in exact.values())
    for name, want in exact.items():
        with np.errstate(invalid="ignore"):
            error = float(np.linalg.norm(gradients[name].astype(np.float64) - want))
        # One that nearly cancels to zero, or that a saturated network makes so, is not held to its own size.
        scale = max(float(np.linalg.norm(want)), 1e-2 * largest, 1e-3)
        if np.isfinite(want).all() and not error <= PRECISION[dtype] * scale:
            return Finding(Verdict.WRONG, f"the gradient by {name} in {dtype} is off by {error:.2g} of {scale:.2g}")
    return _OK


def _gradients(
    graph: Graph, feeds: Mapping[str, Any], wrt: Sequence[str], outputs: Sequence[str], dtype: str
) -> dict[str, np.ndarray] | None:
    """The gradients for given cotangents; None where an operation lacks the dtype, or the results overflow in it."""
    joint = graph.copy()
    try:
        ConvertFloat(dtype).run(joint)
    except TypeInferenceError as error:
        if "unsupported type" in str(error):
            return None
        raise
    results = compile(joint)(feeds)
    if not all(np.isfinite(results[name]).all() for name in outputs):
        return None
    generator = np.random.default_rng(2)
    seeds = {}
    for name in outputs:
        # Eighths, which are the same in every precision.
        cotangent = np.round(8 * generator.standard_normal(results[name].shape)) / 8
        seeds[f"{name}_cotangent"] = cotangent.astype(results[name].dtype)
    Vjp(wrt, outputs).run(joint)
    found = compile(joint)({**feeds, **seeds})
    return {name: found[output] for name, output in joint.gradients.items()}
