"""Convolution and its adjoints as products of matrices whose columns are what windows read (im2col), for any geometry.

Only the inner axes are gathered (see `rows`): the first one costs a product and a sum for each of its offsets, which is
cheaper than copying rows that the gathered array already has. Where a window has few elements along the inner axes, the
columns are made in full (`stacked`), since such products would be too thin. Blocks keep the gathered array in the cache:
some images at once where maps are small, some rows of one image where they are large. Groups are a batch axis of the
products.

Reference: K. Chellapilla, S. Puri, P. Simard, High Performance Convolutional Neural Networks for Document Processing, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution.problem import Problem, add_products, crews, multiply, result
from irgrad.ops.convolution.rows import Block, Rows, blocks_of, planar
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Place, Workspace

__all__ = ["forward", "image_adjoint", "weight_adjoint"]

_BLOCK = 3 << 19  # bytes of a gathered array: so that it and what is made of it stay in the second-level cache
_WIDE = 512  # columns that a product should have, where enough images are there to make them
_PRODUCTS = 1 << 22  # multiplications that a block should have, likewise: each takes some calls
_THIN = 64  # rows or columns of a product below which full columns are worth their copies
_WINDOWS = 4  # windows for each filter, over all images, below which it costs more to reorder weights than to copy columns
_FEW = 2048  # windows below which it costs more to reorder cotangents of weights than their products gain by it


@dataclass(frozen=True)
class _Layout:
    """Where the arrays of one share of the work lie."""

    gathered: Place
    columns: Place
    maps: Place
    product: Place


class _Work:
    """The blocks of a problem, shared out, with room for each share.

    Args:
        problem: any; its windows get a second axis if they have one.
        space: where to lay out.
        stacked: whether columns are made in full.
        product: elements of further room for one product, by the length of its rows.
        apart: whether blocks of the same image may go to different threads.
        turned: whether maps of one image need room of their own, too.
    """

    def __init__(
        self,
        problem: Problem,
        space: Workspace,
        *,
        stacked: bool,
        product: Callable[[int], int],
        apart: bool = True,
        turned: bool = False,
    ) -> None:
        self.problem = problem = replace(problem, windows=planar(problem.windows))
        self.stacked, self.turned = stacked, turned
        self.depth = problem.group_channels * prod(problem.windows.kernel[1:])  # rows of the matrix of one offset
        wide = max(_WIDE, _PRODUCTS // prod(problem.w_shape))
        groups = blocks_of(problem, _BLOCK, wide, threads() if apart and problem.products > 1 << 24 else 1)
        items: list[list[Block]] = [[b] for group in groups for b in group] if apart else groups
        self.crews: list[list[Block]] = [[b for item in crew for b in item] for crew in crews(items, problem.products)]
        every = [block for group in groups for block in group]
        gathered = max(prod(block.rows.shape) for block in every)
        length = max(block.rows.length for block in every)
        maps = max([0, *(block.rows.length for block in every if turned or block.count > 1)])
        full = self.depth * problem.windows.kernel[0] * problem.groups * length if stacked else 0
        self.layouts = [
            _Layout(
                space.array((gathered,), problem.dtype),
                space.array((full,), problem.dtype),
                space.array((problem.filters * maps,), problem.dtype),
                space.array((product(length),), problem.dtype),
            )
            for _ in self.crews
        ]

    def images(self, x: np.ndarray) -> np.ndarray:
        """Images as [N, groups, channels of a group, *size]."""
        p = self.problem
        return x.reshape(p.images, p.groups, p.group_channels, *p.windows.size)

    def maps(self, y: np.ndarray) -> np.ndarray:
        """Maps as [N, groups, filters of a group, rows, positions of a row]."""
        p, rows = self.problem, self.problem.windows.counts[0]
        return y.reshape(p.images, p.groups, p.group_filters, rows, p.area // rows)

    def columns(self, rows: Rows, gathered: np.ndarray, room: np.ndarray) -> list[np.ndarray]:
        """The matrices to multiply with: one for each offset of the first axis, or one with all of them."""
        if not self.stacked:
            return [rows.matrix(gathered, j) for j in range(rows.offsets)]
        p, inner = self.problem, prod(self.problem.windows.kernel[1:])
        shape = (p.groups, p.group_channels, rows.offsets, inner, rows.length)
        full = room[: prod(shape)].reshape(shape)
        for j in range(rows.offsets):
            np.copyto(full[:, :, j], rows.matrix(gathered, j).reshape(p.groups, p.group_channels, inner, rows.length))
        return [full.reshape(p.groups, -1, rows.length)]


def _array(room: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return room[: prod(shape)].reshape(shape)


# --- the weights ------------------------------------------------------------------------------------------------------


def _weights_shape(problem: Problem, stacked: bool) -> tuple[int, ...]:
    """[offsets, groups, filters of a group, channels of a group * inner offsets]; one offset for full columns."""
    kernel = planar(problem.windows).kernel
    offsets = 1 if stacked else kernel[0]
    return (offsets, problem.groups, problem.group_filters, problem.group_channels * prod(kernel) // offsets)


def _pack(w: np.ndarray, problem: Problem, reverse: bool, packed: np.ndarray) -> None:
    """Bring weights [M, C / groups, *kernel] into the shape of `_weights_shape`.

    Args:
        w: the weights.
        problem: the convolution that is done with them.
        reverse: whether it is the adjoint of that of w: channels and filters change places, the kernel is reversed.
        packed: where they go.
    """
    kernel = planar(problem.windows).kernel
    outer, inner = problem.group_filters, problem.group_channels
    if reverse:
        outer, inner = inner, outer
    source = w.reshape(problem.groups, outer, inner, kernel[0], prod(kernel[1:]))
    if reverse:
        source = source[:, :, :, ::-1, ::-1].swapaxes(1, 2)
    shape = (problem.groups, problem.group_filters, problem.group_channels)
    if len(packed) == kernel[0]:
        np.copyto(packed.reshape(kernel[0], *shape, -1), source.transpose(3, 0, 1, 2, 4))
    else:
        np.copyto(packed.reshape(*shape, *source.shape[3:]), source)


# --- the three functions ----------------------------------------------------------------------------------------------


def forward(problem: Problem, *, reverse: bool = False, stacked: bool | None = None) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)``: the convolution.

    Args:
        problem: what is convolved with what.
        reverse: whether the weights are those of the convolution whose adjoint this is, see `Problem.transposed`.
        stacked: whether columns are made in full; by default where that is faster.
    """
    kernel = planar(problem.windows).kernel
    if stacked is None:
        depth, filters = problem.group_channels * prod(kernel[1:]), problem.group_filters
        few = not reverse and problem.images * problem.area < _WINDOWS * filters
        stacked = filters > 1 and (few or depth < _THIN or 2 * (kernel[0] - 1) * filters > depth * kernel[0])
    space = Workspace()
    shape = _weights_shape(problem, stacked)
    weights = space.array(shape if reverse or shape[0] > 1 else (0,), problem.dtype)
    plan = _Work(problem, space, stacked=stacked, product=lambda length: problem.filters * length if shape[0] > 1 else 0)

    def run(
        x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = result(problem.y_shape, problem.dtype, out)
        if weights.shape == (0,):
            packed = w.reshape(shape)
        else:
            packed = weights(work)
            _pack(w, problem, reverse, packed)
        shift = None if bias is None else bias.reshape(problem.groups, problem.group_filters, 1)
        images, maps = plan.images(x), plan.maps(y)

        def some(share: int) -> None:
            _convolve(plan, share, images, packed, shift, maps, work)

        parallel(some, range(len(plan.crews)))
        return y

    return space.kernel(run)


def _convolve(
    plan: _Work,
    share: int,
    x: np.ndarray,
    weights: np.ndarray,
    shift: np.ndarray | None,
    maps: np.ndarray,
    work: np.ndarray,
) -> None:
    """One share of `forward`."""
    layout, problem, before = plan.layouts[share], plan.problem, None
    gathered, columns, own, product = (
        place(work) for place in (layout.gathered, layout.columns, layout.maps, layout.product)
    )
    for block in plan.crews[share]:
        rows = block.rows
        buffer = _array(gathered, rows.shape)
        rows.gather(buffer, x[block.images], fresh=rows is not before)
        before = rows
        shape = (problem.groups, problem.group_filters, rows.length)
        if block.count == 1:
            target = maps[block.images.start].reshape(*shape[:2], problem.area)[:, :, block.columns]
        else:
            target = _array(own, shape)
        for j, matrix in enumerate(plan.columns(rows, buffer, columns)):
            if j:
                multiply(weights[j], matrix, _array(product, shape))
                np.add(target, _array(product, shape), out=target)
            else:
                multiply(weights[0], matrix, target)
        if shift is not None:
            np.add(target, shift, out=target)
        if block.count > 1:
            place = maps[block.images]
            np.copyto(place, target.reshape(*shape[:2], place.shape[3], block.count, -1).transpose(3, 0, 1, 2, 4))


def image_adjoint(problem: Problem, *, columns: bool | None = None) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images.

    Args:
        problem: the convolution.
        columns: whether the columns of dx are computed and added where they belong; otherwise, for stride 1 only, it is a
            convolution of dy with the reversed weights. By default what is faster.
    """
    if columns is None:
        columns = set(problem.windows.strides) != {1} or 2 * problem.channels < problem.filters
    if not columns:
        return forward(problem.transposed(), reverse=True)
    space = Workspace()
    weights = space.array(_weights_shape(problem, False), problem.dtype)
    plan = _Work(
        problem,
        space,
        stacked=False,
        product=lambda length: problem.groups * _weights_shape(problem, False)[3] * length,
        apart=False,
    )

    def run(dy: np.ndarray, w: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dx = result(problem.x_shape, problem.dtype, out)
        packed = weights(work)
        _pack(w, problem, False, packed)
        images, maps = plan.images(dx), plan.maps(dy)

        def some(share: int) -> None:
            _add_columns(plan, share, maps, packed, images, work)

        parallel(some, range(len(plan.crews)))
        return dx

    return space.kernel(run)


def _add_columns(plan: _Work, share: int, maps: np.ndarray, weights: np.ndarray, dx: np.ndarray, work: np.ndarray) -> None:
    """One share of `image_adjoint`."""
    layout, last = plan.layouts[share], -1
    gathered, own, product = (place(work) for place in (layout.gathered, layout.maps, layout.product))
    for block in plan.crews[share]:
        images = dx[block.images]
        if block.images.start != last:
            images.fill(0)
            last = block.images.start
        rows = block.rows
        buffer = _array(gathered, rows.shape)
        dy = _maps_of(plan.problem, block, maps, own)
        rows.add_matrices(buffer, weights, dy, _array(product, (dy.shape[0], weights.shape[3], rows.length)))
        rows.spread(buffer, images)


def _maps_of(problem: Problem, block: Block, maps: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The maps of a block as [groups, filters of a group, length]; those of several images are brought together."""
    shape = (problem.groups, problem.group_filters)
    if block.count == 1:
        image: np.ndarray = maps[block.images.start].reshape(*shape, problem.area)
        return image[:, :, block.columns]
    source = maps[block.images].transpose(1, 2, 3, 0, 4)
    together = _array(own, source.shape)
    np.copyto(together, source)
    return together.reshape(*shape, -1)


def weight_adjoint(problem: Problem, *, stacked: bool | None = None, turned: bool | None = None) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights.

    Args:
        problem: the convolution.
        stacked: see `forward`.
        turned: whether maps are turned and products give the transposes of weights. Products of rows with columns that lie
            beside each other are faster than those of rows with rows, but then there are cotangents to reorder.
    """
    if turned is None:
        turned = problem.images * problem.area >= _FEW
    if stacked is None:
        stacked = not turned or problem.group_channels * prod(planar(problem.windows).kernel[1:]) < _THIN
    space = Workspace()
    offsets, groups, filters, depth = _weights_shape(problem, stacked)
    shape = (offsets, groups, *((depth, filters) if turned else (filters, depth)))
    plan = _Work(problem, space, stacked=stacked, product=lambda _: prod(shape[1:]), turned=turned)
    sums = [space.array(shape, problem.dtype) for _ in plan.crews]

    def run(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dw = result(problem.w_shape, problem.dtype, out)
        images, maps = plan.images(x), plan.maps(dy)

        def some(share: int) -> None:
            _correlate(plan, share, images, maps, sums[share](work), work)

        parallel(some, range(len(plan.crews)))
        _unpack([place(work) for place in sums], plan, dw)
        return dw

    return space.kernel(run)


def _correlate(plan: _Work, share: int, x: np.ndarray, maps: np.ndarray, total: np.ndarray, work: np.ndarray) -> None:
    """One share of `weight_adjoint`."""
    layout, before = plan.layouts[share], None
    gathered, columns, own, product = (
        place(work) for place in (layout.gathered, layout.columns, layout.maps, layout.product)
    )
    room = _array(product, total.shape[1:])
    for index, block in enumerate(plan.crews[share]):
        rows = block.rows
        buffer = _array(gathered, rows.shape)
        rows.gather(buffer, x[block.images], fresh=rows is not before)
        before = rows
        dy = _turned_maps_of(block, maps, own) if plan.turned else _maps_of(plan.problem, block, maps, own)
        for j, matrix in enumerate(plan.columns(rows, buffer, columns)):
            if plan.turned:
                add_products(matrix, dy, total[j], room, fresh=not index)
            else:
                add_products(dy, matrix.swapaxes(1, 2), total[j], room, fresh=not index)


def _turned_maps_of(block: Block, maps: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The maps of a block as [groups, length, filters of a group]."""
    if block.count == 1:
        image = maps[block.images.start]
        source = image.reshape(*image.shape[:2], -1)[:, :, block.columns].swapaxes(1, 2)
    else:
        source = maps[block.images].transpose(1, 3, 0, 4, 2)
    turned = _array(own, source.shape)
    np.copyto(turned, source)
    return turned.reshape(len(source), -1, source.shape[-1])


def _unpack(sums: Sequence[np.ndarray], plan: _Work, dw: np.ndarray) -> None:
    """Add up weights [offsets, groups, ...], or their transposes, and bring them into their own shape."""
    first, *others = sums
    for other in others:
        np.add(first, other, out=first)
    problem, offsets = plan.problem, len(first)
    matrices = first.swapaxes(2, 3) if plan.turned else first
    shape = (problem.groups, problem.group_filters, problem.group_channels)
    source = matrices.reshape(offsets, *shape, -1).transpose(1, 2, 3, 0, 4)
    np.copyto(dw.reshape(source.shape), source)
