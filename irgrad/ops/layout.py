"""The order of elements: permuting axes, joining and cutting, repeating, reversing, and moving between axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.dims import Size, dim_of, int_contents, join_sizes, reshape_to
from irgrad.runtime.kernels import deliver, deliver_all
from irgrad.runtime.workspace import planned

ops = OpTable()

# --- permuting axes ---------------------------------------------------------------------------------------------------

transpose = ops.define("Transpose", view=True)


@transpose.kernel
def _transpose(x: np.ndarray, *, perm: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(x.transpose(perm), out)


@transpose.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    perm = node.attr("perm")
    if perm is None:  # the axes in reverse: its own inverse
        return b.op("Transpose", dy)
    return b.op("Transpose", dy, perm=tuple(sorted(range(len(perm)), key=perm.__getitem__)))


# --- joining and cutting ----------------------------------------------------------------------------------------------

concat = ops.define("Concat", cost=costs.moves)


@concat.kernel
def _concat(*arrays: np.ndarray, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    return np.concatenate(arrays, axis, out)


@concat.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | None]:
    """One Split; where a single operand wants its share and its place is known, a Slice."""
    axis, operands = node.attr("axis"), [node.operand(k) for k in range(len(node.inputs))]
    if len(operands) == 1:
        return [dy]
    sizes = [dim_of(b, x, axis) for x in operands]
    wanted = [k for k, x in enumerate(operands) if b.needs(x)]
    known = [size for size in sizes if isinstance(size, int)]
    if len(wanted) == 1 and len(known) == len(sizes):
        (k,) = wanted
        start = sum(known[:k])
        share = b.op("Slice", dy, b.ints([start]), b.ints([start + known[k]]), b.ints([axis]))
        return [share if j == k else None for j in range(len(operands))]
    return b.multi("Split", dy, join_sizes(b, *sizes), outputs=len(operands), axis=axis)


split = ops.define("Split", view=True)


@split.prepare
@planned(1)
def _split(call: Call) -> Kernel:
    shape, count = call.tensor(0).static_shape, call.attrs.get("num_outputs")
    assert shape is not None
    axis = call.attrs["axis"] % len(shape)
    length = shape[axis]
    if call.has(1):
        ends = list(accumulate(call.constants[1].tolist()))
        if ends[-1] != length:
            raise ValueError(f"the sizes add up to {ends[-1]}, the axis has {length} elements")
    else:
        assert count is not None
        chunk = -(-length // count)
        if (count - 1) * chunk > length:
            raise ValueError(f"{length} elements do not make {count} parts of which only the last is smaller")
        ends = [min((k + 1) * chunk, length) for k in range(count)]
    parts = [(*(slice(None),) * axis, slice(first, last)) for first, last in zip([0, *ends[:-1]], ends, strict=True)]

    def kernel(x: np.ndarray, *_: np.ndarray, out: Any = None) -> tuple[np.ndarray, ...]:
        return deliver_all([x[part] for part in parts], out)

    return kernel


@split.adjoint
def _(b: AdjointBuilder, node: Node, *dys: Value | None) -> tuple[Value]:
    parts = [b.zeros_if_none(dy, y) for dy, y in zip(dys, node.outputs, strict=True)]
    return (parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=node.attr("axis")),)


# --- repeating --------------------------------------------------------------------------------------------------------

tile = ops.define("Tile", cost=costs.moves)


@tile.kernel
def _tile(x: np.ndarray, repeats: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    times = repeats.tolist()
    y = np.empty([n * size for n, size in zip(times, x.shape, strict=True)], x.dtype) if out is None else out
    if y.size:
        pairs = [number for pair in zip(times, x.shape, strict=True) for number in pair]
        y.reshape(pairs)[...] = np.expand_dims(x, tuple(range(0, 2 * x.ndim, 2)))
    return y


@tile.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """Each repeated axis of dy is cut into (repeats, size) and summed over the repeats."""
    x, repeats = node.operand(0), node.operand(1)
    known = int_contents(repeats)
    if known is None:
        return (_sum_of_pairs(b, dy, repeats, b.shape_of(x)),)
    sizes: list[Size] = []
    axes = []
    for axis, count in enumerate(known):
        if count != 1:
            axes.append(len(sizes))
            sizes.append(count)
        sizes.append(dim_of(b, x, axis))
    return (b.reduce_sum(reshape_to(b, dy, *sizes), axes) if axes else dy,)


def _sum_of_pairs(b: Builder, dy: Value, repeats: Value, shape: Value) -> Value:
    """Every axis of dy cut in two by numbers that are computed; the axes to sum over are then 0, 2, 4, ..."""
    pairs = [b.op("Unsqueeze", v, b.ints([1])) for v in (repeats, shape)]
    cut = b.op("Reshape", dy, b.op("Reshape", b.op("Concat", *pairs, axis=1), b.ints([-1])), allowzero=1)
    length = repeats.tensor_type.static_shape
    if length is not None:
        return b.reduce_sum(cut, range(0, 2 * length[0], 2))
    axes = b.op("Range", 0, b.op("Size", b.op("Shape", cut)), 2)
    return b.op("ReduceSum", cut, axes, keepdims=0, noop_with_empty_axes=1)


# --- triangles --------------------------------------------------------------------------------------------------------

trilu = ops.define("Trilu", cost=costs.moves, in_place=(0,))


@trilu.kernel
def _trilu(x: np.ndarray, k: np.ndarray | None = None, *, upper: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    offset, (rows, columns) = 0 if k is None else int(k.item()), x.shape[-2:]
    y = np.empty_like(x, order="C") if out is None else out
    np.copyto(y, x)
    for row in range(rows):
        edge = min(max(row + offset + (not upper), 0), columns)
        y[..., row, slice(0, edge) if upper else slice(edge, None)] = 0
    return y


@trilu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (b.op("Trilu", dy, node.input(1), upper=node.attr("upper")),)


# --- between channels and space ---------------------------------------------------------------------------------------


def _depth_comes_last(mode: str) -> bool:
    """Whether the channels are split into (block row, block column, depth), or into (depth, block row, block column)."""
    if mode not in ("DCR", "CRD"):
        raise ValueError(f"the mode {mode!r} is neither DCR nor CRD")
    return mode == "DCR"


depth_to_space = ops.define("DepthToSpace", cost=costs.moves)


@depth_to_space.kernel
def _depth_to_space(x: np.ndarray, *, blocksize: int, mode: str = "DCR", out: np.ndarray | None = None) -> np.ndarray:
    n, c, h, w = x.shape
    depth = c // blocksize**2
    y = np.empty((n, depth, h * blocksize, w * blocksize), x.dtype) if out is None else out
    if _depth_comes_last(mode):
        moved = x.reshape(n, blocksize, blocksize, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(n, depth, blocksize, blocksize, h, w).transpose(0, 1, 4, 2, 5, 3)
    y.reshape(moved.shape)[...] = moved
    return y


@depth_to_space.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("SpaceToDepth", dy, blocksize=node.attr("blocksize"), mode=node.attr("mode"))


space_to_depth = ops.define("SpaceToDepth", cost=costs.moves)


@space_to_depth.kernel
def _space_to_depth(x: np.ndarray, *, blocksize: int, mode: str = "DCR", out: np.ndarray | None = None) -> np.ndarray:
    n, c, h, w = x.shape
    if h % blocksize or w % blocksize:
        raise ValueError(f"an image of {h} x {w} cannot be cut into blocks of {blocksize} x {blocksize}")
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    moved = blocks.transpose((0, 3, 5, 1, 2, 4) if _depth_comes_last(mode) else (0, 1, 3, 5, 2, 4))
    y = np.empty((n, c * blocksize**2, h // blocksize, w // blocksize), x.dtype) if out is None else out
    y.reshape(moved.shape)[...] = moved
    return y


@space_to_depth.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("DepthToSpace", dy, blocksize=node.attr("blocksize"), mode=node.attr("mode"))


# --- reversing --------------------------------------------------------------------------------------------------------

reverse_sequence = ops.define("ReverseSequence", cost=costs.moves)


@reverse_sequence.kernel
def _reverse_sequence(
    x: np.ndarray,
    lengths: np.ndarray,
    *,
    batch_axis: int = 1,
    time_axis: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    y = np.empty_like(x, order="C") if out is None else out
    source, target = (np.moveaxis(a, (batch_axis, time_axis), (0, 1)) for a in (x, y))
    for k in range(len(lengths)):
        length = int(lengths[k])
        target[k, :length] = source[k, :length][::-1]
        target[k, length:] = source[k, length:]
    return y


@reverse_sequence.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """Reversing twice is reversing not at all."""
    axes = {name: node.attr(name) for name in ("batch_axis", "time_axis")}
    return (b.op("ReverseSequence", dy, node.operand(1), **axes),)
