"""Nodes in an opset before that of an adapter: layers of networks. The oracles are the old schemas' texts in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.frontends.old_models import OldCase, today
from tests.frontends.upgrade_cases import F32, C, M, X, floats, ints

# --- normalisation ----------------------------------------------------------------------------------------------------

SCALE, BIAS, MEAN, VAR = C, floats(1, 2, 3), floats(0.1, -0.2, 0.3), floats(0.5, 1.5, 2.5)
PARAMETERS = [SCALE, BIAS, MEAN, VAR]
PER_ELEMENT = [np.random.default_rng(k).uniform(0.5, 2, X.shape[1:]).astype(F32) for k in range(4)]


def batch_norm(*operands: np.ndarray, eps: float = 1e-5) -> Any:
    x, scale, bias, mean, var = [operands[0], *(p.reshape(p.shape + (1,) * (4 - 1 - p.ndim)) for p in operands[1:])]
    return scale * (x - mean) / np.sqrt(var + eps) + bias


def batch_norm_trained(*operands: np.ndarray, momentum: float = 0.9, axes: tuple[int, ...] = (0, 2, 3)) -> list[np.ndarray]:
    x, scale, bias, mean, var = operands
    now_mean, now_var = x.mean(axes), x.var(axes)
    then = F32(momentum), F32(1 - momentum)
    running = [mean * then[0] + now_mean * then[1], var * then[0] + now_var * then[1]]
    return [batch_norm(x, scale, bias, now_mean, now_var), *running, now_mean, now_var]


def group_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, groups: int = 2) -> Any:
    y = x.reshape(x.shape[0], groups, -1)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return (y * scale[:, None] + bias[:, None]).reshape(x.shape)


GROUPS = [X.transpose(0, 2, 1, 3).copy(), floats(2, 3), floats(1, -1)]

NORM = [
    OldCase("BatchNormalization", 1, [X, *PARAMETERS], {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]}, batch_norm,
            rtol=1e-5),
    OldCase("BatchNormalization", 6, [X, *PARAMETERS], {"is_test": 1, "epsilon": 1e-2},
            lambda *a: batch_norm(*a, eps=1e-2), rtol=1e-5),
    OldCase("BatchNormalization", 6, [X, *PARAMETERS], {}, lambda *a: batch_norm_trained(*a)[0], id="trains", rtol=1e-4),
    OldCase("BatchNormalization", 6, [X, *PARAMETERS], {"is_test": 1}, lambda *a: [batch_norm(*a), *a[3:], *a[3:]],
            outputs=5, id="all outputs", rtol=1e-5),
    OldCase("BatchNormalization", 7, [X, *PARAMETERS], {}, batch_norm, rtol=1e-5),
    OldCase("BatchNormalization", 7, [X, *PARAMETERS], {"momentum": 0.75}, lambda *a: batch_norm_trained(*a, momentum=0.75),
            outputs=5, id="trains", rtol=1e-4),
    OldCase("BatchNormalization", 13, [X, *PARAMETERS], {}, batch_norm_trained, outputs=5, id="trains", rtol=1e-4),
    OldCase("BatchNormalization", 8, [X, *PER_ELEMENT], {"spatial": 0}, batch_norm, id="per element", rtol=1e-5),
    OldCase("BatchNormalization", 8, [X, *PER_ELEMENT], {"spatial": 0}, lambda *a: batch_norm_trained(*a, axes=(0,)),
            outputs=5, id="per element trains", rtol=1e-4),
    OldCase("BatchNormalization", 14, [X, *PARAMETERS], {"training_mode": 1}, lambda *a: batch_norm_trained(*a)[:3],
            outputs=3, id="trains", rtol=1e-4),
    OldCase("GroupNormalization", 18, GROUPS, {"num_groups": 2}, group_norm, checked=False, rtol=1e-4),
    OldCase("GroupNormalization", 18, [a.astype(np.float64) for a in GROUPS], {"num_groups": 2}, group_norm,
            id="float64", checked=False, rtol=1e-12),
    OldCase("Dropout", 1, [X], {"is_test": 1, "consumed_inputs": [1]}, lambda x: x),
    OldCase("Dropout", 6, [X], {"ratio": 0.0}, lambda x: x, id="drops nothing"),
    OldCase("Dropout", 7, [X], {"ratio": 0.3}, lambda x: [x, np.ones_like(x)], outputs=2, id="mask"),
    OldCase("Dropout", 10, [X], {}, lambda x: [x, np.ones(x.shape, bool)], outputs=2, id="mask"),
]  # fmt: skip

# --- sampling and pooling ---------------------------------------------------------------------------------------------

IMAGE = np.arange(1, 25, dtype=F32).reshape(1, 1, 4, 6)


def nearest(*scales: float) -> Callable[..., Any]:
    """Asymmetric nearest-neighbour sampling along the last two axes, as onnxruntime does it for opset 10."""

    def sample(x: np.ndarray, *_: Any) -> np.ndarray:
        for axis, scale in zip((2, 3), scales, strict=True):
            size = x.shape[axis]
            where = np.arange(int(size * scale)) / scale
            x = x.take(np.minimum((np.floor if scale >= 1 else np.ceil)(where).astype(int), size - 1), axis)
        return x

    return sample


def linear(*scales: float) -> Callable[..., Any]:
    """Asymmetric linear sampling along the last two axes."""

    def sample(x: np.ndarray, *_: Any) -> np.ndarray:
        for axis, scale in zip((2, 3), scales, strict=True):
            size = x.shape[axis]
            where = np.minimum(np.arange(int(size * scale)) / scale, size - 1)
            below = np.minimum(where.astype(int), max(size - 2, 0))
            part = (where - below).reshape(-1, *[1] * (3 - axis))
            x = x.take(below, axis) * (1 - part) + x.take(below + 1, axis) * part
        return x.astype(F32)

    return sample


def half_pixel_for_nn(*scales: float) -> Callable[..., Any]:
    def sample(x: np.ndarray, *_: Any) -> np.ndarray:
        for axis, scale in zip((2, 3), scales, strict=True):
            size = x.shape[axis]
            where = np.floor((np.arange(int(size * scale)) + 0.5) / scale).astype(int)
            x = x.take(np.minimum(where, size - 1), axis)
        return x

    return sample


NO_ROI = floats()
ROIS = [IMAGE, floats(0, 0, 2, 2)[None], ints(0)]
ROI_SIZE = {"output_height": 2, "output_width": 2}
GRID = np.random.default_rng(1).uniform(-1, 1, (1, 2, 3, 2)).astype(F32)

RESIZE = [
    OldCase("Upsample", 1, [IMAGE], {"height_scale": 2.0, "width_scale": 1.5}, nearest(2, 1.5), covers=["Resize"],
            checked=False),
    OldCase("Upsample", 1, [IMAGE], {"height_scale": 2.0, "width_scale": 1.5, "mode": "bilinear"}, linear(2, 1.5),
            id="bilinear", checked=False),
    OldCase("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}, linear(2, 3)),
    OldCase("Upsample", 8, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0]}, nearest(2, 3)),
    OldCase("Upsample", 9, [IMAGE, floats(1, 1, 2, 2)], {}, nearest(2, 2), constant=[1]),
    OldCase("Resize", 10, [IMAGE, floats(1, 1, 0.6, 0.6)], {}, nearest(0.6, 0.6), constant=[1], id="shrinks"),
    OldCase("Resize", 10, [IMAGE, floats(1, 1, 2, 0.7)], {}, nearest(2, 0.7), constant=[1], id="both"),
    OldCase("Resize", 10, [IMAGE, floats(1, 1, 0.7, 1.5)], {}, nearest(0.7, 1.5), id="fed"),
    OldCase("Resize", 10, [IMAGE, floats(1, 1, 0.6, 2)], {"mode": "linear"}, linear(0.6, 2), constant=[1], id="linear"),
    OldCase("Resize", 11, [IMAGE, NO_ROI, NO_ROI, ints(1, 1, 8, 9)],
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, nearest(2, 1.5), constant=[1, 2, 3],
            id="sizes"),
    OldCase("Resize", 11, [IMAGE, NO_ROI, floats(1, 1, 2.5, 0.7)],
            {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}, half_pixel_for_nn(2.5, 0.7),
            constant=[1, 2], id="half pixel for nn"),
    OldCase("Resize", 18, [IMAGE, None, floats(1, 1, 2, 2)], {"mode": "linear"}, constant=[2]),
    OldCase("GridSample", 16, [IMAGE, GRID], {"mode": "bilinear"}, today("GridSample", mode="linear"), id="bilinear"),
    OldCase("GridSample", 16, [IMAGE, GRID], {"mode": "bicubic", "align_corners": 1},
            today("GridSample", mode="cubic", align_corners=1), id="bicubic", rtol=1e-5),
    OldCase("GridSample", 16, [IMAGE, GRID], {"padding_mode": "border"},
            today("GridSample", mode="linear", padding_mode="border"), id="default"),
    OldCase("RoiAlign", 10, ROIS, ROI_SIZE,
            today("RoiAlign", **ROI_SIZE, coordinate_transformation_mode="output_half_pixel"), constant=[2]),
    OldCase("RoiAlign", 16, ROIS, ROI_SIZE, today("RoiAlign", **ROI_SIZE, coordinate_transformation_mode="half_pixel"),
            constant=[2], id="half pixel"),
]  # fmt: skip


def norm3(x: np.ndarray) -> Any:
    return (np.abs(x) ** 3).sum((-2, -1)) ** F32(1 / 3)


POOL = [
    OldCase("GlobalLpPool", 1, [X], {"p": 3.0}, lambda x: norm3(x)[:, :, None, None], rtol=1e-5),
    OldCase("GlobalLpPool", 1, [X], {}, lambda x: np.sqrt((x * x).sum((2, 3), keepdims=True)), id="default", rtol=1e-5),
    OldCase("LpPool", 1, [X], {"p": 3.0, "kernel_shape": [2, 2], "strides": [2, 2]},
            lambda x: norm3(np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))[:, :, ::2, ::2]), rtol=1e-5),
]  # fmt: skip

# --- recurrent --------------------------------------------------------------------------------------------------------

STEPS = np.random.default_rng(2).standard_normal((3, 2, 4)).astype(F32)


def weights(gates: int) -> list[np.ndarray]:
    generator = np.random.default_rng(gates)
    return [generator.uniform(-0.5, 0.5, (1, gates * 5, size)).astype(F32) for size in (4, 5)]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def rnn(x: np.ndarray, w: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    h, all_h = np.zeros((x.shape[1], 5), F32), []
    for step in x:
        h = np.tanh(step @ w[0].T + h @ r[0].T)
        all_h.append(h)
    return [np.stack(all_h)[:, None], h[None]]


def gru(x: np.ndarray, w: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    h, all_h = np.zeros((x.shape[1], 5), F32), []
    (wz, wr, wh), (rz, rr, rh) = (np.split(m[0].T, 3, 1) for m in (w, r))
    for step in x:
        z, reset = sigmoid(step @ wz + h @ rz), sigmoid(step @ wr + h @ rr)
        h = (1 - z) * np.tanh(step @ wh + (reset * h) @ rh) + z * h
        all_h.append(h)
    return [np.stack(all_h)[:, None], h[None]]


def lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    h, c, all_h = np.zeros((x.shape[1], 5), F32), np.zeros((x.shape[1], 5), F32), []
    for step in x:
        i, o, f, g = np.split(step @ w[0].T + h @ r[0].T, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        all_h.append(h)
    return [np.stack(all_h)[:, None], h[None], c[None]]


RECURRENT = [
    OldCase("RNN", 1, [STEPS, *weights(1)], {"hidden_size": 5, "output_sequence": 1}, rnn, outputs=2, rtol=1e-5),
    OldCase("GRU", 1, [STEPS, *weights(3)], {"hidden_size": 5, "output_sequence": 1, "direction": "foward"}, gru, outputs=2,
            rtol=1e-5),
    OldCase("GRU", 3, [STEPS, *weights(3)], {"hidden_size": 5, "output_sequence": 0}, gru, outputs=2, rtol=1e-5),
    OldCase("LSTM", 1, [STEPS, *weights(4)], {"hidden_size": 5, "output_sequence": 1}, lstm, outputs=3, rtol=1e-5),
]  # fmt: skip

# --- attention --------------------------------------------------------------------------------------------------------

HEADS = [np.random.default_rng(k).standard_normal((1, 2, 3, 4)).astype(F32) for k in range(5)]
MASK = floats(1, -2, 0.5)[:, None]


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = 0.0, *past: np.ndarray) -> np.ndarray:
    if past:
        k, v = np.concatenate([past[0], k], 2), np.concatenate([past[1], v], 2)
    weights = np.exp(q @ k.swapaxes(2, 3) / 2 + mask)
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ v)


def packed_attention(*operands: np.ndarray) -> np.ndarray:
    by_head = [x.reshape(1, 3, 2, 4).swapaxes(1, 2) for x in operands[:3]]
    return attention(*by_head, *operands[3:]).swapaxes(1, 2).reshape(1, 3, 8)


PACKED = [x.swapaxes(1, 2).reshape(1, 3, 8) for x in HEADS[:3]]
TOLD = {"q_num_heads": 2, "kv_num_heads": 2}

ATTENTION = [
    OldCase("Attention", 23, [*HEADS[:3], MASK], {}, attention, id="column", rtol=1e-5),
    OldCase("Attention", 23, [*HEADS[:3], MASK.T], {}, attention, id="row", rtol=1e-5),
    OldCase("Attention", 23, [*HEADS[:3], floats(2)], {}, attention, id="one number", rtol=1e-5),
    OldCase("Attention", 23, [*HEADS[:3], MASK, *HEADS[3:]], {}, attention, id="past", rtol=1e-5),
    OldCase("Attention", 23, [*PACKED, MASK], TOLD, packed_attention, id="packed", rtol=1e-5),
    OldCase("Attention", 23, HEADS[:3], TOLD, attention, id="heads told twice", rtol=1e-5),
    OldCase("Attention", 24, HEADS[:3], TOLD, attention, id="heads told twice", rtol=1e-5),
]  # fmt: skip

# --- withdrawn --------------------------------------------------------------------------------------------------------


def standardised(axes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda x: (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)


def withdrawn(op: str, operands: list[np.ndarray | None], attrs: dict[str, Any], oracle: Any, **options: Any) -> OldCase:
    return OldCase(op, options.pop("opset", 1), operands, attrs, oracle, checked=False, **options)


WITHDRAWN = [
    withdrawn("Affine", [X], {"alpha": 2.0, "beta": -1.0}, lambda x: 2 * x - 1),
    withdrawn("Affine", [X], {}, lambda x: x, id="default", opset=9),
    withdrawn("ScaledTanh", [X], {"alpha": 2.0, "beta": 0.5}, lambda x: 2 * np.tanh(x / 2)),
    withdrawn("ParametricSoftplus", [X], {"alpha": 2.0, "beta": 0.5}, lambda x: 2 * np.log1p(np.exp(x / 2)), rtol=1e-5),
    withdrawn("Scale", [X], {"scale": 3.0}, lambda x: 3 * x),
    withdrawn("ImageScaler", [X], {"scale": 2.0, "bias": [1.0, 2.0, 3.0]}, lambda x: 2 * x + BIAS[:, None, None], opset=7),
    withdrawn("Crop", [X], {"border": [1, 0, 2, 1]}, lambda x: x[:, :, 0:-1, 1:-2]),
    withdrawn("Crop", [X], {"border": [1, 0, 0, 0]}, lambda x: x[:, :, :, 1:], id="one border"),
    withdrawn("Crop", [X], {"border": [1, 2, 0, 0], "scale": [2, 3]}, lambda x: x[:, :, 2:4, 1:4], id="size"),
    withdrawn("DynamicSlice", [X, ints(1), ints(3), ints(2)], {}, lambda x, s, e, a: x[:, :, 1:3], constant=[1, 2, 3]),
    withdrawn("FC", [X, M[:3].copy().repeat(12, 1), C], {}, lambda x, w, b: x.reshape(2, -1) @ w.T + b, rtol=1e-4),
    withdrawn("ConstantFill", [None], {"shape": [2, 3], "value": 1.5}, lambda _: np.full((2, 3), 1.5, F32)),
    withdrawn("ConstantFill", [M], {"extra_shape": [2], "value": 3.0, "dtype": int(TensorProto.INT64)},
              lambda x: np.full((4, 5, 2), 3), id="like"),
    withdrawn("ConstantFill", [ints(2, 3)], {"input_as_shape": 1, "value": 2.0}, lambda s: np.full((2, 3), 2, F32),
              id="operand"),
    withdrawn("GivenTensorFill", [None], {"shape": [2, 2], "values": [1.0, 2.0, 3.0, 4.0]},
              lambda _: floats(1, 2, 3, 4).reshape(2, 2)),
    withdrawn("MeanVarianceNormalization", [X], {}, standardised((0, 2, 3)), rtol=1e-4),
    withdrawn("MeanVarianceNormalization", [X], {"across_channels": 1}, standardised((0, 1, 2, 3)), id="across", rtol=1e-4),
    withdrawn("MeanVarianceNormalization", [X], {"normalize_variance": 0}, lambda x: x - x.mean((0, 2, 3), keepdims=True),
              id="mean only", opset=8, rtol=1e-5),
    withdrawn("ThresholdedRelu", [X], {"alpha": 0.5}, lambda x: np.where(x > 0.5, x, 0), opset=7),
]  # fmt: skip
