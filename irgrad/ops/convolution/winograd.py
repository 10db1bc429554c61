"""Winograd's convolution, every transform a product of matrices.

With tiles of m × m outputs and n = m + k − 1, a convolution is n² products of matrices [tiles, C] · [C, M] between
transforms of images, weights and results. What the transforms do along one axis is a product with a banded matrix (see
`tiles`); done in this order they read images and write results where they lie, channels first, and have channels last in
between, as the products want it. The adjoint in the images is the convolution of dy with the reversed weights; that in the
weights transforms dy by the transposes of the matrices that transform results.

Reference: A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution.cook_toom import short_convolution
from irgrad.ops.convolution.problem import SMALL, Problem, crews, multiply, result
from irgrad.ops.convolution.tiles import Chunk, chunks_of
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Workspace, ranges

__all__ = ["Tiling", "forward", "image_adjoint", "weight_adjoint"]

_WEIGHTS = 1 << 22  # bytes of transformed weights beyond which threads share the points, not the images
_TRANSFORMED = 1 << 21  # bytes of transformed images of one block: some of the second-level cache


@dataclass(frozen=True)
class Tiling:
    """How a problem is cut up.

    Attributes:
        m: outputs of a tile along each axis.
        chunk: about as many outputs as a chunk of tiles should have along each axis.
        together: images of a block; None for as many as seem good.
    """

    m: int
    chunk: int = 28
    together: int | None = None


class _Block(NamedTuple):
    """A chunk of tiles of some images."""

    images: range
    rows: Chunk
    columns: Chunk

    @property
    def tiles(self) -> int:
        return len(self.images) * self.rows.tiles * self.columns.tiles


class _Plan:
    """The blocks of a problem, shared out.

    Args:
        problem: of stride 1, without groups, with two axes.
        tiling: how to cut.
        space: where to lay out.
    """

    def __init__(self, problem: Problem, tiling: Tiling, space: Workspace) -> None:
        self.problem, self.tiling = problem, tiling
        k = problem.windows.kernel[0]
        self.n = n = tiling.m + k - 1
        self.points = n * n
        short = short_convolution(tiling.m, k)
        by_columns = np.einsum(
            "ik,jl->jikl", short.weights, short.weights
        )  # points of columns first, as `transform` has them
        self.to_weights = by_columns.reshape(self.points, k * k).astype(problem.dtype)
        both = [chunks_of(problem.windows, axis, tiling.m, tiling.chunk, problem.dtype) for axis in (0, 1)]
        tiles = max(a.tiles * b.tiles for a in both[0] for b in both[1])
        size = problem.dtype.itemsize
        heavy = self.points * problem.channels * problem.filters * size > _WEIGHTS
        together = tiling.together or self._together(tiles, heavy)
        images = [range(a, min(a + together, problem.images)) for a in range(0, problem.images, together)]
        self.blocks = [_Block(some, a, b) for some in images for a in both[0] for b in both[1]]
        whole = crews(self.blocks, problem.products)
        by_points = threads() > 1 and (heavy or len(whole) < threads()) and problem.products > 1 << 24
        self.crews: Sequence[Sequence[_Block]] = [self.blocks] if by_points else whole
        self.workers = threads() if by_points else 1
        most = max(block.tiles for block in self.blocks)
        lines = max(
            self.n * b.columns.tiles * max(b.rows.input_size * problem.channels, b.rows.output_size * problem.filters)
            for b in self.blocks
        )
        self.lines = [[space.array((lines,), problem.dtype) for _ in range(self.workers)] for _ in self.crews]
        self.inputs = [space.array((self.points * most * problem.channels,), problem.dtype) for _ in self.crews]
        self.outputs = [space.array((self.points * most * problem.filters,), problem.dtype) for _ in self.crews]

    def _together(self, tiles: int, heavy: bool) -> int:
        """How many images a block should have, if an image has so many tiles."""
        p = self.problem
        if heavy:
            room = 8 * _TRANSFORMED // (self.points * tiles * (p.channels + p.filters) * p.dtype.itemsize)
        else:
            room = min(
                _TRANSFORMED // (self.points * tiles * (p.channels + p.filters) * p.dtype.itemsize),
                SMALL // (tiles * p.channels * p.filters),
            )
        return min(max(1, room), p.images)

    def each(self, count: int) -> list[tuple[int, int, int]]:
        """Ranges of so many things for the threads of one share: (number of the thread, first, end)."""
        return [(number, a, e) for number, (a, e) in enumerate(ranges(count, self.workers))]

    def transform(
        self,
        images: np.ndarray,
        block: _Block,
        matrices: tuple[np.ndarray, np.ndarray],
        room: np.ndarray,
        lines: Sequence[np.ndarray],
    ) -> np.ndarray:
        """Transform parts of images [images, channels, height, width].

        Args:
            images: those of the block, cut to what its tiles read.
            block: which.
            matrices: of the rows [n * t, height] and of the columns [n * t, width].
            room: for the result.
            lines: for each thread, room for an array between the transforms.

        Returns:
            [n * n, tiles, channels]: for each point, the tiles of rows, of images, of columns.
        """
        count, channels, height, _ = images.shape
        n, across = self.n, block.columns.tiles
        shape = (n, n * block.rows.tiles, count, across * channels)
        transformed = _array(room, shape)
        down, right = matrices

        def some(part: tuple[int, int, int]) -> None:
            number, first, end = part
            between = _array(lines[number], (height, n * across, channels))
            by_points = between.reshape(height, n, across * channels).swapaxes(0, 1)
            for i in range(first, end):
                np.matmul(right, images[i].transpose(1, 2, 0), out=between)
                multiply(down, by_points, transformed[:, :, i])

        parallel(some, self.each(count))
        return transformed.reshape(self.points, -1, channels)

    def transform_back(
        self, points: np.ndarray, block: _Block, y: np.ndarray, bias: np.ndarray | None, lines: Sequence[np.ndarray]
    ) -> None:
        """Write the results of a block into its part of maps [images, filters, height, width]; the inverse transform."""
        count, filters, height, _ = y.shape
        n, across = self.n, block.columns.tiles
        source = points.reshape(n, n * block.rows.tiles, count, across * filters)
        shift = None if bias is None else bias[:, None, None]

        def some(part: tuple[int, int, int]) -> None:
            number, first, end = part
            between = _array(lines[number], (height, n * across, filters))
            by_points = between.reshape(height, n, across * filters).swapaxes(0, 1)
            for i in range(first, end):
                multiply(block.rows.to_outputs, source[:, :, i], by_points)
                np.matmul(between.swapaxes(1, 2), block.columns.from_outputs, out=y[i].swapaxes(0, 1))
                if shift is not None:
                    np.add(y[i], shift, out=y[i])

        parallel(some, self.each(count))


def _array(room: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return room[: prod(shape)].reshape(shape)


def _cut(images: np.ndarray, block: _Block, *, outputs: bool = False) -> np.ndarray:
    """The part of images or (outputs) of maps that a block is about."""
    rows, columns = block.rows, block.columns
    inner = (rows.outputs, columns.outputs) if outputs else (rows.inputs, columns.inputs)
    return images[(slice(block.images.start, block.images.stop), slice(None), *inner)]


def forward(problem: Problem, tiling: Tiling, *, reverse: bool = False) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)``: the convolution.

    Args:
        problem: what is convolved with what.
        tiling: how.
        reverse: whether the weights are those of the convolution whose adjoint this is, see `Problem.transposed`.
    """
    space = Workspace()
    plan = _Plan(problem, tiling, space)
    weights = space.array((plan.points, problem.channels, problem.filters), problem.dtype)
    matrix = plan.to_weights[:, ::-1].copy() if reverse else plan.to_weights
    parts = crews(ranges(problem.channels), problem.channels * problem.filters * matrix.size)

    def run(
        x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = result(problem.y_shape, problem.dtype, out)
        transformed = weights(work)
        outer = w.reshape(*w.shape[:2], matrix.shape[1])
        by_channel, target = outer.swapaxes(1, 2) if reverse else outer.transpose(1, 2, 0), transformed.swapaxes(0, 1)

        def weigh(part: Sequence[tuple[int, int]]) -> None:
            for first, end in part:
                np.matmul(matrix, by_channel[first:end], out=target[first:end])

        def some(share: int) -> None:
            lines = [place(work) for place in plan.lines[share]]
            inputs, outputs = plan.inputs[share](work), plan.outputs[share](work)
            for block in plan.crews[share]:
                to = (block.rows.to_inputs, block.columns.to_inputs)
                tiles = plan.transform(_cut(x, block), block, to, inputs, lines)
                products = _array(outputs, (plan.points, block.tiles, problem.filters))

                def weighted(part: tuple[int, int, int]) -> None:
                    _, a, e = part
                    np.matmul(tiles[a:e], transformed[a:e], out=products[a:e])  # noqa: B023 (called at once)

                parallel(weighted, plan.each(plan.points))
                plan.transform_back(products, block, _cut(y, block, outputs=True), bias, lines)

        parallel(weigh, parts)
        parallel(some, range(len(plan.crews)))
        return y

    return space.kernel(run)


def image_adjoint(problem: Problem, tiling: Tiling) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images."""
    return forward(problem.transposed(), tiling, reverse=True)


def weight_adjoint(problem: Problem, tiling: Tiling) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights."""
    space = Workspace()
    plan = _Plan(problem, tiling, space)
    shape = (plan.points, problem.filters, problem.channels)
    sums = [space.array(shape, problem.dtype) for _ in plan.crews]
    extra = [space.array(shape, problem.dtype) if len(crew) > 1 else None for crew in plan.crews]
    weights = problem.filters * problem.channels
    parts = crews(ranges(weights), weights * plan.to_weights.size)

    def run(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dw = result(problem.w_shape, problem.dtype, out)

        def some(share: int) -> None:
            lines = [place(work) for place in plan.lines[share]]
            inputs, outputs, total = plan.inputs[share](work), plan.outputs[share](work), sums[share](work)
            spare = extra[share]
            room = total if spare is None else spare(work)
            for index, block in enumerate(plan.crews[share]):
                to = (block.rows.to_inputs, block.columns.to_inputs)
                tiles = plan.transform(_cut(x, block), block, to, inputs, lines)
                back = (block.rows.from_outputs, block.columns.from_outputs)
                cotangents = plan.transform(_cut(dy, block, outputs=True), block, back, outputs, lines).swapaxes(1, 2)

                def weighted(part: tuple[int, int, int]) -> None:
                    _, a, e = part
                    if index:  # noqa: B023 (called at once)
                        np.matmul(cotangents[a:e], tiles[a:e], out=room[a:e])  # noqa: B023
                        np.add(total[a:e], room[a:e], out=total[a:e])
                    else:
                        np.matmul(cotangents[a:e], tiles[a:e], out=total[a:e])  # noqa: B023

                parallel(weighted, plan.each(plan.points))

        parallel(some, range(len(plan.crews)))
        totals = [place(work).reshape(plan.points, weights) for place in sums]
        flat = dw.reshape(weights, -1)

        def weigh(part: Sequence[tuple[int, int]]) -> None:
            for a, e in part:
                for other in totals[1:]:
                    np.add(totals[0][:, a:e], other[:, a:e], out=totals[0][:, a:e])
                np.matmul(totals[0][:, a:e].T, plan.to_weights, out=flat[a:e])

        parallel(weigh, parts)
        return dw

    return space.kernel(run)
