"""Determinants and cofactors beyond single cases: singular matrices, matrices that are not finite, second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Graph, Value
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.autodiff.expand import expand
from irgrad.runtime import compile
from irgrad.types import Shape, TensorType

F64 = np.dtype(np.float64)


def of_det(shape: Shape, then: Callable[[Builder, Value], Value] | None = None, dtype: np.dtype = F64) -> Graph:
    """The gradient of a function of a determinant (the determinant itself by default) by the matrices x."""
    graph = Graph("det")
    with Builder(graph) as b:
        y = b.op("Det", graph.add_input("x", TensorType(dtype, shape)))
        graph.set_outputs({"y": y if then is None else then(b, y)})
    Vjp(["x"]).run(graph)
    return graph


def gradient(x: np.ndarray, graph: Graph | None = None) -> np.ndarray:
    graph = graph or of_det(x.shape, dtype=x.dtype)
    dy = np.ones(x.shape[:-2], x.dtype)
    found: np.ndarray = compile(graph)({"x": x, "y_cotangent": dy})["x_grad"]
    return found


def orthogonal(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def test_the_gradient_is_three_nodes() -> None:
    graph = of_det((2, 4, 4))
    assert [n.op.qualified_name for n in graph.nodes()] == ["Det", "Unsqueeze", "irgrad.Cofactor", "Mul"]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_of_a_matrix_of_rank_one_less_it_has_rank_one(size: int) -> None:
    u, v = orthogonal(size, 1), orthogonal(size, 2)
    x = (u * np.array([*range(1, size), 0])) @ v.T
    sign = np.linalg.det(u) * np.linalg.det(v)
    product = np.prod(np.arange(1.0, size))
    np.testing.assert_allclose(gradient(x), sign * product * np.outer(u[:, -1], v[:, -1]), rtol=1e-9, atol=1e-12 * product)


@pytest.mark.parametrize("size", [3, 4, 6])
def test_of_a_matrix_of_still_lower_rank_it_is_zero(size: int) -> None:
    x = (orthogonal(size, 1) * np.array([*range(1, size - 1), 0, 0])) @ orthogonal(size, 2)
    np.testing.assert_allclose(gradient(x), 0, atol=1e-12)
    np.testing.assert_array_equal(gradient(np.zeros((size, size))), 0)


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("smallest", [1e-3, 1e-8, 1e-14, 1e-300])
def test_near_singular_matrices_lose_nothing(size: int, smallest: float) -> None:
    u, v = orthogonal(size, 3), orthogonal(size, 4)
    s = np.array([*np.linspace(2, 1, size - 1), smallest])
    others = np.array([np.prod(np.delete(s, k)) for k in range(size)])
    expected = np.linalg.det(u) * np.linalg.det(v) * (u * others) @ v.T
    np.testing.assert_allclose(gradient((u * s) @ v.T), expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_small_integers_are_exact() -> None:
    np.testing.assert_array_equal(gradient(np.array([[1.0, 2.0], [2.0, 4.0]])), [[4, -2], [-2, 1]])
    x = np.arange(1.0, 10).reshape(3, 3)
    np.testing.assert_array_equal(gradient(x), [[-3, 6, -3], [6, -12, 6], [-3, 6, -3]])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_spoils_no_other(size: int, bad: float) -> None:
    x = np.random.default_rng(5).standard_normal((2, size, size))
    good = gradient(x[1])
    x[0, 0, 0] = bad
    found = gradient(x)
    assert not np.isfinite(found[0]).all()
    np.testing.assert_allclose(found[1], good)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits(dtype: type) -> None:
    x = np.random.default_rng(6).integers(-2, 3, (2, 4, 4)).astype(dtype)
    found = gradient(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(float), gradient(x.astype(float)), rtol=0.01, atol=0.01)


def test_the_second_derivative_of_a_log_determinant() -> None:
    """The Hessian of log det x applied to v is −(x⁻¹ v x⁻¹)ᵀ; of 30 x 30 matrices, whose minors of minors nobody lists."""
    generator = np.random.default_rng(7)
    x = generator.standard_normal((30, 30))
    x, v = x @ x.T + 30 * np.eye(30), generator.standard_normal((30, 30))
    scaled = x / np.exp(np.linalg.slogdet(x)[1] / 30)
    graph = of_det((30, 30), lambda b, y: b.op("Log", y))
    graph.set_outputs({"g": graph.outputs["x_grad"]})
    Vjp(["x"]).run(graph)
    assert sorted({n.op.qualified_name for n in graph.nodes() if n.op.domain}) == [
        "irgrad.Cofactor",
        "irgrad.CofactorDerivative",
    ]
    found = compile(graph)({"x": scaled, "y_cotangent": np.ones(()), "g_cotangent": v})["x_grad"]
    inverse = np.linalg.inv(scaled)
    np.testing.assert_allclose(found, -(inverse @ v @ inverse).T, rtol=1e-8, atol=1e-10)


def test_matrices_of_unknown_rank_have_a_gradient_but_no_lowering() -> None:
    x = np.random.default_rng(8).standard_normal((2, 3, 4, 4))
    graph = of_det(None)
    np.testing.assert_allclose(gradient(x, graph), gradient(x))
    (node,) = [n for n in graph.nodes() if n.op.name == "Cofactor"]
    with pytest.raises(UnsupportedOpError, match="rank"):
        expand(graph, node)


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_lowered_to_standard_operations_it_takes_matrices_of_any_size(size: int) -> None:
    graph = of_det(("batch", "n", "n"))
    (node,) = [n for n in graph.nodes() if n.op.name == "Cofactor"]
    expand(graph, node)
    x = np.random.default_rng(9).standard_normal((2, size, size))
    np.testing.assert_allclose(gradient(x, graph), gradient(x), atol=1e-12)
