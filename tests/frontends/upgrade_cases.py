"""Nodes in an opset before that of an adapter: small operations. The oracles are the old schemas' texts in numpy."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np

from tests.frontends.old_models import OldCase

F32 = np.float32
X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(F32)
"""An image [N, C, H, W]."""
M = X[0, 0]
"""A matrix."""
C = np.array([0.5, -1.5, 2.0], F32)
"""One number per channel."""


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, F32)


# --- elementwise ------------------------------------------------------------------------------------------------------

ARITHMETIC: dict[str, Callable[..., Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
COMPARISONS: dict[str, Callable[..., Any]] = {"Greater": np.greater, "Less": np.less}
LOGICAL: dict[str, Callable[..., Any]] = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}
UNARY: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Elu": lambda x: np.where(x < 0, np.exp(x) - 1, x),
    "Exp": np.exp,
    "Floor": np.floor,
    "HardSigmoid": lambda x: np.clip(F32(0.2) * x + F32(0.5), 0, 1),
    "LeakyRelu": lambda x: np.where(x < 0, F32(0.01) * x, x),
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
POSITIVE: dict[str, Callable[..., Any]] = {"Log": np.log, "Sqrt": np.sqrt}
VARIADIC: dict[str, Callable[..., Any]] = {
    "Max": lambda *x: np.max(x, axis=0),
    "Mean": lambda *x: np.mean(x, axis=0),
    "Min": lambda *x: np.min(x, axis=0),
    "Sum": lambda *x: np.sum(x, axis=0),
}


def per_channel(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, c: function(x, c.reshape(-1, *[1] * (x.ndim - 1 - 1)))


def selu(alpha: float, gamma: float) -> Callable[..., Any]:
    return lambda x: (F32(gamma) * np.where(x > 0, x, F32(alpha) * np.exp(x) - F32(alpha))).astype(F32)


def prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x < 0, slope * x, x)


LARGEST = float(np.finfo(F32).max)
HUGE = np.array([-1e300, -2.0, 0.5, 3.0, 1e300])

ELEMENTWISE = [
    *(OldCase(op, 1, [X], {"consumed_inputs": [1]}, f) for op, f in UNARY.items()),
    *(OldCase(op, 1, [np.abs(X)], {"consumed_inputs": [1]}, f) for op, f in POSITIVE.items()),
    *(OldCase(op, 1, [X, X[::-1], 2 * X], {"consumed_inputs": [1, 0, 0]}, f) for op, f in VARIADIC.items()),
    *(OldCase(op, 1, [X, X[::-1]], {"consumed_inputs": [1, 0]}, f) for op, f in ARITHMETIC.items()),
    *(OldCase(op, 6, [X, C], {"broadcast": 1, "axis": 1}, per_channel(f), id="axis") for op, f in ARITHMETIC.items()),
    *(OldCase(op, 6, [X, C], {"broadcast": 1, "axis": 1}, per_channel(f), id="axis") for op, f in COMPARISONS.items()),
    *(OldCase(op, 6, [X > 0, C > 0], {"broadcast": 1, "axis": 1}, per_channel(f), id="axis") for op, f in LOGICAL.items()),
    OldCase("Equal", 6, [X.astype(np.int32), ints(0, 1, 0).astype(np.int32)], {"broadcast": 1, "axis": 1},
            per_channel(np.equal)),
    OldCase("Pow", 1, [np.abs(X), C], {"broadcast": 1, "axis": 1}, per_channel(np.power), rtol=1e-5),
    OldCase("Add", 6, [X, X[0, :, :, 0]], {"broadcast": 1, "axis": 1}, lambda x, y: x + y[:, :, None], id="middle"),
    OldCase("Add", 6, [X, X[0, 0]], {"broadcast": 1}, np.add, id="suffix"),
    OldCase("Add", 6, [X, X[0, 0]], {"broadcast": 1, "axis": 2}, np.add, id="axis of a suffix"),
    OldCase("Add", 6, [X, X[0, 0]], {"broadcast": 1, "axis": -1}, np.add, id="axis not set"),
    OldCase("Add", 6, [X, floats(3)], {"broadcast": 1, "axis": 1}, np.add, id="one element"),
    OldCase("Add", 6, [X, X], {"axis": 1}, np.add, id="equal shapes"),
    OldCase("PRelu", 1, [X, C], {"consumed_inputs": [1, 0]}, per_channel(prelu)),
    OldCase("PRelu", 6, [X, floats(0.25)], {}, prelu, id="shared"),
    OldCase("PRelu", 6, [M, floats(1, 2, 3, 4, 5)], {}, prelu, id="matrix"),
    OldCase("Selu", 1, [X], {"consumed_inputs": [1]}, selu(1.6732, 1.0507)),
    OldCase("Selu", 5, [X], {"alpha": 2.0, "gamma": 3.0}, selu(2.0, 3.0), id="given"),
    OldCase("Clip", 1, [M], {"min": -0.5, "max": 0.5, "consumed_inputs": [1]}, lambda x: np.clip(x, F32(-0.5), F32(0.5))),
    OldCase("Clip", 1, [HUGE], {"min": -1.0}, lambda x: np.maximum(x, -1), id="no upper bound"),
    OldCase("Clip", 6, [M], {"max": 0.5}, lambda x: np.minimum(x, F32(0.5)), id="default of float32"),
    OldCase("Clip", 6, [HUGE], {}, lambda x: np.clip(x, -LARGEST, LARGEST), id="default of float64"),
    OldCase("Clip", 6, [M.astype(np.float16)], {"min": 0.0}, lambda x: np.maximum(x, 0), id="default of float16"),
    OldCase("Gemm", 1, [M, M[:3].T.copy(), C], {"broadcast": 1, "alpha": 0.5, "beta": 2.0},
            lambda a, b, c: F32(0.5) * a @ b + 2 * c),
    OldCase("Gemm", 6, [M, M, M[:, :4].copy()], {"transB": 1}, lambda a, b, c: a @ b.T + c),
    OldCase("Cast", 1, [3 * X], {"to": "INT32"}, lambda x: x.astype(np.int32)),
    OldCase("Cast", 1, [X], {"to": "DOUBLE"}, lambda x: x.astype(np.float64), id="DOUBLE"),
    OldCase("Erf", 9, [ints(-1, 0, 1, 2)], {}, lambda x: np.array([int(erf(v)) for v in x], x.dtype)),
    OldCase("Erf", 9, [floats(-1, 0, 0.5)], {}, lambda x: np.array([erf(v) for v in x], F32), id="float"),
    OldCase("InstanceNormalization", 1, [X, C, C], {"consumed_inputs": [1, 0, 0]},
            lambda x, s, c: s[:, None, None] * (x - x.mean((2, 3), keepdims=True))
            / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5) + c[:, None, None], rtol=1e-4),
]  # fmt: skip

# --- axes -------------------------------------------------------------------------------------------------------------

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, a, k: np.abs(x).sum(a, keepdims=k),
    "ReduceL2": lambda x, a, k: np.sqrt((x * x).sum(a, keepdims=k)),
    "ReduceLogSum": lambda x, a, k: np.log(x.sum(a, keepdims=k)),
    "ReduceLogSumExp": lambda x, a, k: np.log(np.exp(x).sum(a, keepdims=k)),
    "ReduceMax": lambda x, a, k: x.max(a, keepdims=k),
    "ReduceMean": lambda x, a, k: x.mean(a, keepdims=k),
    "ReduceMin": lambda x, a, k: x.min(a, keepdims=k),
    "ReduceProd": lambda x, a, k: x.prod(a, keepdims=k),
    "ReduceSum": lambda x, a, k: x.sum(a, keepdims=k),
    "ReduceSumSquare": lambda x, a, k: (x * x).sum(a, keepdims=k),
}


def reduction(op: str, axes: tuple[int, ...] | None, keepdims: bool) -> Callable[..., Any]:
    return lambda x: REDUCTIONS[op](x, axes, keepdims)


ONE = np.ones((1, 3, 1, 4), F32)
SIGNAL = X[0, :, :, :1].copy()

AXES = [
    *(OldCase(op, 1, [np.abs(X)], {"axes": [1, 3]}, reduction(op, (1, 3), True), rtol=1e-5) for op in REDUCTIONS),
    *(OldCase(op, 11, [np.abs(X)], {"axes": [-1], "keepdims": 0}, reduction(op, (-1,), False), rtol=1e-5)
      for op in REDUCTIONS),
    *(OldCase(op, 12, [np.abs(X)], {"keepdims": 0}, reduction(op, None, False), id="all", rtol=1e-4) for op in REDUCTIONS),
    OldCase("ReduceSum", 13, [X, ints(1)], {}, lambda x, a: x.sum(1, keepdims=True), constant=[1], rtol=1e-5),
    OldCase("ReduceMean", 13, [X], {"axes": [2]}, reduction("ReduceMean", (2,), True), rtol=1e-5),
    OldCase("ReduceLogSum", 18, [np.array([[1, 2], [30, 4]], np.int32), ints(1)], {},
            lambda x, a: np.array([[1], [3]], np.int32), constant=[1], id="integers"),
    OldCase("ReduceLogSumExp", 18, [np.array([[1, 2], [30, 4]]), ints(0)], {"keepdims": 0},
            lambda x, a: ints(30, 4 + 0), constant=[1], id="integers"),
    OldCase("Squeeze", 1, [ONE], {"axes": [0]}, lambda x: x[0]),
    OldCase("Squeeze", 11, [ONE], {"axes": [-2, 0]}, lambda x: x[0, :, 0], id="negative"),
    OldCase("Squeeze", 11, [ONE], {}, np.squeeze, id="all"),
    OldCase("Unsqueeze", 1, [M], {"axes": [0, 3]}, lambda x: x[None, :, :, None]),
    OldCase("Unsqueeze", 11, [M], {"axes": [-1]}, lambda x: x[..., None], id="negative"),
    OldCase("DFT", 17, [SIGNAL], {}, lambda x: dft(x, 1), rtol=1e-4),
    OldCase("DFT", 17, [SIGNAL], {"axis": 0, "onesided": 1}, lambda x: dft(x, 0)[:2], id="axis", rtol=1e-4),
]  # fmt: skip


def dft(x: np.ndarray, axis: int) -> np.ndarray:
    y = np.fft.fft(x[..., 0], axis=axis)
    return np.stack([y.real, y.imag], -1).astype(F32)


# --- shape ------------------------------------------------------------------------------------------------------------

SHAPE = [
    OldCase("Reshape", 1, [X], {"shape": [0, -1, 5], "consumed_inputs": [0]}, lambda x: x.reshape(2, 12, 5)),
    OldCase("Concat", 1, [X, X], {}, lambda x, y: np.concatenate([x, y], 1)),
    OldCase("Concat", 3, [X, X], {"axis": 3}, lambda x, y: np.concatenate([x, y], 3), id="axis"),
    OldCase("Slice", 1, [X], {"starts": [1, -3], "ends": [1000, -1], "axes": [1, 3]}, lambda x: x[:, 1:, :, -3:-1]),
    OldCase("Slice", 9, [X], {"starts": [0, 1], "ends": [1, 3]}, lambda x: x[:1, 1:3], id="first axes"),
    OldCase("Split", 1, [M], {}, lambda x: [x[:2], x[2:]], outputs=2),
    OldCase("Split", 1, [M, floats(1, 3)], {"axis": 0}, lambda x, s: [x[:1], x[1:]], outputs=2, constant=[1], id="operand"),
    OldCase("Split", 2, [M], {"axis": 1, "split": [1, 4]}, lambda x: [x[:, :1], x[:, 1:]], outputs=2),
    OldCase("Split", 11, [M], {"axis": -2}, lambda x: [x[:2], x[2:]], outputs=2),
    OldCase("Split", 13, [M, ints(1, 3)], {}, lambda x, s: [x[:1], x[1:]], outputs=2, constant=[1]),
    OldCase("Split", 13, [M], {}, lambda x: [x[:2], x[2:]], outputs=2, id="equal"),
    OldCase("Pad", 1, [M], {"paddings": [1, 0, 0, 2]}, lambda x: np.pad(x, ((1, 0), (0, 2)))),
    OldCase("Pad", 2, [M], {"pads": [1, 0, 0, 2], "value": 7.0},
            lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=7)),
    OldCase("Pad", 10, [M], {"pads": [0, -1, 0, -2]}, lambda x: x[:, 1:-2], id="negative"),
    OldCase("Pad", 2, [M], {"pads": [1, 1, 1, 0], "mode": "reflect"}, lambda x: np.pad(x, ((1, 1), (1, 0)), "reflect"),
            id="reflect"),
    OldCase("Pad", 2, [M], {"pads": [1, 1, 1, 0], "mode": "edge"}, lambda x: np.pad(x, ((1, 1), (1, 0)), "edge"), id="edge"),
    OldCase("Tile", 1, [M, np.array(2, F32), np.array(1, F32)], {}, lambda x, t, a: np.tile(x, (1, 2)), constant=[1, 2]),
    OldCase("Tile", 5, [M, floats(3), floats(0)], {}, lambda x, t, a: np.tile(x, (3, 1)), id="fed"),
]  # fmt: skip

# --- softmax ----------------------------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


ROWS: dict[str, Callable[..., Any]] = {
    "Softmax": softmax,
    "LogSoftmax": lambda x: np.log(softmax(x)),
    "Hardmax": lambda x: np.eye(x.shape[-1], dtype=x.dtype)[x.argmax(-1)],
}


def coerced(op: str, axis: int) -> Callable[..., Any]:
    """The operation on the matrix that a tensor was coerced to."""
    return lambda x: ROWS[op](x.reshape(int(np.prod(x.shape[:axis])), -1)).reshape(x.shape)


SOFTMAX = [
    *(OldCase(op, 1, [X], {}, coerced(op, 1), rtol=1e-5) for op in ROWS),
    *(OldCase(op, 12, [X], {"axis": 2}, coerced(op, 2), id="axis", rtol=1e-5) for op in ROWS),
    OldCase("Softmax", 11, [X], {"axis": -1}, coerced("Softmax", 3), id="last", rtol=1e-5),
    OldCase("Softmax", 11, [X], {"axis": -2}, coerced("Softmax", 2), id="negative", rtol=1e-5),
    OldCase("Softmax", 7, [X], {"axis": 0}, coerced("Softmax", 0), id="first", rtol=1e-5),
    OldCase("Softmax", 9, [X[:, :, :1, :1]], {}, coerced("Softmax", 1), id="channels", rtol=1e-5),
    OldCase("Softmax", 7, [C], {}, np.ones_like, id="vector"),
]

# --- index ------------------------------------------------------------------------------------------------------------


def topk(x: np.ndarray, k: int, axis: int) -> list[np.ndarray]:
    order = np.argsort(-x, axis, kind="stable").take(range(k), axis)
    return [np.take_along_axis(x, order, axis), order]


OFF_ON = floats(2, 5)

INDEX = [
    OldCase("TopK", 1, [X], {"k": 2}, lambda x: topk(x, 2, 3), outputs=2),
    OldCase("TopK", 1, [X], {"k": 3, "axis": 2}, lambda x: topk(x, 3, 2), outputs=2, id="axis"),
    OldCase("TopK", 10, [X, ints(2)], {"axis": 1}, lambda x, k: topk(x, 2, 1), outputs=2, constant=[1]),
    OldCase("OneHot", 9, [ints(1, 0, -1, 3), ints(3), OFF_ON], {},
            lambda i, d, v: v[(i[:, None] == np.arange(3)).astype(int)], constant=[1]),
    OldCase("OneHot", 9, [ints(1, 0, 2), ints(3), OFF_ON], {"axis": 0},
            lambda i, d, v: v[(i == np.arange(3)[:, None]).astype(int)], constant=[0, 1], id="in range"),
    OldCase("OneHot", 10, [floats(1.5, -1.0, -0.5), ints(3), OFF_ON], {},
            lambda i, d, v: v[(ints(1, -1, 0)[:, None] == np.arange(3)).astype(int)], constant=[1], id="float"),
    OldCase("Scatter", 9, [M, np.array([[1, 0, 2]]), floats(7, 8, 9)[None]], {"axis": 1}, lambda d, i, u: scattered(d, i, u),
            constant=[1], covers=["ScatterElements"]),
]  # fmt: skip


def scattered(data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    result = data.copy()
    np.put_along_axis(result[: len(indices)], indices, updates, 1)
    return result
