"""Cases of irgrad/ops/norm_adjoint.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from tests.ops.harness import Case, rng


def layer_norm_grad(
    dy: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    centred: int = 1,
    wrt: Sequence[int] = (0, 1, 2),
) -> tuple[np.ndarray, ...]:
    """The adjoint by the whole Jacobian matrix of each row: I − 1/n − x̂ x̂ᵀ / n, over the standard deviation."""
    size = scale.size
    results: list[np.ndarray] = []
    rows, cotangents = (v.reshape(-1, size).astype(np.float64) for v in (x, dy))
    differences = rows - rows.mean(1, keepdims=True) if centred else rows
    deviations = np.sqrt((differences**2).mean(1) + epsilon)
    normalised = differences / deviations[:, None]
    jacobians = np.eye(size) - (1 / size if centred else 0) - normalised[:, :, None] * normalised[:, None] / size
    results.append(np.einsum("rij,rj->ri", jacobians, cotangents * scale.reshape(-1)) / deviations[:, None])
    results.append((cotangents * normalised).sum(0))
    results.append(cotangents.sum(0))
    shapes = (x.shape, scale.shape, scale.shape)
    return tuple(results[k].reshape(shapes[k]).astype(x.dtype) for k in wrt)


def of_rows(shape: Sequence[int], first: int, dtype: type = np.float64) -> list[np.ndarray]:
    """The operands dy, x and scale of a LayerNormalizationGrad."""
    generator = rng(7)
    return [generator.standard_normal(s).astype(dtype) for s in (shape, shape, shape[first:])]


ROWS = [
    Case("irgrad.LayerNormalizationGrad", of_rows((2, 3, 4), 2), outputs=3, oracle=layer_norm_grad),
    *(
        Case(
            "irgrad.LayerNormalizationGrad",
            of_rows((2, 3, 4), 2 if "axis" not in attrs else 1, dtype),
            attrs,
            id=id,
            outputs=len(attrs.get("wrt", (0, 1, 2))),
            oracle=partial(layer_norm_grad, **attrs),
        )
        for id, dtype, attrs in [
            ("rms", np.float64, {"centred": 0, "wrt": (0, 1)}),
            ("axis", np.float64, {"axis": 1, "epsilon": 0.1}),
            ("x-only", np.float64, {"wrt": (0,)}),
            ("scale-only", np.float64, {"wrt": (1,)}),
            ("bias-only", np.float64, {"wrt": (2,)}),
            ("f32", np.float32, {}),
        ]
    ),
    Case("irgrad.LayerNormalizationGrad", of_rows((6,), 0), outputs=3, id="one-row", oracle=layer_norm_grad),
]


def group_norm_grad(
    dy: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    *,
    num_groups: int = 0,
    epsilon: float = 1e-5,
    wrt: Sequence[int] = (0, 1, 2),
) -> tuple[np.ndarray, ...]:
    """By `layer_norm_grad` of each group, whose scale is 1, with the cotangent of what it standardises."""
    batch, channels = x.shape[:2]
    groups = num_groups or channels
    spread = scale.reshape(-1, *(1,) * (x.ndim - 2))
    rows = (batch * groups, x.size // (batch * groups))
    ones = np.ones(rows[1], x.dtype)
    dx = layer_norm_grad((dy * spread).reshape(rows), x.reshape(rows), ones, epsilon=epsilon)[0].reshape(x.shape)
    grouped = x.reshape(rows).astype(np.float64)
    deviation = np.sqrt(grouped.var(1, keepdims=True) + epsilon)
    normalised = ((grouped - grouped.mean(1, keepdims=True)) / deviation).reshape(x.shape)
    others = tuple(k for k in range(x.ndim) if k != 1)
    results = (dx, (dy * normalised).sum(others), dy.sum(others))
    return tuple(results[k].astype(x.dtype) for k in wrt)


def of_channels(shape: Sequence[int], dtype: type = np.float64) -> list[np.ndarray]:
    """The operands dy, x and scale of a GroupNormalizationGrad."""
    generator = rng(8)
    return [generator.standard_normal(s).astype(dtype) for s in (shape, shape, shape[1:2])]


GROUPS = [
    Case(
        "irgrad.GroupNormalizationGrad",
        of_channels(shape, dtype),
        attrs,
        id=id,
        outputs=len(attrs.get("wrt", (0, 1, 2))),
        oracle=partial(group_norm_grad, **attrs),
    )
    for id, shape, dtype, attrs in [
        ("instance", (2, 3, 4), np.float64, {}),
        ("groups", (2, 4, 2, 2), np.float64, {"num_groups": 2, "epsilon": 0.1}),
        ("one-group", (2, 3, 3), np.float64, {"num_groups": 1}),
        ("no-positions", (3, 4), np.float64, {"num_groups": 2}),
        ("x-only", (2, 4, 3), np.float64, {"num_groups": 2, "wrt": (0,)}),
        ("parameters", (2, 4, 3), np.float64, {"num_groups": 2, "wrt": (1, 2)}),
        ("f32", (2, 4, 3), np.float32, {"num_groups": 2}),
    ]
]

CASES = [*ROWS, *GROUPS]
