"""Cases of irgrad/ops/batch_norm.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

C = 3
IMAGES = rng(100).standard_normal((2, C, 2, 2))
ROWS = rng(101).standard_normal((4, C))
LINE = rng(102).standard_normal(5)


def parameters(count: int = C) -> list[np.ndarray]:
    generator = rng(103)
    scale, bias, mean = (
        generator.uniform(0.5, 1.5, count),
        generator.standard_normal(count),
        generator.standard_normal(count),
    )
    return [scale, bias, mean, generator.uniform(0.5, 1.5, count)]


def single(*arrays: Any) -> list[np.ndarray]:
    return [np.asarray(a, np.float32) for a in arrays]


def inference(epsilon: float = 1e-5) -> Any:
    def oracle(x: np.ndarray, *operands: np.ndarray) -> np.ndarray:
        scale, bias, mean, var = (a.astype(np.float64).reshape(-1, *(1,) * max(x.ndim - 2, 0)) for a in operands)
        return ((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype)

    return oracle


def training(momentum: float = 0.9, epsilon: float = 1e-5) -> Any:
    # onnx.reference cannot do one axis, and returns running statistics even where they are not asked for.
    def oracle(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray) -> Any:
        axes = tuple(k for k in range(x.ndim) if k != 1)
        own = np.atleast_1d(x.mean(axes)), np.atleast_1d(x.var(axes))
        y = inference(epsilon)(x, scale, bias, *own)
        return y, mean * momentum + own[0] * (1 - momentum), var * momentum + own[1] * (1 - momentum)

    return oracle


def adjoint(wrt: Sequence[int]) -> Any:
    """The cotangents by the text-book formulas, of inference mode or, without mean and var, of training mode."""

    def oracle(
        dy: np.ndarray, x: np.ndarray, scale: np.ndarray, mean: np.ndarray | None = None, var: np.ndarray | None = None
    ) -> Any:
        def column(v: np.ndarray) -> np.ndarray:
            return v[:, None, None]

        def total(v: np.ndarray) -> np.ndarray:
            return v.sum((0, 2, 3))

        own = mean is None
        centre, spread = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if own else (mean, var)
        inverse = 1 / np.sqrt(spread + 1e-5)
        difference = x - column(centre) if x is not None else np.zeros_like(dy)
        dvar = total(dy * difference) * scale * -0.5 * inverse**3
        dmean = -total(dy) * scale * inverse
        dx = dy * column(scale * inverse)
        if own:
            count = x.size / C
            dx = dx + column(dvar) * 2 * difference / count + column(dmean) / count
        results = [dx, total(dy * difference) * inverse, total(dy), dmean, dvar]
        return tuple(results[k] for k in wrt)

    return oracle


DY = rng(104).standard_normal(IMAGES.shape)
SCALE, _, MEAN, VAR = parameters()

CASES = [
    Case("BatchNormalization", [IMAGES, *parameters()], id="images"),
    Case("BatchNormalization", [ROWS, *parameters()], {"epsilon": 0.1}, id="rows"),
    Case("BatchNormalization", [LINE, *parameters(1)], id="one-axis"),
    Case("BatchNormalization", [IMAGES, *parameters()], id="only-x", wrt=[0]),
    Case("BatchNormalization", [IMAGES, *parameters()], id="only-mean-and-var", wrt=[3, 4]),
    Case("BatchNormalization", single(IMAGES, *parameters()), id="f32"),
    Case(
        "BatchNormalization",
        [IMAGES.astype(np.float16), *single(*parameters())],
        id="f16-x",
        order=0,
        rtol=1e-3,
        oracle=inference(),
    ),
    Case(
        "BatchNormalization",
        [a.astype(np.float16) for a in (IMAGES, *parameters())],
        id="f16",
        order=0,
        rtol=1e-3,
        oracle=inference(),
    ),
    Case(
        "BatchNormalization",
        [IMAGES, *parameters()],
        {"training_mode": 1, "momentum": 0.8},
        outputs=3,
        id="training",
        oracle=training(0.8),
    ),
    Case(
        "BatchNormalization",
        [ROWS, *parameters()],
        {"training_mode": 1, "epsilon": 0.1},
        outputs=3,
        id="training-rows",
        oracle=training(epsilon=0.1),
    ),
    Case(
        "BatchNormalization",
        [LINE, *parameters(1)],
        {"training_mode": 1},
        outputs=3,
        id="training-one-axis",
        oracle=training(),
    ),
    Case(
        "BatchNormalization",
        [IMAGES, *parameters()],
        {"training_mode": 1},
        outputs=3,
        wanted=[0],
        id="training-y",
        wrt=[0, 1, 2],
        oracle=training(),
    ),
    Case(
        "BatchNormalization",
        [IMAGES, *parameters()],
        {"training_mode": 1},
        outputs=3,
        wanted=[1, 2],
        id="training-running",
        oracle=training(),
    ),
    Case(
        "BatchNormalization",
        single(IMAGES, *parameters()),
        {"training_mode": 1},
        outputs=3,
        id="training-f32",
        oracle=training(),
    ),
    Case(
        "irgrad.BatchNormalizationGrad",
        [DY, IMAGES, SCALE, MEAN, VAR],
        {"wrt": (0, 1, 2, 3, 4)},
        outputs=5,
        oracle=adjoint((0, 1, 2, 3, 4)),
    ),
    Case(
        "irgrad.BatchNormalizationGrad",
        [DY, None, SCALE, MEAN, VAR],
        {"wrt": (0, 2, 3)},
        outputs=3,
        id="without-x",
        oracle=adjoint((0, 2, 3)),
    ),
    Case(
        "irgrad.BatchNormalizationGrad",
        [DY, IMAGES, SCALE],
        {"wrt": (0, 1, 2), "training_mode": 1},
        outputs=3,
        id="training",
        oracle=adjoint((0, 1, 2)),
    ),
]
