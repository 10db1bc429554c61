"""Cases of irgrad/ops/softmax.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ops.harness import Case, rng

X = rng(50).standard_normal((2, 3, 4))
LARGE = np.array([[1000.0, 1001.0, 999.5], [-1000.0, -1002.0, -1001.0]])
DY = rng(51).standard_normal((2, 3, 4))
MASKED = np.array([[0.5, -np.inf, 0.25]])


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def softmax_grad(axis: int) -> Callable[..., np.ndarray]:
    return lambda y, dy: y * (dy - (y * dy).sum(axis, keepdims=True))


CASES = [
    *(
        case
        for op in ("Softmax", "LogSoftmax")
        for case in (
            Case(op, [X], id="default-axis"),
            Case(op, [X], {"axis": 1}, id="axis-1"),
            Case(op, [X], {"axis": -3}, id="axis-negative"),
            Case(op, [X.astype(np.float32)], id="f32"),
            Case(op, [np.zeros((0, 3))], id="of-nothing", order=0),
        )
    ),
    Case("Softmax", [LARGE], id="large"),
    Case("LogSoftmax", [LARGE], id="large", oracle=log_softmax),
    Case("LogSoftmax", [np.array([[0.0, 200.0]])], id="vanishing", oracle=lambda x: np.array([[-200.0, 0.0]])),
    Case("Softmax", [MASKED], id="masked", order=0),
    Case("LogSoftmax", [MASKED], id="masked", order=0),
    # Summed in float32: 3000 equal halves would add up to 2048 in float16.
    Case("Softmax", [np.zeros(3000, np.float16)], id="f16", order=0, oracle=lambda x: np.full(3000, 1 / 3000, np.float16)),
    Case(
        "LogSoftmax",
        [np.zeros(3000, np.float16)],
        id="f16",
        order=0,
        oracle=lambda x: np.full(3000, -np.log(3000), np.float16),
    ),
    *(
        Case("irgrad.SoftmaxGrad", [softmax(X, axis), DY], {"axis": axis}, id=f"axis{axis}", oracle=softmax_grad(axis))
        for axis in (-1, 1)
    ),
    Case(
        "irgrad.SoftmaxGrad",
        [softmax(X, -1).astype(np.float16), DY.astype(np.float16)],
        id="f16",
        order=0,
        oracle=softmax_grad(-1),
        rtol=2e-2,
    ),
    # Where nothing enters a row of NaN, nothing leaves it.
    Case(
        "irgrad.SoftmaxGrad",
        [np.array([[np.nan, np.nan], [0.25, 0.75]]), np.array([[0.0, 0.0], [1.0, 2.0]])],
        id="masked-row",
        order=0,
        oracle=lambda y, dy: np.array([[0.0, 0.0], [-0.1875, 0.1875]]),
    ),
    Case("Hardmax", [np.array([[1.0, 3.0, 3.0], [2.0, -1.0, 0.0]])], id="last-axis", order=0),
    Case("Hardmax", [X.astype(np.float32)], {"axis": 1}, id="f32-axis-1", order=0),
    Case("Hardmax", [np.zeros((0, 3))], id="of-nothing", order=0),
]
