"""Sampling images at positions that are told by a grid (GridSample), and grids of affine maps (AffineGrid).

A sample is linear in the image and piecewise smooth in its position; both carry gradients. Where pieces meet, the derivative
is that of the piece which follows; in mode nearest it is 0. Beyond the border it is that of the image as it is continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, shape_operand
from irgrad.ops.sampling_kernels import filter_of, grid_adjoint, image_adjoint, sample
from irgrad.ops.sampling_lowering import lower_grid_adjoint, lower_image_adjoint
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import Dim, Type

ops = OpTable()


def _merged(call: Call, *dims: Dim) -> Dim:
    """One of several dimensions that are the same, a number before a symbol.

    Raises:
        TypeInferenceError: they are different numbers.
    """
    numbers = {dim for dim in dims if isinstance(dim, int)}
    if len(numbers) > 1:
        operands = " and ".join(str(call.tensor(k)) for k in range(2))
        raise TypeInferenceError(f"the operands of {call.op.qualified_name}, {operands}, do not fit each other")
    return next(iter(numbers), next((dim for dim in dims if dim is not None), None))


# --- GridSample -------------------------------------------------------------------------------------------------------

grid_sample = ops.define("GridSample", cost=costs.sampling())
pixel_sample = ops.define(
    "PixelSample", domain=IRGRAD_DOMAIN, defaults={**grid_sample.defaults, "pixels": 1}, cost=costs.sampling()
)
"""``PixelSample(x, positions)``: GridSample at positions in pixels, those of the image being 0, 1, 2, ... along an axis.

Whole positions are exact, so that at kinks, too, the derivative is the one that is told above. Attributes: those of
GridSample, of which align_corners stays 0.
"""


@grid_sample.kernel
@pixel_sample.kernel
def _(x: np.ndarray, grid: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    return sample(x, grid, attrs, out)


@grid_sample.infer
@pixel_sample.infer
def _(call: Call) -> Sequence[Type]:
    x, grid = call.tensor(0), call.tensor(1)
    try:
        filter_of(call.attrs)
    except ValueError as error:
        raise TypeInferenceError(str(error)) from None
    rank = _merged(call, x.rank, grid.rank)
    if not isinstance(rank, int):
        return [x]
    if rank < 3:
        raise TypeInferenceError(f"GridSample takes images of at least three axes and a grid of as many, not {x} and {grid}")
    images, points = x.shape or (None,) * rank, grid.shape or (None,) * rank
    _merged(call, points[-1], rank - 2)
    return [x.with_shape((_merged(call, images[0], points[0]), images[1], *points[1:-1]))]


@grid_sample.adjoint
@pixel_sample.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | Zero | None]:
    x, grid = node.operand(0), node.operand(1)
    dx = b.op("irgrad.GridSampleImageGrad", dy, grid, b.shape_of(x), **_attributes(node)) if b.needs(x) else None
    return dx, _grid_cotangent(b, node, dy, x, grid)


@pixel_sample.lower
def _(b: Builder, node: Node) -> Value:
    x, positions = node.operand(0), node.operand(1)
    axes = reversed(range(2, rank_of(positions)))
    sizes = b.cast(join_sizes(b, *(dim_of(b, x, axis) for axis in axes)), positions.dtype)
    attrs = {name: value for name, value in node.attrs.items() if name != "pixels"}
    return b.op("GridSample", x, (2 * positions + 1) / sizes - 1, **attrs)


def _attributes(node: Node) -> dict[str, Any]:
    """The attributes that the adjoints of a sampling share with it."""
    return {**node.attrs, "pixels": node.attr("pixels")}


def _grid_cotangent(b: AdjointBuilder, node: Node, dy: Value, x: Value, grid: Value) -> Value | Zero | None:
    if node.attr("mode") == "nearest":
        return ZERO
    if not b.needs(grid):
        return None
    return b.op("irgrad.GridSampleGridGrad", dy, x, grid, **_attributes(node))


grid_sample_image_grad = ops.define(
    "GridSampleImageGrad", domain=IRGRAD_DOMAIN, defaults=grid_sample.defaults, cost=costs.sampling(0)
)
"""``GridSampleImageGrad(dy, grid, x_shape)``: the cotangent of x, of shape x_shape, where dy is that of GridSample(x, grid).

Attributes: those of GridSample.
"""


@grid_sample_image_grad.kernel
def _(dy: np.ndarray, grid: np.ndarray, x_shape: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    return image_adjoint(dy, grid, x_shape.tolist(), attrs, out)


@grid_sample_image_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 2))]


@grid_sample_image_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> tuple[Value | None, Value | Zero | None, None]:
    """The inner product of c with the result is that of dy with the samples of c."""
    dy, grid = node.operand(0), node.operand(1)
    forward = "irgrad.PixelSample" if node.attr("pixels") else "GridSample"
    ddy = b.op(forward, c, grid, **node.attrs) if b.needs(dy) else None
    return ddy, _grid_cotangent(b, node, dy, c, grid), None


@grid_sample_image_grad.lower
def _(b: Builder, node: Node) -> Value:
    return lower_image_adjoint(b, node)


grid_sample_grid_grad = ops.define(
    "GridSampleGridGrad", domain=IRGRAD_DOMAIN, defaults=grid_sample.defaults, cost=costs.sampling(0)
)
"""``GridSampleGridGrad(dy, x, grid)``: the cotangent of grid, where dy is that of GridSample(x, grid).

Attributes: those of GridSample; the mode is linear or cubic. It is differentiated through its lowering.
"""


@grid_sample_grid_grad.kernel
def _(dy: np.ndarray, x: np.ndarray, grid: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    return grid_adjoint(dy, x, grid, attrs, out)


@grid_sample_grid_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(2)]


@grid_sample_grid_grad.lower
def _(b: Builder, node: Node) -> Value:
    return lower_grid_adjoint(b, node)


# --- AffineGrid -------------------------------------------------------------------------------------------------------

affine_grid = ops.define("AffineGrid")


def _coordinates(size: int, align_corners: int) -> np.ndarray:
    """The normalised coordinates of an axis. With aligned corners, too, a single pixel lies at 0, as in PyTorch."""
    return np.asarray((2 * np.arange(size) + (1 - size)) / (max(size - 1, 1) if align_corners else size), np.float64)


@affine_grid.kernel
def _(theta: np.ndarray, size: np.ndarray, *, align_corners: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    wide, lengths = accumulation_dtype(theta.dtype), size[2:].tolist()
    rank = len(lengths)
    columns = theta.astype(wide, copy=False).reshape(len(theta), *(1,) * (rank - 1), rank, rank + 1)
    grid = columns[..., rank][:, None]
    for k, length in enumerate(reversed(lengths)):
        coordinates = _coordinates(length, align_corners).astype(wide)
        grid = grid + columns[..., k][:, None] * coordinates.reshape(-1, *(1,) * (k + 1))
    return deliver(grid.astype(theta.dtype, copy=False), out)


@affine_grid.infer
def _(call: Call) -> Sequence[Type]:
    theta, sizes = call.tensor(0), shape_operand(call, 1)
    shape = theta.shape or (None,) * 3
    if len(shape) != 3:
        raise TypeInferenceError(f"AffineGrid takes a theta of three axes, not {theta}")
    plus_one = shape[2] - 1 if isinstance(shape[2], int) else None
    rank = _merged(call, shape[1], plus_one, None if sizes is None else len(sizes) - 2)
    if not isinstance(rank, int):
        return [theta.with_shape(None)]
    if rank not in (2, 3):
        raise TypeInferenceError(f"AffineGrid makes grids of two or three axes, not of {rank} as {theta} would have it")
    batch, _, *lengths = sizes or (None,) * (rank + 2)
    return [theta.with_shape((_merged(call, shape[0], batch), *lengths, rank))]


@affine_grid.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, None]:
    return b.op("irgrad.AffineGridGrad", dy, align_corners=node.attr("align_corners")), None


affine_grid_grad = ops.define("AffineGridGrad", domain=IRGRAD_DOMAIN, defaults=affine_grid.defaults)
"""``AffineGridGrad(dy)``: the cotangent of theta, where dy is that of AffineGrid(theta, size).

A column of it belongs to each spatial axis, and is the sum of dy times the coordinates along that; the last one belongs to
the translation, and is the sum of dy.
"""


@affine_grid_grad.kernel
def _(dy: np.ndarray, *, align_corners: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    wide = dy.astype(accumulation_dtype(dy.dtype), copy=False)
    columns = []
    for axis in range(dy.ndim - 2, 0, -1):
        others = tuple(k for k in range(1, dy.ndim - 1) if k != axis)
        columns.append(_coordinates(dy.shape[axis], align_corners).astype(wide.dtype) @ wide.sum(others))
    columns.append(wide.sum(tuple(range(1, dy.ndim - 1))))
    return deliver(np.stack(columns, 2).astype(dy.dtype, copy=False), out)


@affine_grid_grad.infer
def _(call: Call) -> Sequence[Type]:
    dy = call.tensor(0)
    if dy.shape is None:
        return [dy.with_shape((None, None, None))]
    return [dy.with_shape((dy.shape[0], len(dy.shape) - 2, len(dy.shape) - 1))]


@affine_grid_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> Value:
    shape = b.shape_of(node.operand(0))
    batch, lengths = (b.op("Slice", shape, b.ints([start]), b.ints([end])) for start, end in ((0, 1), (1, -1)))
    size = b.op("Concat", batch, b.ints([1]), lengths, axis=0)
    return b.op("AffineGrid", c, size, align_corners=node.attr("align_corners"))


@affine_grid_grad.lower
def _(b: Builder, node: Node) -> Value:
    """An Einsum for each axis; with the last one also the sums of the translation."""
    dy, corners = node.operand(0), node.attr("align_corners")
    rank = rank_of(dy) - 2
    wide, axes = b.cast(dy, accumulation_dtype(dy.dtype)), "abc"[:rank]
    columns = []
    with b:
        for axis in reversed(range(rank)):
            matrix = _coordinate_matrix(b, dim_of(b, dy, axis + 1), corners, wide, with_ones=axis == 0)
            columns.append(b.op("Einsum", wide, matrix, equation=f"n{axes}i,{axes[axis]}k->nik"))
        return b.cast(b.op("Concat", *columns, axis=2), dy.dtype)


def _coordinate_matrix(b: Builder, size: Size, align_corners: int, like: Value, *, with_ones: bool) -> Value:
    """The coordinates of an axis as a column, with a column of ones behind it where that is asked for."""
    if isinstance(size, int):
        coordinates = _coordinates(size, align_corners)
        columns = [coordinates, np.ones_like(coordinates)] if with_ones else [coordinates]
        return b.constant(np.stack(columns, 1), like.dtype)
    steps = b.op("Max", size - 1, b.ints([1])) if align_corners else size
    numerators = b.op("Range", 0, as_scalar(b, size), 1) * 2 + (1 - size)
    column = b.op("Unsqueeze", b.cast(numerators, like.dtype) / b.cast(steps, like.dtype), b.ints([1]))
    return b.op("Pad", column, b.ints([0, 0, 0, 1]), b.scalar(1, like)) if with_ones else column
