"""Gradients where finite differences do not reach: kinks, ties, singular points, operands that a mode leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import IrgradError, UnsupportedOpError
from irgrad.graph import Graph
from irgrad.op import find_op
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.autodiff.expand import expand
from irgrad.runtime import compile
from irgrad.types import TensorType

INF, NAN = np.inf, np.nan


def graph_of(op: str, operands: Sequence[Any], fixed: Sequence[int] = (), outputs: int = 1, **attrs: Any) -> Graph:
    """One node; operand k is the input `x<k>`, or a constant."""
    graph = Graph(op)
    values = []
    for k, operand in enumerate(operands):
        array = np.asarray(operand)
        if operand is None:
            values.append(None)
        elif k in fixed:
            values.append(graph.add_constant(array, f"x{k}"))
        else:
            values.append(graph.add_input(f"x{k}", TensorType.of(array)))
    domain, _, name = op.rpartition(".")
    node = Builder(graph).node(find_op(name, domain), values, attrs, outputs=outputs)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(node.outputs)})
    return graph


def feeds_of(graph: Graph, operands: Sequence[Any]) -> dict[str, np.ndarray]:
    return {f"x{k}": np.asarray(o) for k, o in enumerate(operands) if f"x{k}" in graph.inputs}


def gradients(
    op: str, operands: Sequence[Any], wrt: Sequence[int] = (0,), *, fixed: Sequence[int] = (), seed: Any = 1.0, **attrs: Any
) -> list[np.ndarray]:
    """The cotangents of some operands, for a cotangent of the result that is `seed` everywhere."""
    graph = graph_of(op, operands, fixed, **attrs)
    Vjp([f"x{k}" for k in wrt]).run(graph)
    cotangent = graph.inputs["y0_cotangent"].tensor_type
    assert cotangent.static_shape is not None
    feeds = feeds_of(graph, operands)
    results = compile(graph)({**feeds, "y0_cotangent": np.full(cotangent.static_shape, seed, cotangent.dtype)})
    return [results[f"x{k}_grad"] for k in wrt]


KINKS: list[tuple[str, dict[str, Any], list[float], list[float]]] = [
    ("Relu", {}, [-1, 0, -0.0, 1], [0, 0, 0, 1]),
    ("LeakyRelu", {"alpha": 0.25}, [-1, 0, 1], [0.25, 0.25, 1]),
    ("LeakyRelu", {"alpha": -0.25}, [-1, 0, 1], [-0.25, -0.25, 1]),
    ("ThresholdedRelu", {"alpha": 1.0}, [0.5, 1, 1.5], [0, 0, 1]),
    ("Shrink", {"lambd": 0.5}, [-1, -0.5, 0, 0.5, 1], [1, 0, 0, 0, 1]),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.5}, [-2, 0, 2], [0, 0.25, 0]),
    ("HardSwish", {}, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    ("Abs", {}, [-2, 0, 2], [-1, 0, 1]),
    ("Elu", {"alpha": 0.5}, [0.0], [0.5]),
    ("Selu", {"alpha": 2.0, "gamma": 0.5}, [0.0], [1.0]),
]


@pytest.mark.parametrize(("op", "attrs", "x", "expected"), KINKS, ids=[f"{k[0]}-{k[1]}" for k in KINKS])
def test_kinks(op: str, attrs: dict[str, Any], x: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(gradients(op, [np.array(x, float)], **attrs)[0], expected)


@pytest.mark.parametrize("op", ["Relu", "ThresholdedRelu", "Shrink", "HardSigmoid", "HardSwish"])
def test_infinite_cotangents_of_what_is_masked_out_vanish(op: str) -> None:
    x = {"Shrink": 0.1, "HardSigmoid": -9.0, "HardSwish": -9.0}.get(op, -1.0)
    assert gradients(op, [np.array([x])], seed=INF)[0] == 0


def test_prelu_at_zero_has_the_slope_and_gives_it_nothing() -> None:
    found = gradients("PRelu", [np.array([-2.0, 0.0, 3.0]), np.array([0.25])], wrt=(0, 1))
    np.testing.assert_array_equal(found[0], [0.25, 0.25, 1])
    np.testing.assert_array_equal(found[1], [-2.0])


@pytest.mark.parametrize(
    "op", ["Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Swish", "HardSwish", "Elu", "Selu", "Celu"]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_far_out_are_the_asymptotes(op: str, dtype: type) -> None:
    high = {"Sigmoid": 0, "Tanh": 0, "Softsign": 0, "Selu": 1.0507010221481323}.get(op, 1)
    for attrs in ({}, {"approximate": "tanh"}) if op == "Gelu" else ({},):
        (found,) = gradients(op, [np.array([-3e4, -300, 300, 3e4], dtype)], **attrs)
        np.testing.assert_allclose(found, [0, 0, high, high], rtol=1e-3, atol=2e-5)


# --- Max, Min ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_ties_share_equally(op: str) -> None:
    a, b, c = np.array([1.0, 2.0, INF]), np.array([1.0, 5.0, INF]), np.array([1.0, 2.0, INF])
    first, second = gradients(op, [a, b], wrt=(0, 1))
    np.testing.assert_array_equal(first, [0.5, op == "Min", 0.5])
    np.testing.assert_array_equal(second, [0.5, op == "Max", 0.5])
    third = gradients(op, [a, b, c], wrt=(0, 1, 2))
    expected = [[1 / 3, 0.5, 1 / 3], [1 / 3, 0, 1 / 3]] if op == "Min" else [[1 / 3, 0, 1 / 3], [1 / 3, 1, 1 / 3]]
    np.testing.assert_allclose(third, [*expected, expected[0]])


def test_one_value_that_is_both_operands_gets_the_whole() -> None:
    graph = Graph("twice")
    x = graph.add_input("x", TensorType(np.dtype(float), (2,)))
    graph.set_outputs({"y": Builder(graph).op("Max", x, x)})
    Vjp(["x"]).run(graph)
    found = compile(graph)({"x": np.ones(2), "y_cotangent": np.array([1.0, 3.0])})
    np.testing.assert_array_equal(found["x_grad"], [1.0, 3.0])


# --- Clip -------------------------------------------------------------------------------------------------------------

CLIPPED = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize("fixed", [(), (1, 2)], ids=["bounds-fed", "bounds-constant"])
def test_elements_on_a_bound_pass_the_cotangent(fixed: Sequence[int]) -> None:
    found = gradients("Clip", [CLIPPED, np.array(-1.0), np.array(1.0)], wrt=(0, 1, 2), fixed=fixed)
    np.testing.assert_array_equal(found[0], [0, 1, 1, 1, 0])
    assert found[1:] == [1.0, 1.0]


@pytest.mark.parametrize("fixed", [(), (1, 2)], ids=["bounds-fed", "bounds-constant"])
def test_where_the_bounds_are_crossed_everything_is_max(fixed: Sequence[int]) -> None:
    found = gradients("Clip", [CLIPPED, np.array(1.0), np.array(-1.0)], wrt=(0, 1, 2), fixed=fixed)
    np.testing.assert_array_equal(found[0], np.zeros(5))
    assert found[1:] == [0.0, 5.0]


# --- Pow --------------------------------------------------------------------------------------------------------------


def test_pow_at_base_zero() -> None:
    exponents = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    by_base, by_exponent = gradients("Pow", [np.zeros(5), exponents], wrt=(0, 1))
    np.testing.assert_array_equal(by_base, [0, INF, 1, 0, 0])
    np.testing.assert_array_equal(by_exponent, np.zeros(5))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_pow_by_a_constant_at_base_zero(exponent: float, dtype: type) -> None:
    operands = [np.array([0.0, -2.0], np.float32), np.array(exponent, dtype)]
    (found,) = gradients("Pow", operands, fixed=(1,))
    np.testing.assert_array_equal(found, np.array([1.0 if exponent == 1 else 0, exponent * (-2.0) ** (exponent - 1)]))
    (found,) = gradients("Pow", [operands[0], np.array([exponent, exponent], dtype)], fixed=(1,))
    np.testing.assert_array_equal(found[0], 1.0 if exponent == 1 else 0)


def test_pow_of_a_negative_base_has_no_gradient_by_its_exponent() -> None:
    by_base, by_exponent = gradients("Pow", [np.array([-2.0]), np.array([3.0])], wrt=(0, 1))
    assert by_base == 12
    assert np.isnan(by_exponent)


def test_pow_of_a_negative_base_by_whole_and_broken_exponents() -> None:
    """Between whole exponents the power of a negative base is NaN, so that nothing can be told by the exponent."""
    exponents = np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 0.5])
    by_base, by_exponent = gradients("Pow", [np.full(6, -2.0), exponents], wrt=(0, 1))
    np.testing.assert_array_equal(by_base, [-0.25, 0, 1, -4, 12, NAN])
    np.testing.assert_array_equal(by_exponent, np.full(6, NAN))


def test_negative_powers_of_zero_have_an_infinite_gradient_by_the_base_and_none_by_the_exponent() -> None:
    by_base, by_exponent = gradients("Pow", [np.zeros(2), np.array([-1.0, -2.0])], wrt=(0, 1))
    np.testing.assert_array_equal(by_base, [-INF, -INF])
    np.testing.assert_array_equal(by_exponent, [NAN, NAN])


def test_pow_mixes_second_derivatives_at_exponent_zero() -> None:
    """Of x^y by x and by y there, that is 1 / x."""
    graph = graph_of("Pow", [np.array([4.0]), np.array([0.0])])
    Vjp(["x0"]).run(graph)
    Vjp(["x1"], ["x0_grad"]).run(graph)
    one = np.ones(1)
    feeds = {"x0": np.array([4.0]), "x1": np.zeros(1), "y0_cotangent": one, "x0_grad_cotangent": one}
    np.testing.assert_allclose(compile(graph)(feeds)["x1_grad"], [0.25])


# --- remainders, casts, dropout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod_counts_as_often_as_it_subtracts(fmod: int) -> None:
    x, y = np.array([1.0]), np.array([0.1])  # 0.1 is a little more than a tenth, which the quotient rounds away
    assert x / y == 10
    assert gradients("Mod", [x, y], wrt=(1,), fmod=fmod)[0] == -9


@pytest.mark.parametrize(("fmod", "expected"), [(0, [-2, 3, 3, -2]), (1, [-2, 2, 2, -2])], ids=["floor", "truncate"])
def test_mod_of_negative_operands(fmod: int, expected: list[int]) -> None:
    """The quotient is rounded down (fmod=0, the sign of the divisor) or towards zero (fmod=1, the sign of the dividend)."""
    x, y = np.array([5.0, -5.0, 5.0, -5.0]), np.array([2.0, 2.0, -2.0, -2.0])
    by_dividend, by_divisor = gradients("Mod", [x, y], wrt=(0, 1), fmod=fmod)
    np.testing.assert_array_equal(by_dividend, np.ones(4))
    np.testing.assert_array_equal(by_divisor, expected)


def test_no_gradient_through_integers() -> None:
    graph = graph_of("Cast", [np.array([1.5])], to=7)
    graph.set_outputs({"y": Builder(graph).op("Cast", graph.outputs["y0"], to=11)})
    Vjp(["x0"]).run(graph)
    assert compile(graph)({"x0": np.array([1.5]), "y_cotangent": np.ones(1)})["x0_grad"] == 0


def test_bits_read_as_another_float_have_no_gradient() -> None:
    graph = graph_of("BitCast", [np.ones(2, np.float16)], to=16)
    with pytest.raises(UnsupportedOpError, match="bits of f16 read as bf16"):
        Vjp(["x0"]).run(graph)


def test_bits_of_another_width_are_refused() -> None:
    with pytest.raises(IrgradError, match="width"):
        compile(graph_of("BitCast", [np.ones(2, np.float32)], to=11))({"x0": np.ones(2, np.float32)})


def test_stop_gradient_stops_and_lowers_to_identity() -> None:
    graph = Graph("stopped")
    x = graph.add_input("x", TensorType(np.dtype(float), (2,)))
    with Builder(graph) as b:
        graph.set_outputs({"y": x * b.op("irgrad.StopGradient", x)})
    joint = graph.copy()
    Vjp(["x"]).run(joint)
    found = compile(joint)({"x": np.array([2.0, 3.0]), "y_cotangent": np.ones(2)})
    np.testing.assert_array_equal(found["x_grad"], [2.0, 3.0])
    (node,) = [n for n in graph.nodes() if n.op.name == "StopGradient"]
    expand(graph, node)
    assert sorted(n.op.name for n in graph.nodes()) == ["Identity", "Mul"]


# --- one output returned twice ----------------------------------------------------------------------------------------


def test_cotangents_of_one_value_under_two_names_add_up() -> None:
    graph = Graph("twice")
    x = graph.add_input("x", TensorType(np.dtype(float), (1,)))
    with Builder(graph):
        y = x * x
    graph.set_outputs({"a": y, "b": y})
    Vjp(["x"]).run(graph)
    found = compile(graph)({"x": np.array([3.0]), "a_cotangent": np.ones(1), "b_cotangent": np.full(1, 10.0)})
    assert found["x_grad"] == 66
