"""Checking an operation on a case: its kernel, its types, its gradient, the gradient's gradient, its lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irgrad.builder import typed_call
from irgrad.errors import UnsupportedOpError, UsageError
from irgrad.gradcheck import GradientChecker, check_grads, return_gradients
from irgrad.graph import Graph
from irgrad.op import ZERO, Op
from irgrad.passes.autodiff.expand import expand
from irgrad.runtime import compile
from irgrad.runtime.kernels import reference_kernel, results_of
from irgrad.testing.case import Case, leaves, mapped
from irgrad.testing.results import assert_close, assert_type
from irgrad.types import Type

__all__ = [
    "check_forward",
    "check_gradient",
    "check_lowering",
    "check_op",
    "check_second_order",
    "check_unlisted_operands",
]

_ATOL = 1e-7
_NOTHING = 1e-12  # a derivative of what is all rounding errors


def check_op(
    op: str | Op,
    operands: Sequence[Any],
    attrs: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    oracle: Callable[..., Any] | None = None,
    order: int | None = None,
    wrt: Sequence[int] | None = None,
    wanted: Sequence[int] | None = None,
    dynamic: bool = True,
    rtol: float = 1e-5,
    types: Mapping[int, Type] | None = None,
) -> None:
    """Check all that an operation promises, on one choice of operands and attributes.

    Its results against the oracle, and their dtypes and shapes against type inference; the gradient by every floating-point
    operand against finite differences in float64, along random directions; the gradient of the gradient likewise; its
    lowering against its kernel, in results and dtypes. All but the second order also with no dimension known at compile
    time and integer operands fed at run time. Keep operands away from kinks and ties, where differences tell nothing.

    Args:
        op: qualified name of a registered operation, or an operation.
        operands: one for each operand: an array, a list of arrays for a sequence, None for an absent one.
        attrs: attributes.
        outputs: how many outputs the node has.
        oracle: function of the operands that returns the expected results, one array or a tuple. By default
            onnx.reference for operations that ONNX has, and the lowering for others.
        order: the highest derivative to check: 2 for smooth operations, 1 where the derivative has jumps, 0 for none. By
            default 2, and 0 where the operation is declared to have no gradient or no operand is floating-point.
        wrt: positions of the operands to differentiate by; all floating-point ones by default. One that is left out must
            have a right gradient too, or be refused.
        wanted: positions of the outputs to differentiate; all floating-point ones by default.
        dynamic: whether the operation also works without static shapes.
        rtol: tolerance of the comparison with the oracle and the lowering.
        types: position → type of an operand that does not tell its own: an empty sequence, an optional.

    Raises:
        AssertionError: results, dtypes or shapes are not what they should be.
        AdjointError: the gradient is wrong, or cannot be judged at these operands.
        UsageError: there is nothing to compare the results with.
        IrgradError: the operation cannot be typed, run or differentiated.
    """
    case = Case(op, operands, dict(attrs or {}), outputs, "", 2, wrt, wanted, dynamic, oracle, rtol, types or {})
    definition = case.definition
    if order is None:
        order = 0 if definition.gradient is ZERO or not case.differentiated() else 2
    if oracle is not None or definition.schema is not None:
        check_forward(case)
    elif not definition.has_lowering:
        raise UsageError(
            f"there is nothing to compare the results of {definition.qualified_name} with; give an oracle or a lowering"
        )
    for loose in (False, True) if dynamic else (False,):
        if order >= 1:
            check_gradient(case, dynamic=loose)
        if definition.has_lowering:
            check_lowering(case, dynamic=loose)
    if order >= 1:
        check_unlisted_operands(case)
    if order >= 2:
        graph = case.graph()
        check_second_order(graph, case.feeds(graph), [f"x{k}" for k in case.differentiated()], case.checked_outputs(graph))


# --- forward ----------------------------------------------------------------------------------------------------------


def check_forward(case: Case) -> None:
    """The results are those of the oracle, of the types that were inferred, and the same where no shape is known before."""
    graph = case.graph()
    results = compile(graph)(case.feeds(graph))
    for (name, value), want in zip(graph.outputs.items(), _expected(case, graph), strict=True):
        assert_type(results[name], value.type)
        assert_close(results[name], want, name, rtol=case.rtol, atol=_ATOL)
    if case.dynamic:
        loose = case.graph(dynamic=True)
        again = compile(loose)(case.feeds(loose))
        for name in results:
            assert_close(again[name], results[name], f"{name} with dynamic shapes")


def _expected(case: Case, graph: Graph) -> tuple[Any, ...]:
    (node,) = graph.nodes()
    oracle = case.oracle if case.oracle is not None else reference_kernel(typed_call(node))
    with np.errstate(all="ignore"):
        return results_of(oracle(*case.operands()), case.outputs)


# --- backward ---------------------------------------------------------------------------------------------------------


def check_gradient(case: Case, *, dynamic: bool = False) -> None:
    """The gradient agrees with finite differences, with static shapes or with none known.

    With static shapes, so does that by each operand alone: what a rule leaves out for operands that nobody asks for is not
    missing elsewhere.
    """
    graph, positions = case.graph(dynamic=dynamic), case.differentiated()
    check_grads(graph, case.feeds(graph), [f"x{k}" for k in positions], case.checked_outputs(graph))
    if len(positions) > 1 and not dynamic:
        for position in positions:
            if leaves(case.operands()[position]):
                _check_alone(case, position)


def _check_alone(case: Case, position: int) -> None:
    graph = case.graph()
    checker = GradientChecker(graph, case.feeds(graph), [f"x{position}"], case.checked_outputs(graph))
    result = checker.check(np.random.default_rng(1))
    nothing = max(abs(result.analytic), abs(result.numeric)) < _NOTHING
    assert result.ok or nothing or not result.conclusive, f"the gradient by operand {position} alone: {result}"


def check_unlisted_operands(case: Case) -> None:
    """An operand has a right gradient (where one exists) or is refused: none has a zero that nobody decided on."""
    for position in case.forgotten():
        try:
            _check_alone(case, position)
        except UnsupportedOpError as error:
            assert "no cotangent" in str(error), str(error)


def check_second_order(graph: Graph, feeds: Mapping[str, Any], wrt: Sequence[str], outputs: Sequence[str]) -> None:
    """The gradients of the gradients of a graph, which is changed, by all its floating-point inputs.

    Raises:
        AdjointError: they disagree with finite differences, or cannot be judged.
    """
    feeds = dict(feeds)
    results = compile(graph)(feeds)
    gradients = return_gradients(graph, wrt, outputs)
    generator = np.random.default_rng(1)
    for name in outputs:
        feeds[f"{name}_cotangent"] = mapped(lambda y: generator.standard_normal(y.shape).astype(y.dtype), results[name])
    everything = [name for name in graph.inputs if graph.value(name).type.differentiable]
    check_grads(graph, feeds, everything, gradients, directions=1)


# --- lowering ---------------------------------------------------------------------------------------------------------


def check_lowering(case: Case, *, dynamic: bool = False) -> None:
    """The lowering is made of standard operations and gives the results of the kernel, of the same dtypes."""
    graph = case.graph(dynamic=dynamic)
    feeds = case.feeds(graph)
    want = compile(graph)(feeds)
    expand(graph, graph.nodes()[0])
    others = [node.op.qualified_name for node in graph.nodes() if node.op.domain != ""]
    assert not others, f"the lowering has operations that are not standard: {', '.join(others)}"
    for name, result in compile(graph)(feeds).items():
        dtypes = [[leaf.dtype.name for leaf in leaves(value)] for value in (result, want[name])]
        assert dtypes[0] == dtypes[1], f"{name}: the lowering gives {dtypes[0]}, the kernel {dtypes[1]}"
        assert_close(result, want[name], f"{name} by the lowering", rtol=case.rtol, atol=_ATOL)
