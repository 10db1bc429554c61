"""Cases of irgrad/ops/col2im.py."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "disjoint": ((4, 6), (2, 3), {"strides": (2, 3)}),
    "overlapping": ((4, 5), (2, 3), {}),
    "strides": ((5, 6), (3, 2), {"strides": (2, 3)}),
    "beyond-the-last": ((5, 6), (2, 2), {"strides": (2, 3)}),
    "pads": ((3, 4), (2, 3), {"pads": (0, 2, 1, 1)}),
    "dilations": ((5, 6), (2, 3), {"dilations": (3, 2)}),
    "everything": ((4, 5), (2, 2), {"pads": (1, 0, 2, 1), "strides": (2, 1), "dilations": (2, 3)}),
    "1d": ((7,), (3,), {"strides": (2,), "pads": (1, 0)}),
    "3d": ((3, 2, 4), (2, 1, 3), {"strides": (1, 1, 2), "pads": (0, 0, 1, 0, 1, 1)}),
    "one-block": ((2, 3), (2, 3), {}),
}


def places(sizes: tuple[int, ...], block: tuple[int, ...], attrs: dict[str, Any]) -> np.ndarray:
    """The flat position in an image of every element of every block, [prod(block), blocks]; -1 in the padding."""
    rank = len(sizes)
    strides, dilations = attrs.get("strides", (1,) * rank), attrs.get("dilations", (1,) * rank)
    pads = attrs.get("pads", (0,) * 2 * rank)
    counts = [
        (sizes[a] + pads[a] + pads[rank + a] - (block[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(rank)
    ]
    found = np.full((prod(block), prod(counts)), -1)
    for row, offset in enumerate(np.ndindex(*block)):
        for column, start in enumerate(np.ndindex(*counts)):
            place = [start[a] * strides[a] + offset[a] * dilations[a] - pads[a] for a in range(rank)]
            if all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
                found[row, column] = np.ravel_multi_index(place, sizes)
    return found


def columns(name: str, channels: int = 2) -> np.ndarray:
    sizes, block, attrs = GEOMETRIES[name]
    depth, length = places(sizes, block, attrs).shape
    return rng(0).standard_normal((2, channels * depth, length))


def added(x: np.ndarray, image_shape: np.ndarray, block_shape: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    found = places(tuple(image_shape), tuple(block_shape), attrs)
    image = np.zeros((len(x), x.shape[1] // len(found), prod(image_shape)), x.dtype)
    blocks = x.reshape(*image.shape[:2], *found.shape)
    for place in np.ndindex(found.shape):
        if found[place] >= 0:
            image[..., found[place]] += blocks[(..., *place)]
    return image.reshape(*image.shape[:2], *image_shape)


def cut(x: np.ndarray, block_shape: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    found = places(x.shape[2:], tuple(block_shape), attrs)
    pixels = np.concatenate([x.reshape(*x.shape[:2], -1), np.zeros((*x.shape[:2], 1), x.dtype)], -1)
    return pixels[..., found].reshape(len(x), -1, found.shape[1])


def col2im(name: str, x: np.ndarray | None = None, id: str = "", order: int = 2, rtol: float = 1e-5) -> Case:
    sizes, block, attrs = GEOMETRIES[name]
    operands = [columns(name) if x is None else x, np.array(sizes), np.array(block)]
    oracle = None if name in ("overlapping", "3d") and not id else lambda *arrays: added(*arrays, attrs)
    return Case("Col2Im", operands, attrs, id=id or name, order=order, oracle=oracle, rtol=rtol)


CASES = [
    *(col2im(name) for name in GEOMETRIES),
    col2im("overlapping", columns("overlapping").astype(np.float32), "f32", 1),
    col2im("overlapping", columns("overlapping").astype(np.float16), "f16", 0, 5e-3),
    col2im("overlapping", rng(1).integers(-9, 9, (1, 6, 9)), "i64", 0),
    col2im("overlapping", np.zeros((0, 6, 9)), "no-images", 1),
    *(
        Case(
            "irgrad.Im2Col",
            [rng(2).standard_normal((2, 2, *sizes)), np.array(block)],
            attrs,
            id=name,
            oracle=lambda x, block, attrs=attrs: cut(x, block, attrs),
        )
        for name, (sizes, block, attrs) in GEOMETRIES.items()
    ),
]
