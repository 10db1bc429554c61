"""Cases of irgrad/ops/deform.py, and of sampling at positions in pixels, out of which its adjoint is made.

The oracles say in loops what the specification says, for any number of spatial axes. onnx.reference knows two of them, and
rounds positions: it is left a case in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from tests.ops.differences import cotangent
from tests.ops.harness import Case, rng


def sampled(image: np.ndarray, at: Sequence[float]) -> Any:
    """An image (its last axes are the spatial ones) between its pixels, zeros outside."""
    rank = len(at)
    total = np.zeros(image.shape[: image.ndim - rank])
    low = np.floor(at).astype(int)
    for corner in product((0, 1), repeat=rank):
        place = low + corner
        if all(0 <= p < n for p, n in zip(place, image.shape[-rank:], strict=True)):
            weight = np.prod(1 - np.abs(np.array(at) - place))
            total = total + weight * image[(..., *place)]
    return total


# --- DeformConv -------------------------------------------------------------------------------------------------------


def deform_conv(
    group: int = 1, offset_group: int = 1, begins: Any = 0, strides: Any = 1, dilations: Any = 1, **_: Any
) -> Callable[..., np.ndarray]:
    def oracle(
        x: np.ndarray,
        w: np.ndarray,
        offset: np.ndarray,
        bias: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        kernel, counts, rank = w.shape[2:], offset.shape[2:], x.ndim - 2
        shifts = offset.reshape(len(x), offset_group, *kernel, rank, *counts)
        masks = (np.ones_like(offset)[:, : offset.shape[1] // rank] if mask is None else mask).reshape(
            len(x), offset_group, *kernel, *counts
        )
        y = np.zeros((len(x), len(w), *counts)) + (0 if bias is None else bias.reshape(-1, *(1,) * rank))
        for n, m, c in product(*map(range, y.shape[:2] + w.shape[1:2])):
            channel = m // (len(w) // group) * w.shape[1] + c
            part = channel // (x.shape[1] // offset_group)
            for o, k in product(np.ndindex(*counts), np.ndindex(*kernel)):
                start = np.array(o) * strides - begins + np.array(k) * dilations
                value = sampled(x[n, channel], start + shifts[(n, part, *k, slice(None), *o)])
                y[(n, m, *o)] += w[(m, c, *k)] * masks[(n, part, *k, *o)] * value
        return y

    return oracle


def case(
    id: str,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    counts: tuple[int, ...],
    *,
    channels: int = 2,
    filters: int = 2,
    images: int = 2,
    bias: bool = False,
    mask: bool = False,
    reach: float = 1.5,
    order: int = 2,
    declared: bool = False,
    **geometry: Any,
) -> Case:
    """Random operands; `geometry` as the oracle takes it, of which the attributes are made."""
    r, rank = rng(len(id)), len(sizes)
    parts, per_group = geometry.get("offset_group", 1), channels // geometry.get("group", 1)
    points = parts * int(np.prod(kernel))
    operands = [
        r.standard_normal((images, channels, *sizes)),
        r.standard_normal((filters, per_group, *kernel)),
        r.uniform(-reach, reach, (images, points * rank, *counts)),
        r.standard_normal(filters) if bias else None,
        r.uniform(0, 1, (images, points, *counts)) if mask else None,
    ]
    while operands[-1] is None:
        operands.pop()
    attrs = {name: geometry[name] for name in ("group", "offset_group", "strides", "dilations") if name in geometry}
    begins, ends = geometry.get("begins", (0,) * rank), geometry.get("ends", geometry.get("begins", (0,) * rank))
    attrs |= {"pads": (*begins, *ends)} if any((*begins, *ends)) else {}
    attrs |= {"kernel_shape": kernel} if declared else {}
    return Case("DeformConv", operands, attrs, id=id, order=order, oracle=deform_conv(**geometry))


DEFORM_CONV = [
    case("plain", (4, 4), (2, 2), (3, 3)),
    case("bias", (4, 3), (2, 2), (3, 2), bias=True, declared=True),
    case("mask", (4, 3), (2, 2), (3, 2), mask=True),
    case("mask_bias", (3, 4), (2, 3), (2, 2), mask=True, bias=True, images=1),
    case("pads", (3, 3), (3, 2), (4, 3), begins=(2, 0), ends=(1, 1)),
    case("strides", (5, 6), (2, 2), (2, 3), strides=(3, 2)),
    case("dilations", (5, 4), (2, 2), (3, 1), dilations=(2, 3), mask=True),
    case("groups", (3, 3), (2, 2), (2, 2), channels=4, filters=6, group=2),
    case("offset_groups", (3, 3), (2, 2), (2, 2), channels=4, offset_group=2, mask=True),
    case("more_offset_groups", (3, 3), (2, 1), (2, 3), channels=4, filters=4, group=2, offset_group=4, mask=True),
    case("far", (3, 3), (2, 2), (2, 2), reach=6.0),
    case("one_pixel", (1, 1), (1, 1), (1, 1), reach=0.9),
    case("1d", (5,), (3,), (2,), strides=(2,), begins=(1,), ends=(0,), mask=True, channels=4, offset_group=2),
    case("3d", (3, 2, 3), (2, 1, 2), (2, 2, 2), mask=True, images=1, order=1),
    Case(
        "DeformConv",
        [a.astype(np.float32) for a in case("float32", (4, 3), (2, 2), (3, 2), bias=True, mask=True).inputs],
        id="float32",
        rtol=1e-4,
    ),
]


# --- samples at positions in pixels -----------------------------------------------------------------------------------


def pixels(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    y = np.zeros((*x.shape[:2], *positions.shape[1:-1]))
    for n, *place in np.ndindex(*positions.shape[:-1]):
        y[(n, slice(None), *place)] = sampled(x[n], positions[(n, *place)][::-1])
    return y


def pixel_image_gradient(dy: np.ndarray, positions: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return cotangent(pixels, 0)(dy, np.zeros(shape), positions)


X = rng(0).standard_normal((2, 2, 3, 4))
POSITIONS = rng(1).uniform(-1.5, 4.5, (2, 2, 3, 2))
DY = rng(2).standard_normal((2, 2, 2, 3))
LINE, ON_LINE = X[:, :, 0], POSITIONS[:, 0, :, :1]

PIXELS = [
    Case("irgrad.PixelSample", [X, POSITIONS], oracle=pixels),
    Case("irgrad.PixelSample", [LINE, ON_LINE], id="1d", oracle=pixels),
    Case(
        "irgrad.GridSampleImageGrad",
        [DY, POSITIONS, np.array(X.shape)],
        {"pixels": 1},
        id="pixels",
        oracle=pixel_image_gradient,
    ),
    Case("irgrad.GridSampleGridGrad", [DY, X, POSITIONS], {"pixels": 1}, id="pixels", oracle=cotangent(pixels, 1)),
]

CASES = DEFORM_CONV + PIXELS
