"""Cases of irgrad/ops/lrn.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X = rng(110).standard_normal((2, 6, 2, 3))
DY = rng(111).standard_normal(X.shape)
STRONG = {"alpha": 0.9, "beta": 0.6, "bias": 1.5}


def windows(size: int, alpha: float = 1e-4, bias: float = 1.0, **_: float) -> Any:
    """For each channel the window's channels and s, by the specification's words."""

    def base(x: np.ndarray) -> tuple[list[range], np.ndarray]:
        reach = [
            range(max(0, c - (size - 1) // 2), min(x.shape[1] - 1, c + int(np.ceil((size - 1) / 2))) + 1)
            for c in range(x.shape[1])
        ]
        sums = [np.square(x[:, window.start : window.stop]).sum(1) for window in reach]
        return reach, bias + alpha / size * np.stack(sums, 1)

    return base


def lrn(size: int, beta: float = 0.75, **attrs: float) -> Any:
    # onnx.reference normalises only as many channels as there are samples.
    return lambda x: (x / windows(size, **attrs)(x.astype(np.float64))[1] ** beta).astype(x.dtype)


def lrn_grad(size: int, alpha: float, beta: float, bias: float) -> Any:
    def oracle(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        reach, base = windows(size, alpha, bias)(x)
        dx = dy / base**beta
        for c, window in enumerate(reach):
            ds = (dy[:, c] * x[:, c] * -beta * base[:, c] ** (-beta - 1))[:, None]
            dx[:, window.start : window.stop] += ds * 2 * alpha / size * x[:, window.start : window.stop]
        return dx

    return oracle


def case(x: np.ndarray, attrs: dict[str, Any], id: str) -> Case:
    return Case("LRN", [x], attrs, id=id, oracle=lrn(**attrs))


CASES = [
    case(X, {"size": 3, **STRONG}, "odd"),
    case(X, {"size": 4, **STRONG}, "even"),
    case(X, {"size": 2, **STRONG}, "two"),
    case(X, {"size": 1, **STRONG}, "one"),
    case(X, {"size": 13, **STRONG}, "wider-than-the-channels"),
    case(X, {"size": 5}, "defaults"),
    case(X[..., 0], {"size": 3, **STRONG}, "signals"),
    case(X[..., 0, 0], {"size": 3, **STRONG}, "rows"),
    case(X.astype(np.float32), {"size": 3, **STRONG}, "f32"),
    *(
        Case("irgrad.LRNGrad", [DY, X], {"size": size, **STRONG}, id=id, oracle=lrn_grad(size, **STRONG))
        for id, size in [("odd", 3), ("even", 4)]
    ),
]
