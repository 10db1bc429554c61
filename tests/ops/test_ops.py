"""Every operation of the registry: forward, gradient, second order, static and dynamic shapes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from irgrad.builder import typed_call
from irgrad.errors import UnsupportedOpError
from irgrad.gradcheck import GradientChecker, check_grads
from irgrad.op import ZERO, Op
from irgrad.ops import FAMILIES
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.autodiff.expand import expand
from irgrad.plugin import registry
from irgrad.runtime import compile
from irgrad.runtime.kernels import reference_kernel, results_of
from irgrad.types import TensorType, is_differentiable
from tests.ops.harness import Case, rng

CASES: list[Case] = [case for family in FAMILIES for case in import_module(f"tests.ops.{family}_cases").CASES]
BY_NAME = {case.name: case for case in CASES}
DIFFERENTIATED = [case for case in CASES if case.order >= 1]


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def is_float(operand: Any) -> bool:
    return operand is not None and is_differentiable(np.asarray(operand).dtype)


def test_case_names_are_unique() -> None:
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("name", registry.names("operations"))
def test_every_operation_has_cases(name: str) -> None:
    op: Op = registry.get("operations", name)
    mine = [case for case in CASES if case.op == name]
    assert mine, f"{name} has no case in tests/ops"
    if op.gradient is not None and op.gradient is not ZERO:
        assert any(case.order >= 1 for case in mine), f"{name} has an adjoint rule but no case checks it"


def expected(case: Case, graph: Any) -> tuple[Any, ...]:
    operands = [None if a is None else np.asarray(a) for a in case.inputs]
    if case.oracle is not None:
        with np.errstate(all="ignore"):
            return results_of(case.oracle(*operands), case.outputs)
    (node,) = graph.nodes()
    call = typed_call(node)
    with np.errstate(all="ignore"):
        return results_of(reference_kernel(call)(*operands), case.outputs)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_forward(case: Case) -> None:
    graph = case.graph()
    feeds = case.feeds(graph)
    results = compile(graph)(feeds)
    for (name, value), want in zip(graph.outputs.items(), expected(case, graph), strict=True):
        got = results[name]
        assert isinstance(value.type, TensorType)
        assert got.dtype == value.dtype
        if value.tensor_type.static_shape is not None:
            assert got.shape == value.tensor_type.static_shape
        np.testing.assert_allclose(got.astype(np.float64), np.asarray(want).astype(np.float64), rtol=case.rtol, atol=1e-7)
        assert got.shape == np.asarray(want).shape
    if case.dynamic:
        loose = case.graph(dynamic=True)
        again = compile(loose)(case.feeds(loose))
        for name in results:
            np.testing.assert_array_equal(again[name], results[name])


def wanted(case: Case, graph: Any) -> list[str]:
    if case.wanted is not None:
        return [f"y{k}" for k in case.wanted]
    return [name for name, value in graph.outputs.items() if value.type.differentiable]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", DIFFERENTIATED, ids=names(DIFFERENTIATED))
def test_gradient(case: Case, dynamic: bool) -> None:
    if dynamic and not case.dynamic:
        pytest.skip("the case is for static shapes only")
    graph = case.graph(dynamic=dynamic)
    check_grads(graph, case.feeds(graph), [f"x{k}" for k in case.differentiated()], wanted(case, graph))


def forgotten(case: Case) -> list[int]:
    """The floating-point operands that a case leaves out of its gradient check."""
    return [k for k, a in enumerate(case.inputs) if is_float(a) and k not in case.differentiated()]


PARTIAL = [case for case in DIFFERENTIATED if forgotten(case)]


@pytest.mark.parametrize("case", PARTIAL, ids=names(PARTIAL))
def test_no_operand_is_forgotten(case: Case) -> None:
    """An operand has a right gradient (where one exists) or is refused: none has a zero that nobody decided on."""
    for position in forgotten(case):
        graph = case.graph()
        try:
            checker = GradientChecker(graph, case.feeds(graph), [f"x{position}"], wanted(case, graph))
        except UnsupportedOpError as error:
            assert "no cotangent" in str(error)
            continue
        result = checker.check(rng(1))
        assert result.ok or not result.conclusive, result


SMOOTH = [case for case in CASES if case.order >= 2]


@pytest.mark.parametrize("case", SMOOTH, ids=names(SMOOTH))
def test_second_order(case: Case) -> None:
    graph = case.graph()
    feeds = dict(case.feeds(graph))
    outputs = wanted(case, graph)
    wrt = [f"x{k}" for k in case.differentiated()]
    results = compile(graph)(feeds)
    Vjp(wrt, outputs).run(graph)
    generator = np.random.default_rng(1)
    for name in outputs:
        value = graph.value(f"{name}_cotangent")
        feeds[value.name] = generator.standard_normal(results[name].shape).astype(value.dtype)
    # Under names that the gradients of the gradients do not want for themselves.
    gradients = {f"d{name}": graph.outputs[output] for name, output in graph.gradients.items()}
    graph.set_outputs(gradients)
    graph.gradients.clear()
    everything = [name for name in graph.inputs if graph.value(name).type.differentiable]
    check_grads(graph, feeds, everything, list(gradients), directions=1)


LOWERED = [case for case in CASES if case.definition.has_lowering]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", LOWERED, ids=names(LOWERED))
def test_lowering(case: Case, dynamic: bool) -> None:
    if dynamic and not case.dynamic:
        pytest.skip("the case is for static shapes only")
    graph = case.graph(dynamic=dynamic)
    feeds = case.feeds(graph)
    want = compile(graph)(feeds)
    expand(graph, graph.nodes()[0])
    assert all(node.op.domain == "" for node in graph.nodes())
    for name, result in compile(graph)(feeds).items():
        assert result.dtype == want[name].dtype
        np.testing.assert_allclose(result, want[name], rtol=case.rtol, atol=1e-7)
