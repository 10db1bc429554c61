"""Cases of irgrad/ops/norm.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X3 = rng(50).standard_normal((2, 3, 4))
X4 = rng(51).standard_normal((2, 4, 3, 2))
SCALE = {n: rng(60 + n).uniform(0.5, 1.5, n) for n in (3, 4)}
BIAS = {n: rng(70 + n).standard_normal(n) for n in (3, 4)}
SCALE34, BIAS34 = rng(55).uniform(0.5, 1.5, (3, 4)), rng(56).standard_normal((3, 4))


def single(*arrays: Any) -> list[np.ndarray]:
    return [np.asarray(a, np.float32) for a in arrays]


def standardised(
    x: np.ndarray, axes: Sequence[int], epsilon: float = 1e-5, centred: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    mean = x.mean(tuple(axes), keepdims=True) * centred
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(tuple(axes), keepdims=True) + epsilon)
    return (x - mean) * inverse, mean, inverse


# onnx.reference keeps 16-bit statistics in 16 bits.
def layer_norm_half(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (standardised(x, [-1])[0] * scale + bias).astype(np.float16)


def rms_norm_mixed(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (standardised(x, [-1], centred=False)[0] * scale).astype(scale.dtype)


def group_norm(groups: int, epsilon: float = 1e-5) -> Callable[..., np.ndarray]:
    def oracle(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        y = standardised(x.reshape(x.shape[0], groups, -1), [2], epsilon)[0].reshape(x.shape)
        shape = (-1,) + (1,) * (x.ndim - 2)
        return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)

    return oracle


def mean_variance_norm(*axes: int) -> Callable[[np.ndarray], np.ndarray]:
    # The function body that onnx.reference runs mixes float32 constants into float64.
    def oracle(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axes, keepdims=True)
        return centred / (np.sqrt((centred**2).mean(axes, keepdims=True)) + 1e-9)

    return oracle


def lp_norm(p: int, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    # onnx.reference sums for p = 1 without taking absolute values.
    def oracle(x: np.ndarray) -> np.ndarray:
        norm = np.linalg.norm(x.astype(np.float64), p, axis, keepdims=True)
        return np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype)

    return oracle


LAYER = [
    Case("LayerNormalization", [X3, SCALE[4], BIAS[4]], id="bias"),
    Case("LayerNormalization", [X3, SCALE[4]], id="no-bias"),
    Case("LayerNormalization", [X3, SCALE34, BIAS34], {"axis": 1, "epsilon": 0.1}, id="axis-1"),
    Case("LayerNormalization", [X3, SCALE34, None], {"axis": -2}, id="axis-negative"),
    Case("LayerNormalization", [X3, SCALE34[:, :1], BIAS[4]], {"axis": 1}, id="broadcast-parameters"),
    Case("LayerNormalization", [X3, rng(57).standard_normal((2, 3, 4))], {"axis": 0}, id="axis-0"),
    Case("LayerNormalization", single(X3, SCALE[4], BIAS[4]), id="f32"),
    Case("LayerNormalization", single(X3, SCALE34), {"axis": 1}, outputs=3, id="f32-statistics"),
    Case("LayerNormalization", [X3, SCALE[4], BIAS[4]], outputs=2, id="mean"),
    Case("LayerNormalization", single(X3, SCALE34), {"axis": 1}, outputs=3, wanted=[1, 2], wrt=[0], id="statistics-only"),
    Case(
        "LayerNormalization",
        [a.astype(np.float16) for a in (X3, SCALE[4], BIAS[4])],
        id="f16",
        order=0,
        rtol=1e-3,
        oracle=layer_norm_half,
    ),
]

RMS = [
    Case("RMSNormalization", [X3, SCALE[4]]),
    Case("RMSNormalization", [X3, SCALE34], {"axis": 1, "epsilon": 0.1}, id="axis-1"),
    Case("RMSNormalization", [X3, SCALE[4]], {"axis": -2}, id="broadcast-scale"),
    Case("RMSNormalization", single(X3, SCALE[4]), id="f32"),
    Case("RMSNormalization", [X3.astype(np.float16), SCALE[4].astype(np.float32)], id="f16-to-f32", oracle=rms_norm_mixed),
    Case(
        "RMSNormalization",
        [X3.astype(np.float32), SCALE[4].astype(np.float16)],
        id="f32-to-f16",
        rtol=1e-3,
        oracle=rms_norm_mixed,
    ),
]

CHANNELS = [
    Case("InstanceNormalization", [X4, SCALE[4], BIAS[4]], id="images"),
    Case("InstanceNormalization", [X3, SCALE[3], BIAS[3]], {"epsilon": 0.1}, id="signals"),
    Case("InstanceNormalization", [X3[0], SCALE[4], BIAS[4]], id="no-spatial-axes"),
    Case("InstanceNormalization", single(X4, SCALE[4], BIAS[4]), id="f32"),
    Case("GroupNormalization", single(X4, SCALE[4], BIAS[4]), {"num_groups": 2}, id="f32"),
    Case("GroupNormalization", [X4, SCALE[4], BIAS[4]], {"num_groups": 2, "epsilon": 0.1}, oracle=group_norm(2, 0.1)),
    Case("GroupNormalization", [X4, SCALE[4], BIAS[4]], {"num_groups": 4}, id="groups-of-one", oracle=group_norm(4)),
    Case(
        "GroupNormalization",
        [X3, SCALE[3], BIAS[3]],
        {"num_groups": 1, "stash_type": 11},
        id="one-group",
        oracle=group_norm(1),
    ),
    Case("GroupNormalization", [X3[0], SCALE[4], BIAS[4]], {"num_groups": 2}, id="no-spatial-axes", oracle=group_norm(2)),
    Case(
        "GroupNormalization",
        [a.astype(np.float16) for a in (X4, SCALE[4], BIAS[4])],
        {"num_groups": 2},
        id="f16",
        order=0,
        rtol=1e-3,
        oracle=group_norm(2),
    ),
]

ROWS = np.array([[0.5, -1.5, 2.0], [0.0, 0.0, 0.0], [1.0, 0.5, -0.25]])

PLAIN = [
    Case("MeanVarianceNormalization", [X4], oracle=mean_variance_norm(0, 2, 3)),
    Case("MeanVarianceNormalization", [X3], {"axes": (-1,)}, id="axes", oracle=mean_variance_norm(-1)),
    Case("MeanVarianceNormalization", single(X4), id="f32"),
    *(
        Case("LpNormalization", [x], {"p": p, "axis": axis}, id=f"{id}-p{p}", oracle=lp_norm(p, axis))
        for p in (1, 2)
        for id, x, axis in [("last", X3, -1), ("first", X3, 0), ("f32", X3.astype(np.float32), 1)]
    ),
    Case("LpNormalization", [ROWS[1:2]], {"p": 2}, id="zero-vector", order=0, oracle=lp_norm(2, -1)),
    Case("LpNormalization", [ROWS[::2]], id="defaults", oracle=lp_norm(2, -1)),
]

CASES = [*LAYER, *RMS, *CHANNELS, *PLAIN]
