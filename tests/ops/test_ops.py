"""Every operation of the registry: forward, gradient, second order, static and dynamic shapes."""

from __future__ import annotations

from importlib import import_module

import pytest

from irgrad.op import ZERO, Op
from irgrad.ops import FAMILIES
from irgrad.plugin import registry
from irgrad.testing import (
    Case,
    check_forward,
    check_gradient,
    check_lowering,
    check_second_order,
    check_unlisted_operands,
)

CASES: list[Case] = [case for family in FAMILIES for case in import_module(f"tests.ops.{family}_cases").CASES]
BY_NAME = {case.name: case for case in CASES}
DIFFERENTIATED = [case for case in CASES if case.order >= 1]


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def test_case_names_are_unique() -> None:
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("name", registry.names("operations"))
def test_every_operation_has_cases(name: str) -> None:
    op: Op = registry.get("operations", name)
    mine = [case for case in CASES if case.op == name]
    assert mine, f"{name} has no case in tests/ops"
    if op.gradient is not None and op.gradient is not ZERO:
        assert any(case.order >= 1 for case in mine), f"{name} has an adjoint rule but no case checks it"


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_forward(case: Case) -> None:
    if case.requires:
        pytest.importorskip(case.requires)
    check_forward(case)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", DIFFERENTIATED, ids=names(DIFFERENTIATED))
def test_gradient(case: Case, dynamic: bool) -> None:
    if dynamic and not case.dynamic:
        pytest.skip("the case is for static shapes only")
    check_gradient(case, dynamic=dynamic)


PARTIAL = [case for case in DIFFERENTIATED if case.forgotten()]


@pytest.mark.parametrize("case", PARTIAL, ids=names(PARTIAL))
def test_no_operand_is_forgotten(case: Case) -> None:
    check_unlisted_operands(case)


SMOOTH = [case for case in CASES if case.order >= 2]


@pytest.mark.parametrize("case", SMOOTH, ids=names(SMOOTH))
def test_second_order(case: Case) -> None:
    graph = case.graph()
    check_second_order(graph, case.feeds(graph), [f"x{k}" for k in case.differentiated()], case.checked_outputs(graph))


LOWERED = [case for case in CASES if case.definition.has_lowering]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", LOWERED, ids=names(LOWERED))
def test_lowering(case: Case, dynamic: bool) -> None:
    if dynamic and not case.dynamic:
        pytest.skip("the case is for static shapes only")
    check_lowering(case, dynamic=dynamic)


@pytest.mark.parametrize("name", [name for name in registry.names("operations") if name.startswith("irgrad.")])
def test_every_operation_that_onnx_lacks_has_a_lowering_that_is_checked(name: str) -> None:
    assert registry.get("operations", name).has_lowering
    assert any(case.op == name and case.dynamic for case in LOWERED), f"no case checks the lowering of {name}"
