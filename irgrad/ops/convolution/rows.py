"""Which rows of an image the windows of a block read, gathered side by side: im2col for all axes but the first.

For a block of rows of windows, a gathered array [groups, channels, offsets, residues, rows, images, positions] holds what
the windows read at each offset along the inner axes; along the first axis it holds rows once. What the offset j of the first
axis reads is then one contiguous run of its rows: no copy for each j, as a full im2col would make.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any, TypeAlias

import numpy as np

from irgrad.ops.convolution.problem import Problem, multiply
from irgrad.ops.windows import Windows

__all__ = ["Block", "Rows", "around", "blocks_of", "planar"]

Box: TypeAlias = "tuple[Any, ...]"
"""Slices (and numbers) of an array, one for each axis."""

_ALL = slice(None)


def planar(windows: Windows) -> Windows:
    """The same windows with at least two axes: a first one of size 1 where there is only one."""
    if windows.rank > 1:
        return windows
    ones, zeros = (1,), (0,)
    return Windows(
        ones + windows.size,
        ones + windows.kernel,
        ones + windows.strides,
        ones + windows.dilations,
        zeros + windows.begins,
        zeros + windows.ends,
        ones + windows.counts,
    )


class Rows:
    """How to gather for some images and rows of windows, all known before there are arrays.

    Args:
        problem: the convolution, which tells groups and channels.
        windows: of the rows, with at least two axes.
        images: how many at a time.

    Attributes:
        shape: of the gathered array, [groups, channels of a group, offsets, residues, rows, images, *inner counts].
        offsets: along the first axis.
        length: the columns of a matrix: rows * images * inner positions of windows.
    """

    def __init__(self, problem: Problem, windows: Windows, images: int) -> None:
        stride, dilation = windows.strides[0], windows.dilations[0]
        self.offsets = windows.kernel[0]
        steps = [j * dilation for j in range(self.offsets)]
        residues = sorted({step % stride for step in steps})
        rows = windows.counts[0] + max(steps) // stride
        inner = windows.counts[1:]
        run = images * prod(inner)
        channels = (problem.groups, problem.group_channels)
        self.shape = (*channels, prod(windows.kernel[1:]), len(residues), rows, images, *inner)
        self.length = windows.counts[0] * run
        self._matrices = (problem.groups, problem.group_channels * self.shape[2], len(residues) * rows * run)
        self._starts = [(residues.index(step % stride) * rows + step // stride) * run for step in steps]
        self._unwritten = self._gaps(residues, rows, run, [step % stride for step in steps], steps, stride)
        self._copies: list[tuple[Box, Box]] = []
        self._zeros: list[Box] = []
        for number, offset in enumerate(product(*map(range, windows.kernel[1:]))):
            found = [windows.positions(axis + 1, j) for axis, j in enumerate(offset)]
            for place, residue in enumerate(residues):
                shift = residue - windows.begins[0]
                first, end = max(0, -(shift // stride)), min(rows, (windows.size[0] - 1 - shift) // stride + 1)
                here: tuple[Any, ...] = (_ALL, _ALL, number, place)
                boxes = [f for f in found if f is not None]
                if first >= end or len(boxes) < len(found):
                    self._zeros.append(here)
                    continue
                written = (slice(first, end), _ALL, *(f[0] for f in boxes))
                read = (slice(first * stride + shift, (end - 1) * stride + shift + 1, stride), _ALL, *(f[1] for f in boxes))
                self._copies.append(((*here, *written), (_ALL, _ALL, *read)))
                self._zeros += [(*here, *box) for box in around(written, self.shape[4:])]

    def _gaps(
        self, residues: list[int], rows: int, run: int, of: list[int], steps: list[int], stride: int
    ) -> list[tuple[int, slice, list[slice]]]:
        """For each residue: its first offset j, where the product of that goes, and what else there is to zero."""
        gaps = []
        for place, residue in enumerate(residues):
            j = of.index(residue)
            begin, start, end = place * rows * run, self._starts[j], (place + 1) * rows * run
            rest = [slice(begin, start), slice(start + self.length, end)]
            gaps.append((j, slice(start, start + self.length), [s for s in rest if s.start < s.stop]))
        return gaps

    def gather(self, buffer: np.ndarray, x: np.ndarray, *, fresh: bool) -> None:
        """Fill the gathered array from images [N, groups, channels, *size].

        Args:
            buffer: of the shape `shape`.
            x: as many images as the array is for.
            fresh: whether it is the first time since something else was in the buffer.
        """
        if fresh:
            for box in self._zeros:
                buffer[box] = 0
        source = np.moveaxis(x, 0, 3)
        for written, read in self._copies:
            np.copyto(buffer[written], source[read])

    def spread(self, buffer: np.ndarray, dx: np.ndarray) -> None:
        """The adjoint of `gather`: add the gathered array to images [N, groups, channels, *size], in place."""
        target = np.moveaxis(dx, 0, 3)
        for written, read in self._copies:
            view = target[read]
            np.add(view, buffer[written], out=view)

    def matrix(self, buffer: np.ndarray, j: int) -> np.ndarray:
        """What the windows read at the offset j of the first axis: [groups, channels * inner offsets, length]."""
        start = self._starts[j]
        return buffer.reshape(self._matrices)[:, :, start : start + self.length]

    def add_matrices(self, buffer: np.ndarray, weights: np.ndarray, dy: np.ndarray, space: np.ndarray) -> None:
        """The adjoint of all `matrix`: fill the gathered array with the sum of ``weights[j]ᵀ · dy`` where j reads.

        Args:
            buffer: of the shape `shape`; what was in it is lost.
            weights: [offsets, groups, filters of a group, channels * inner offsets].
            dy: [groups, filters of a group, length].
            space: for a product, [groups, channels * inner offsets, length].
        """
        flat = buffer.reshape(self._matrices)
        done = set()
        for j, where, rest in self._unwritten:
            for gap in rest:
                flat[:, :, gap] = 0
            multiply(weights[j].swapaxes(1, 2), dy, flat[:, :, where])
            done.add(j)
        for j in range(self.offsets):
            if j not in done:
                view = self.matrix(buffer, j)
                multiply(weights[j].swapaxes(1, 2), dy, space)
                np.add(view, space, out=view)


def around(box: Box, shape: tuple[int, ...]) -> list[Box]:
    """What lies beside a box in an array, as boxes that do not overlap."""
    found: list[Box] = []
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        start, stop, _ = part.indices(size)
        for beside in (slice(0, start), slice(stop, size)):
            if beside.start < beside.stop:
                found.append((*box[:axis], beside, *(_ALL,) * (len(shape) - axis - 1)))
    return found


@dataclass(frozen=True)
class Block:
    """Some images as a whole, or some rows of windows of one image.

    Attributes:
        images: which.
        columns: the positions of these rows among those of the flattened result.
        rows: how to gather; the same object for blocks of the same layout.
    """

    images: slice
    columns: slice
    rows: Rows

    @property
    def count(self) -> int:
        return int(self.images.stop - self.images.start)


def blocks_of(problem: Problem, nbytes: int, wide: int, at_least: int = 1) -> list[list[Block]]:
    """The blocks of a convolution, in lists of those of the same images.

    Args:
        problem: with windows of at least two axes.
        nbytes: about as large as a gathered array should be, if not for the sake of `wide`.
        wide: columns that a matrix should have, where enough images are there to make them.
        at_least: how many blocks there should be, if there are rows enough.
    """
    windows, area = problem.windows, problem.area
    whole = Rows(problem, windows, 1)
    size = prod(whole.shape) * problem.dtype.itemsize
    together = min(problem.images, -(-wide // area))
    if together > 1:
        layouts = {n: Rows(problem, windows, n) for n in {together, problem.images % together} if n}
        starts = range(0, problem.images, together)
        ends = [min(start + together, problem.images) for start in starts]
        return [[Block(slice(a, e), slice(0, area), layouts[e - a])] for a, e in zip(starts, ends, strict=True)]
    rows, across = windows.counts[0], area // windows.counts[0]
    pieces = min(rows, max(-(-size // nbytes), -(-at_least // problem.images)))
    bounds = [rows * k // pieces for k in range(pieces + 1)]
    parts = [
        (slice(a * across, e * across), whole if pieces == 1 else Rows(problem, windows.rows(a, e), 1))
        for a, e in pairwise(bounds)
    ]
    return [[Block(slice(n, n + 1), columns, part) for columns, part in parts] for n in range(problem.images)]
