"""Planes of an image laid out so that every offset of a window reads one contiguous run, for depthwise convolutions.

A plane, padded, is split into one plane for each residue modulo the strides, all of the same pitch. Window o (counted over
rows of that pitch, the surplus at their ends included) then reads the element ``start[k] + o`` at the offset k: a
convolution is a sum of shifted runs, whatever its geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from irgrad.ops.convolution.rows import Box, around
from irgrad.ops.windows import Windows

__all__ = ["Flat", "flat_of"]


@dataclass(frozen=True, eq=False)
class Flat:
    """How planes [*size] are laid out.

    Attributes:
        length: elements of a laid-out plane.
        span: windows, with those in the surplus of the rows.
        pitch: the shape of the windows with the surplus, which the first axis does not have.
        starts: for each offset of a window (the last axis the fastest), the first element that is read.
        shape: of the layout, [residues, *sizes].
        copies: which part of the layout holds which part of an image.
        zeros: the parts of the layout that are padding.
    """

    length: int
    span: int
    pitch: tuple[int, ...]
    starts: np.ndarray
    shape: tuple[int, ...]
    copies: tuple[tuple[Box, Box], ...]
    zeros: tuple[Box, ...]


def flat_of(windows: Windows) -> Flat:
    """The layout for windows over a plane."""
    steps = [[j * d for j in range(k)] for k, d in zip(windows.kernel, windows.dilations, strict=True)]
    residues = [sorted({s % stride for s in axis}) for axis, stride in zip(steps, windows.strides, strict=True)]
    shape = tuple(
        count + max(axis) // stride for count, axis, stride in zip(windows.counts, steps, windows.strides, strict=True)
    )
    places = list(product(*residues))
    pitch = (windows.counts[0], *shape[1:])
    weights = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    starts = []
    for offset in product(*steps):
        number = places.index(tuple(s % stride for s, stride in zip(offset, windows.strides, strict=True)))
        within = sum(s // stride * w for s, stride, w in zip(offset, windows.strides, weights, strict=True))
        starts.append(number * prod(shape) + within)
    # The last windows of the surplus are not needed: nothing is read beyond the layout.
    span = prod(pitch) - sum((p - c) * w for p, c, w in zip(pitch, windows.counts, weights, strict=True))
    copies, zeros = [], []
    for number, place in enumerate(places):
        written, read = [], []
        for axis, residue in enumerate(place):
            stride, shift = windows.strides[axis], residue - windows.begins[axis]
            first, end = max(0, -(shift // stride)), min(shape[axis], (windows.size[axis] - 1 - shift) // stride + 1)
            end = max(first, end)
            written.append(slice(first, end))
            read.append(slice(first * stride + shift, (end - 1) * stride + shift + 1, stride))
        if all(s.start < s.stop for s in written):
            copies.append(((slice(number, number + 1), *written), tuple(read)))
            zeros += [(slice(number, number + 1), *box) for box in around(tuple(written), shape)]
        else:
            zeros.append((slice(number, number + 1), *(slice(0, n) for n in shape)))
    length = len(places) * prod(shape)
    return Flat(length, span, pitch, np.array(starts, np.int64), (len(places), *shape), tuple(copies), tuple(zeros))
