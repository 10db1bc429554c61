"""Every operation on elements against the numpy kernels, over values of every kind, and shapes that are broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from irgrad.codegen import build_kernel
from irgrad.codegen.elementary import ELEMENTWISE
from tests.codegen.bodies import agree, body, compare, normal, results

VALUES = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.5, 3.0, -3.0, 7.25, 1e-3, -1e-3, 20.0, -20.0, 60.0, -60.0),
    *(np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e30, -1e30),
]

UNARY: dict[str, Callable[..., Any]] = {
    **{
        name: lambda b, x, name=name: b.op(name, x)
        for name in (
            *("Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Relu", "Softplus", "Sin", "Cos"),
            *("Sign", "Floor", "Ceil", "Round", "Identity", "IsNaN", "Elu", "Celu", "Selu", "Softsign", "HardSigmoid"),
            *(
                "HardSwish",
                "Swish",
                "ThresholdedRelu",
                "Shrink",
                "LeakyRelu",
                "Atan",
                "Asinh",
                "Sinh",
                "irgrad.StopGradient",
            ),
        )
    },
    "LeakyRelu of a slope": lambda b, x: b.op("LeakyRelu", x, alpha=0.2),
    "IsInf": lambda b, x: b.op("IsInf", x),
    "IsInf negative": lambda b, x: b.op("IsInf", x, detect_positive=0),
    "Clip": lambda b, x: b.op("Clip", x, -1.0, 2.0),
    "Clip below": lambda b, x: b.op("Clip", x, -1.0),
    "Clip above": lambda b, x: b.op("Clip", x, None, 2.0),
    "CastLike": lambda b, x: b.op("CastLike", x, b.constant(np.zeros(3, np.float64))),
    "ConstantOfShape": lambda b, x: b.op("ConstantOfShape", b.ints(x.shape), value=np.full(1, 2.5, np.float32)),
    **{f"Pow {p}": lambda b, x, p=p: b.op("Pow", x, p) for p in (-2, -1, -0.5, 0, 1, 2, 3, 5, 1.5)},
}

# Within a few hundred units in the last place where numpy's own float32 functions are not within one.
MILD: dict[str, Callable[..., Any]] = {
    "Gelu": lambda b, x: b.op("Gelu", x),
    "Gelu tanh": lambda b, x: b.op("Gelu", x, approximate="tanh"),
    "Mish": lambda b, x: b.op("Mish", x),
    "Tan": lambda b, x: b.op("Tan", x),
    "Cosh": lambda b, x: b.op("Cosh", x),
    "Asin": lambda b, x: b.op("Asin", x * 0.2),
    "Acos": lambda b, x: b.op("Acos", x * 0.2),
    "Acosh": lambda b, x: b.op("Acosh", b.op("Abs", x) + 1),
    "Atanh": lambda b, x: b.op("Atanh", x * 0.2),
}

BINARY: dict[str, Callable[..., Any]] = {
    **{
        name: lambda b, x, y, name=name: b.op(name, x, y)
        for name in (
            *("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
            *("Sum", "Mean", "PRelu"),
        )
    },
    "Where": lambda b, x, y: b.op("Where", x > y, x, y),
    "And": lambda b, x, y: b.op("And", x > 0, y > 0),
    "Or": lambda b, x, y: b.op("Or", x > 0, y > 0),
    "Xor": lambda b, x, y: b.op("Xor", x > 0, y > 0),
    "Not": lambda b, x, y: b.op("Not", x > y),
    "Max of three": lambda b, x, y: b.op("Max", x, y, x * y),
    "SwiGLU": lambda b, x, y: b.op("SwiGLU", x, y),
}


def pairs(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.array(VALUES), np.array(VALUES))
    return x.reshape(-1).astype(dtype), y.reshape(-1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary(dtype: Any) -> None:
    x = np.array(VALUES * 3, dtype)
    agree(body([x], lambda b, x: [emit(b, x) for emit in UNARY.values()]), [x], atol=1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary_of_mild_numbers(dtype: Any) -> None:
    x = normal(200, dtype=dtype)
    agree(body([x], lambda b, x: [emit(b, x) for emit in MILD.values()]), [x], scale=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary(dtype: Any) -> None:
    x, y = pairs(dtype)
    agree(body([x, y], lambda b, x, y: [emit(b, x, y) for emit in BINARY.values()]), [x, y])


def test_powers_of_operands() -> None:
    x, y = np.abs(normal(50)) + 0.1, normal(50, seed=1)
    agree(body([x, y], lambda b, x, y: [b.op("Pow", x, y), b.op("Pow", x, b.cast(y, np.dtype(np.int64)))]), [x, y])


def test_the_power_of_a_half_is_no_square_root() -> None:
    """C's pow has no NaN at -inf and no sign at -0; numpy's own, where the exponent is a scalar, has."""
    x = np.array(VALUES, np.float32)
    (y,) = results(build_kernel(body([x], lambda b, x: b.op("Pow", x, 0.5))), [x])
    with np.errstate(all="ignore"):
        compare([np.power(x, np.full_like(x, 0.5))], [y])
    assert not np.signbit(y[x == 0]).any()


def test_casts() -> None:
    x, n, m = normal(40) * 50, np.arange(-20, 20, dtype=np.int64), np.arange(-20, 20, dtype=np.int32)
    dtypes = [np.dtype(t) for t in (np.float32, np.float64, np.bool_, np.int32, np.int64)]
    agree(
        body(
            [x, n, m],
            lambda b, *vs: [
                b.cast(b.cast(v, d) if d != v.dtype else -v, t) for v in vs for d in dtypes for t in dtypes if t != d
            ],
        ),
        [x, n, m],
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers(dtype: Any) -> None:
    x, y = (np.array(v, dtype) for v in ([3, -7, 2**30, 0, -(2**31)], [5, -2, 2**30, 9, 3]))
    names = ("Add", "Sub", "Mul", "Max", "Min", "Equal", "Less", "Greater")
    agree(
        body(
            [x, y],
            lambda b, x, y: [
                *(b.op(n, x, y) for n in names),
                -x,
                b.op("Abs", y),
                b.op("Sign", x),
                b.op("Where", x > y, x, y),
                b.op("Clip", x, -3, 3),
            ],
        ),
        [x, y],
    )


def test_every_operation_is_tried() -> None:
    tried = {name.split(" ")[0] for name in (*UNARY, *MILD, *BINARY)} | {"Pow", "Cast", "Expand"}
    assert tried == set(ELEMENTWISE)


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 5), (5,)],
        [(4, 5), (4, 1), (1, 5), ()],
        [(4, 1), (1, 5)],
        [(1, 5), (3, 4, 1), (4, 1)],
        [(2, 3, 4, 5), (3, 1, 1), (5,), (2, 1, 4, 1), (1,)],
        [(2, 1, 4, 1), (3, 1, 5)],
        [(1,), (1, 1)],
        [(), ()],
        [(6, 130), (130,), (6, 1)],
        [(300, 150), (150,)],
        [(40000,), (1,)],
    ],
)
def test_broadcasting(shapes: list[tuple[int, ...]]) -> None:
    arrays = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]

    def emit(b: Any, *vs: Any) -> Any:
        small = [b.op("Exp", v * 0.1) for v in vs]
        total = vs[0]
        for v, w in zip(vs[1:], small[1:], strict=True):
            total = total * w + v
        return [total, *small]

    agree(body(arrays, emit), arrays, scale=0.1)


def test_changes_of_shape() -> None:
    x, y, z, w = normal(4, 6), normal(2, 2, 6, seed=1), normal(2, 1, seed=2), normal(4, seed=3)

    def emit(b: Any, x: Any, y: Any, z: Any, w: Any) -> Any:
        flat = b.op("Reshape", x, b.ints([2, 12])) * z + b.op("Flatten", y, axis=1)
        back = b.op("Reshape", flat, b.ints([4, 6])) + b.op("Unsqueeze", w, b.ints([1]))
        one = b.op("Unsqueeze", back, b.ints([0, 3]))
        wide = b.op("Expand", b.op("Unsqueeze", b.op("Squeeze", b.op("Exp", z)), b.ints([1])), b.ints([2, 12]))
        return flat, back, b.op("Tanh", one), b.op("Squeeze", one, b.ints([0])), wide

    agree(body([x, y, z, w], emit), [x, y, z, w])


def test_constants_and_values_that_nothing_computes() -> None:
    x = normal(3, 4)
    table = normal(4, seed=9)

    def emit(b: Any, x: Any) -> Any:
        c = b.constant(table, name="table")
        return x * c, b.op("Identity", x), c, b.op("Identity", b.constant(np.float32(2.5)))

    agree(body([x], emit), [x])
