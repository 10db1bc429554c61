"""irgrad.testing: each check holds where it should, and says no where it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.errors import AdjointError, UsageError
from irgrad.testing import (
    START,
    TEMPLATES,
    UPDATE_GOLDEN,
    Case,
    assert_ir,
    assert_same_results,
    check_grads,
    check_op,
    random_graph,
)

TEXT = """
graph g opset 28 {
  input %x: f32[N,M]
  const %two: f32[]{2.0}
  %y: f32[N,M] = Mul(%x, %two)
  output y
}
"""


def graph(text: str = TEXT) -> ig.Graph:
    return ig.parse_text(text)


# --- results ----------------------------------------------------------------------------------------------------------


def test_equal_results_pass() -> None:
    assert_same_results(graph(), graph(TEXT.replace("Mul(%x, %two)", "Add(%x, %x)")), rtol=0)


DIFFERENT = {
    "elements": (TEXT.replace("{2.0}", "{2.001}"), "the output 'y'"),
    "shape": (TEXT.replace("f32[]", "f32[1,1,1]").replace("%y: f32[N,M]", "%y"), "the shape is"),
    "dtype": (
        TEXT.replace("  output y", "  %z = Cast(%y, to=11)\n  output y = %z"),
        r"the output 'y' is of dtype \['float64'\], but was \['float32'\]",
    ),
    "name": (TEXT.replace("output y", "output z = %y"), "the outputs are z, but were y"),
    "more": (TEXT.replace("output y", "output y\n  output x"), "the outputs are y, x, but were y"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_different_results_do_not(what: str) -> None:
    text, message = DIFFERENT[what]
    with pytest.raises(AssertionError, match=message):
        assert_same_results(graph(), graph(text))


def test_the_sign_of_a_zero_counts_where_nothing_is_tolerated() -> None:
    negated = graph(TEXT.replace("Mul(%x, %two)", "Neg(%x)"))
    zeros = {"x": np.zeros((2, 3), np.float32)}
    assert_same_results(graph(), negated, zeros)
    with pytest.raises(AssertionError, match="zeros of another sign"):
        assert_same_results(graph(), negated, zeros, rtol=0)


def test_symbolic_dimensions_get_different_sizes() -> None:
    """Else a transposed result would have the shape that it should have."""
    turned = "\n".join(["  %t: f32[M,N] = Transpose(%x, perm=[1,0])", "  %y: f32[N,M] = Reshape(%t, %s)"])
    wrong = TEXT.replace("  %y: f32[N,M] = Mul(%x, %two)", "  %s = Shape(%x)\n" + turned)
    with pytest.raises(AssertionError):
        assert_same_results(graph(), graph(wrong))


def test_a_joint_graph_is_compared_by_the_outputs_that_are_named() -> None:
    joint = ig.vjp(graph())
    assert_same_results(graph(), joint, outputs=["y"])
    with pytest.raises(UsageError, match="no feed for the input 'y_cotangent'"):
        assert_same_results(graph(), joint, {"x": np.ones((2, 2), np.float32)}, outputs=["y"])


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_compared_whatever_its_indentation() -> None:
    assert_ir(graph(), "\n".join("      " + line for line in TEXT.splitlines()))
    with pytest.raises(AssertionError, match=r"(?s)-  %y: f32\[N,M\] = Mul.*\+  %y: f32\[N,M\] = Add"):
        assert_ir(graph(TEXT.replace("Mul", "Add")), TEXT)


def test_a_file_is_compared_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UPDATE_GOLDEN, raising=False)
    path = tmp_path / "g.ir"
    with pytest.raises(AssertionError, match=f"there is no file .*{UPDATE_GOLDEN}=1 writes it"):
        assert_ir(graph(), path)
    monkeypatch.setenv(UPDATE_GOLDEN, "1")
    assert_ir(graph(), path)
    assert path.read_text(encoding="utf-8") == TEXT.lstrip()
    monkeypatch.setenv(UPDATE_GOLDEN, "0")
    assert_ir(graph(), path)
    with pytest.raises(AssertionError, match="is written anew"):
        assert_ir(graph(TEXT.replace("Mul", "Add")), path)


# --- operations -------------------------------------------------------------------------------------------------------


def cube(**changes: Any) -> ig.Op:
    """x³ with a kernel, inference, a rule and a lowering, each of which can be replaced by a wrong one."""
    parts: dict[str, Callable[..., Any] | None] = {
        "kernel": lambda x, out=None: np.multiply(x * x, x, out=out),
        "infer": lambda call: [call.tensor(0)],
        "adjoint": lambda b, node, dy: dy * (3.0 * node.operand(0) * node.operand(0)),
        "lower": lambda b, node: node.operand(0) * node.operand(0) * node.operand(0),
        **changes,
    }
    op = ig.Op("Cube", domain="testing")
    for name, function in parts.items():
        if function is not None:
            getattr(op, name)(function)
    return op


X = np.array([[0.3, -0.7, 1.1]])


def test_a_right_operation_passes() -> None:
    check_op(cube(), [X])
    check_op(cube(), [X.astype(np.float32)], oracle=lambda x: x**3)
    check_op(cube(lower=None), [X], oracle=lambda x: x**3)
    check_op("Tanh", [X])


def frozen(b: ig.Builder, x: ig.Value) -> ig.Value:
    """x, but as if it were a constant: right in a gradient, wrong in the gradient of that."""
    op = ig.Op("Frozen", domain="testing", kernel=lambda x, out=None: +x, gradient=ig.ZERO)
    op.infer(lambda call: [call.tensor(0)])
    return b.node(op, [x]).outputs[0]


WRONG: dict[str, tuple[ig.Op, str]] = {
    "kernel": (cube(kernel=lambda x, out=None: x * x), "y0"),
    "dtype": (cube(kernel=lambda x, out=None: (x**3).astype(np.float32)), "returned f32 where its type says f64"),
    "shape": (cube(kernel=lambda x, out=None: (x**3)[None]), r"returned the shape \[1, 1, 3\] where its type says"),
    "adjoint": (cube(adjoint=lambda b, node, dy: dy * (2.0 * node.operand(0))), "DISAGREES"),
    "lowering": (cube(lower=lambda b, node: node.operand(0) * node.operand(0)), "by the lowering"),
    "lowering to itself": (
        cube(lower=lambda b, node: b.op("irgrad.SumTo", node.operand(0), b.shape_of(node.operand(0)))),
        "not standard",
    ),
    "second order": (
        cube(adjoint=lambda b, node, dy: dy * (3.0 * frozen(b, node.operand(0)) * node.operand(0))),
        "DISAGREES",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_operation_does_not(what: str) -> None:
    op, message = WRONG[what]
    with pytest.raises((AssertionError, ig.IrgradError), match=message):
        check_op(op, [X], oracle=lambda x: x**3)


def test_there_must_be_something_to_compare_with() -> None:
    with pytest.raises(UsageError, match=r"results of testing\.Cube with; give an oracle or a lowering"):
        check_op(cube(lower=None), [X])


def test_an_operand_without_a_gradient_must_say_so() -> None:
    op = ig.Op("Scaled", domain="testing", kernel=lambda x, s, out=None: x * s)
    op.infer(lambda call: [call.tensor(0)])
    op.adjoint(lambda b, node, dy: [dy * node.operand(1), ig.ZERO])
    with pytest.raises(AssertionError, match="the gradient by operand 1"):
        check_op(op, [X, np.array(2.0)], oracle=lambda x, s: x * s, wrt=[0], order=1)


def test_an_operation_declared_to_have_no_gradient_is_not_differentiated() -> None:
    check_op("Floor", [X])


# --- random graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_right(name: str) -> None:
    case = TEMPLATES[name]
    check_op(case.op, case.inputs, case.attrs, outputs=case.outputs, wrt=case.wrt)


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_are_sound(seed: int) -> None:
    made = random_graph(seed)
    ig.verify(made, types=True)
    assert ig.graphs_equal(made, random_graph(seed)) is None
    check_grads(made, {"x": START})
    assert_same_results(made, ig.apply(made, "simplify"), {"x": START}, rtol=0)


def used(made: ig.Graph) -> set[str]:
    return {node.op.qualified_name for node in made.nodes()}


def test_what_random_graphs_are_made_of_can_be_chosen() -> None:
    joins = {"Add", "Mul", "ReduceSum", "Reshape", "Slice", "Tanh", "Tile"}
    own = Case(cube(), [X])
    assert used(random_graph(0, ["MatMul", own], size=12)) - joins == {"MatMul", "testing.Cube"}
    assert len([node for node in random_graph(0, [own], size=7).nodes() if node.op.name == "Cube"]) == 7
    assert len({ig.to_text(random_graph(seed)) for seed in range(20)}) == 20


MISTAKES: dict[str, tuple[Sequence[str | Case], str]] = {
    "no template": (["MatMull"], "no template 'MatMull' for random graphs; did you mean 'MatMul'"),
    "nothing": ([], "nothing to choose from|ops is empty"),
    "a sequence": ([Case("SequenceLength", [[X]])], "cannot be part of a random graph"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake: str) -> None:
    ops, message = MISTAKES[mistake]
    with pytest.raises(UsageError, match=message):
        random_graph(0, ops)


def test_wrong_gradients_of_graphs_are_found() -> None:
    wrong = Case(cube(adjoint=lambda b, node, dy: dy), [X])
    with pytest.raises(AdjointError):
        check_grads(random_graph(0, [wrong], size=1), {"x": START})
