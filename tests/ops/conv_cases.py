"""Cases of irgrad/ops/conv.py.

onnx.reference serves for Conv, and for ConvTranspose of one group. It is wrong for grouped ConvTranspose (it writes one
channel for each group) and refuses output_shape without auto_pad; there, and for irgrad's own operations, the oracles below
say in loops what the specification says.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng


def images(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return rng(seed).standard_normal(shape).astype(dtype)


def terms(
    x_sizes: tuple[int, ...],
    counts: tuple[int, ...],
    w: tuple[int, ...],
    group: int,
    begins: Any,
    strides: Any,
    dilations: Any,
) -> Any:
    """(image channel and position, filter, filter channel and position, map position) of every product in a convolution."""
    filters, per_group, *kernel = w
    for m, c in product(range(filters), range(per_group)):
        channel = m // (filters // group) * per_group + c
        for o in product(*map(range, counts)):
            for k in product(*map(range, kernel)):
                at = tuple(a * s + j * d - p for a, s, j, d, p in zip(o, strides, k, dilations, begins, strict=True))
                if all(0 <= a < n for a, n in zip(at, x_sizes, strict=True)):
                    yield (channel, *at), m, (c, *k), o


def input_grad(group: int = 1, begins: Any = (0, 0), strides: Any = (1, 1), dilations: Any = (1, 1)) -> Callable[..., Any]:
    def oracle(dy: np.ndarray, w: np.ndarray, shape: np.ndarray) -> np.ndarray:
        dx = np.zeros(tuple(shape))
        for x_at, m, w_at, o in terms(dx.shape[2:], dy.shape[2:], w.shape, group, begins, strides, dilations):
            dx[(slice(None), *x_at)] += dy[(slice(None), m, *o)] * w[(m, *w_at)]
        return dx

    return oracle


def weight_grad(group: int = 1, begins: Any = (0, 0), strides: Any = (1, 1), dilations: Any = (1, 1)) -> Callable[..., Any]:
    def oracle(x: np.ndarray, dy: np.ndarray, shape: np.ndarray) -> np.ndarray:
        dw = np.zeros(tuple(shape))
        for x_at, m, w_at, o in terms(x.shape[2:], dy.shape[2:], dw.shape, group, begins, strides, dilations):
            dw[(m, *w_at)] += (dy[(slice(None), m, *o)] * x[(slice(None), *x_at)]).sum()
        return dw

    return oracle


def transpose(sizes: tuple[int, ...], **geometry: Any) -> Callable[..., Any]:
    """ConvTranspose with an output of these spatial sizes: what the input would be the cotangent of."""
    adjoint = input_grad(**geometry)

    def oracle(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        y = adjoint(x, w, np.array([len(x), w.shape[1] * geometry.get("group", 1), *sizes]))
        return y if bias is None else y + bias.reshape(-1, *(1,) * len(sizes))

    return oracle


X, W, B = images(2, 3, 6, 5), images(4, 3, 3, 2, seed=1), images(4, seed=2)

CONV = [
    Case("Conv", [X, W], id="plain"),
    Case("Conv", [X, W, B], {"kernel_shape": (3, 2), "pads": (1, 0, 2, 1)}, id="bias_pads"),
    Case("Conv", [X, W], {"strides": (2, 3)}, id="strides"),
    Case("Conv", [X, W, B], {"strides": (2, 2), "pads": (1, 1, 1, 1)}, id="strides_pads"),
    Case("Conv", [X, W], {"dilations": (2, 3), "pads": (1, 2, 1, 0)}, id="dilations"),
    Case("Conv", [images(1, 2, 9, 7), images(2, 2, 2, 2, seed=1)], {"strides": (3, 2), "dilations": (2, 3)}, id="both"),
    Case("Conv", [X, images(4, 3, 1, 1, seed=1), B], id="pointwise"),
    Case("Conv", [X, images(4, 3, 1, 1, seed=1)], {"strides": (2, 2)}, id="pointwise_strides"),
    Case("Conv", [images(2, 4, 5, 5), images(6, 2, 3, 3, seed=1), images(6)], {"group": 2, "pads": (1,) * 4}, id="groups"),
    Case("Conv", [images(2, 3, 5, 5), images(3, 1, 3, 3, seed=1)], {"group": 3, "pads": (1,) * 4}, id="depthwise"),
    Case(
        "Conv", [images(2, 3, 5, 5), images(6, 1, 3, 3, seed=1)], {"group": 3, "strides": (2, 2)}, id="depthwise_multiplier"
    ),
    Case("Conv", [images(1, 4, 4, 4), images(4, 2, 1, 1, seed=1)], {"group": 2}, id="pointwise_groups"),
    Case("Conv", [X, W], {"auto_pad": "SAME_UPPER"}, id="same_upper"),
    Case("Conv", [X, W, B], {"auto_pad": "SAME_LOWER"}, id="same_lower"),
    Case("Conv", [X, W], {"auto_pad": "SAME_UPPER", "strides": (2, 2)}, id="same_upper_strides"),
    Case("Conv", [X, W], {"auto_pad": "SAME_LOWER", "strides": (2, 3), "dilations": (2, 2)}, id="same_lower_dilations"),
    Case("Conv", [X, images(2, 3, 1, 1)], {"auto_pad": "SAME_UPPER", "strides": (3, 2)}, id="same_small_kernel"),
    Case("Conv", [X, W], {"auto_pad": "VALID", "strides": (2, 1)}, id="valid"),
    Case("Conv", [images(2, 2, 7), images(3, 2, 3, seed=1), images(3)], {"pads": (1, 2), "strides": (2,)}, id="1d"),
    Case("Conv", [images(1, 2, 4, 3, 4), images(2, 2, 2, 3, 2, seed=1)], {"pads": (0, 1, 1, 1, 0, 0)}, id="3d"),
    Case("Conv", [images(1, 2, 5, 4, 4), images(4, 1, 2, 2, 2, seed=1)], {"group": 2, "strides": (2, 1, 2)}, id="3d_groups"),
    Case("Conv", [images(1, 1, 4, 4), images(1, 1, 2, 2, seed=1)], {"pads": (3, 2, 3, 2)}, id="padding_wider_than_kernel"),
    Case("Conv", [images(1, 6, 2, 2), images(8, 6, 3, 3, seed=1)], {"pads": (1,) * 4}, id="few_positions"),
    Case("Conv", [images(0, 2, 4, 4), images(3, 2, 3, 3)], id="no_images", order=0),
    Case("Conv", [images(2, 3, 6, 5, dtype=np.float32), images(4, 3, 3, 2, dtype=np.float32)], id="f32"),
    Case("Conv", [images(2, 3, 6, 5, dtype=np.float16), images(4, 3, 3, 2, dtype=np.float16)], id="f16", order=0, rtol=2e-3),
]

TX, TW, TB = images(2, 3, 4, 3), images(3, 2, 3, 2, seed=1), images(2, seed=2)
GX, GW, GB = images(2, 4, 3, 3), images(4, 3, 2, 3, seed=1), images(6, seed=2)

CONV_TRANSPOSE = [
    Case("ConvTranspose", [TX, TW], id="plain"),
    Case("ConvTranspose", [TX, TW, TB], {"kernel_shape": (3, 2), "strides": (2, 3)}, id="strides"),
    Case("ConvTranspose", [TX, TW, TB], {"strides": (2, 2), "pads": (1, 0, 1, 1), "output_padding": (1, 1)}, id="padded"),
    Case("ConvTranspose", [TX, TW], {"strides": (2, 3), "output_padding": (1, 2)}, id="output_padding"),
    Case("ConvTranspose", [TX, TW], {"dilations": (2, 3), "pads": (1, 2, 0, 1)}, id="dilations"),
    Case(
        "ConvTranspose",
        [TX, TW, TB],
        {"dilations": (3, 1), "output_padding": (2, 0)},
        id="output_padding_beyond_stride",
        oracle=transpose((12, 4), dilations=(3, 1)),
    ),
    Case("ConvTranspose", [TX, TW], {"strides": (2, 2), "auto_pad": "SAME_UPPER"}, id="same_upper"),
    Case("ConvTranspose", [TX, TW, TB], {"strides": (2, 2), "auto_pad": "SAME_LOWER"}, id="same_lower"),
    Case(
        "ConvTranspose",
        [TX, TW],
        {"strides": (2, 1), "auto_pad": "SAME_LOWER", "output_padding": (1, 0)},
        id="same_output_padding",
    ),
    # The kernel is smaller than the stride, so that the padding is negative; onnxruntime gives a smaller output here.
    Case("ConvTranspose", [TX, images(3, 2, 1, 2)], {"strides": (3, 4), "auto_pad": "SAME_UPPER"}, id="same_negative"),
    Case("ConvTranspose", [TX, images(3, 2, 1, 2)], {"strides": (4, 5), "auto_pad": "SAME_LOWER"}, id="same_negative_lower"),
    Case("ConvTranspose", [TX, TW], {"strides": (2, 2), "auto_pad": "VALID"}, id="valid"),
    Case(
        "ConvTranspose",
        [TX, TW, TB],
        {"strides": (2, 2), "output_shape": (8, 5)},
        id="output_shape",
        oracle=transpose((8, 5), strides=(2, 2), begins=(1, 1)),
    ),
    Case(
        "ConvTranspose", [TX, TW], {"strides": (2, 2), "output_shape": (8, 5), "auto_pad": "SAME_UPPER"}, id="output_upper"
    ),
    Case(
        "ConvTranspose",
        [TX, TW],
        {"strides": (2, 2), "output_shape": (8, 5), "output_padding": (1, 1), "auto_pad": "SAME_LOWER"},
        id="output_lower_padding",
    ),
    Case(
        "ConvTranspose",
        [TX, TW],
        {"output_shape": (9, 5), "auto_pad": "SAME_UPPER"},
        id="output_larger",
        oracle=transpose((9, 5), begins=(-2, -1)),
    ),
    Case(
        "ConvTranspose",
        [GX, GW, GB],
        {"group": 2, "strides": (2, 1)},
        id="groups",
        oracle=transpose((6, 5), group=2, strides=(2, 1)),
    ),
    Case(
        "ConvTranspose",
        [images(2, 3, 4, 4), images(3, 1, 3, 3, seed=1)],
        {"group": 3, "pads": (1,) * 4, "strides": (2, 2), "output_padding": (1, 1)},
        id="depthwise",
        oracle=transpose((8, 8), group=3, strides=(2, 2), begins=(1, 1)),
    ),
    Case("ConvTranspose", [images(2, 2, 5), images(2, 3, 3, seed=1), images(3)], {"strides": (2,), "pads": (1, 0)}, id="1d"),
    Case(
        "ConvTranspose",
        [images(1, 2, 3, 2, 3), images(2, 2, 2, 3, 2, seed=1)],
        {"strides": (2, 1, 1), "pads": (0, 1, 0, 1, 0, 1)},
        id="3d",
    ),
    Case("ConvTranspose", [images(2, 3, 4, 3, dtype=np.float32), images(3, 2, 3, 2, dtype=np.float32)], id="f32"),
]

S = np.array

ADJOINTS = [
    Case("irgrad.ConvInputGrad", [images(2, 4, 4, 4), W, S([2, 3, 6, 5])], oracle=input_grad()),
    Case(
        "irgrad.ConvInputGrad",
        [images(2, 4, 3, 3), W, S([2, 3, 6, 5])],
        {"strides": (2, 2), "pads": (1, 1, 0, 1)},
        id="strides",
        oracle=input_grad(begins=(1, 1), strides=(2, 2)),
    ),
    Case(
        "irgrad.ConvInputGrad",
        [images(2, 6, 3, 3), images(6, 2, 3, 2, seed=1), S([2, 4, 6, 5])],
        {"strides": (2, 2), "auto_pad": "SAME_UPPER", "group": 2},
        id="groups_same",
        oracle=input_grad(group=2, begins=(0, 0), strides=(2, 2)),
    ),
    Case(
        "irgrad.ConvInputGrad",
        [images(2, 3, 2, 3), W[:3], S([2, 3, 6, 7])],
        {"strides": (4, 3), "dilations": (1, 2), "auto_pad": "SAME_LOWER"},
        id="same_lower",
        oracle=input_grad(begins=(1, 1), strides=(4, 3), dilations=(1, 2)),
    ),
    Case("irgrad.ConvWeightGrad", [X, images(2, 4, 4, 4), S([4, 3, 3, 2])], oracle=weight_grad()),
    Case(
        "irgrad.ConvWeightGrad",
        [X, images(2, 4, 3, 3), S([4, 3, 3, 2])],
        {"strides": (2, 2), "pads": (1, 1, 0, 1)},
        id="strides",
        oracle=weight_grad(begins=(1, 1), strides=(2, 2)),
    ),
    Case(
        "irgrad.ConvWeightGrad",
        [images(2, 4, 6, 5), images(2, 6, 3, 3), S([6, 2, 3, 2])],
        {"strides": (2, 2), "auto_pad": "SAME_LOWER", "group": 2},
        id="groups_same",
        oracle=weight_grad(group=2, begins=(1, 1), strides=(2, 2)),
    ),
    Case(
        "irgrad.ConvWeightGrad",
        [images(2, 3, 6, 7), images(2, 2, 2, 3), S([2, 3, 2, 2])],
        {"strides": (4, 3), "dilations": (1, 2), "auto_pad": "SAME_UPPER"},
        id="same_upper",
        oracle=weight_grad(begins=(0, 1), strides=(4, 3), dilations=(1, 2)),
    ),
    Case(
        "irgrad.ConvWeightGrad",
        [images(1, 4, 0), images(1, 2, 1), S([2, 2, 1])],
        {"pads": (1, 0), "group": 2},
        id="groups_of_nothing",
        order=0,
        oracle=weight_grad(group=2, begins=(1,), strides=(1,), dilations=(1,)),
    ),
]

CASES = CONV + CONV_TRANSPOSE + ADJOINTS
