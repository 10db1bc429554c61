"""Products with the sparse matrices of a Resize, one axis after the other, in memory laid out before the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import TypeAlias

import numpy as np

from irgrad.ops.resampling import Taps
from irgrad.runtime.fast import compiled, enabled
from irgrad.runtime.jit import jit, read, reals, write
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Place, Workspace, shared_ranges, shares

__all__ = ["Apply", "chain", "pick", "product", "transposed_product"]

_DENSE = 64  # elements along the operand's axis per weight of a row, up to which a dense product is the faster one
_BLOCK = 1 << 16  # elements of a result at a time

Apply: TypeAlias = "Callable[[np.ndarray, np.ndarray, np.ndarray], None]"
"""``apply(x, out, work)``"""

Step: TypeAlias = "tuple[tuple[int, ...], Apply]"
"""The shape of the result, and how it is made."""


def chain(space: Workspace, steps: Sequence[Step], dtype: np.dtype) -> Apply:
    """What several steps do, one after the other; at least one. What is between them lies in the workspace."""
    places = [None if dtype.hasobject else space.array(shape, dtype) for shape, _ in steps[:-1]]

    def apply(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        for (shape, step), place in zip(steps[:-1], places, strict=True):
            result = np.empty(shape, dtype) if place is None else place(work)
            step(x, result, work)
            x = result
        steps[-1][1](x, out, work)

    return apply


def _result(shape: Sequence[int], axis: int, rows: int) -> tuple[int, ...]:
    return (*shape[:axis], rows, *shape[axis + 1 :])


def _factor(taps: Taps) -> int | None:
    """How often each element is repeated, where that is all that happens."""
    rows = len(taps.places)
    if not taps.size or rows % taps.size or taps.places.shape[1] != 1 or (taps.weights != 1).any():
        return None
    factor = rows // taps.size
    return factor if (taps.places[:, 0] == np.arange(rows) // factor).all() else None


def pick(taps: Taps, shape: Sequence[int], axis: int) -> Step:
    """The product along an axis with a matrix that has a single 1 in each row, for elements of any type.

    Args:
        taps: the matrix.
        shape: that of the operand.
        axis: not negative.
    """
    outer, inner, factor = prod(shape[:axis]), prod(shape[axis + 1 :]), _factor(taps)
    places = np.ascontiguousarray(taps.places[:, 0])
    todo = shared_ranges(outer, outer * inner * len(places))

    def apply(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        if factor is None:
            np.take(x, places, axis, out, mode="clip")
            return
        times, lines, target = factor, x.reshape(outer, taps.size, inner), out.reshape(outer, taps.size, factor, inner)

        def some(share: int) -> None:
            for first, last in todo[share]:
                for k in range(times):
                    np.copyto(target[first:last, :, k], lines[first:last])

        parallel(some, range(len(todo)))

    return _result(shape, axis, len(taps.places)), apply


def transposed_product(space: Workspace, taps: Taps, shape: Sequence[int], axis: int, dtype: np.dtype) -> Step:
    """The product along an axis with the transpose of a matrix; operands as for `product`."""
    factor = _factor(taps)
    if factor is None:
        return product(space, taps.transposed(), shape, axis, dtype)
    outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
    todo = shared_ranges(outer, outer * inner * len(taps.places))

    def apply(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        lines, target = x.reshape(outer, taps.size, factor, inner), out.reshape(outer, taps.size, inner)
        times = factor

        def some(share: int) -> None:
            for first, last in todo[share]:
                total, parts = target[first:last], lines[first:last]
                if times == 1:
                    np.copyto(total, parts[:, :, 0])
                    continue
                np.add(parts[:, :, 0], parts[:, :, 1], out=total)
                for k in range(2, times):
                    np.add(total, parts[:, :, k], out=total)

        parallel(some, range(len(todo)))

    return _result(shape, axis, taps.size), apply


def product(space: Workspace, taps: Taps, shape: Sequence[int], axis: int, dtype: np.dtype) -> Step:
    """The product of a matrix with every line along an axis.

    Compiled where that is wanted, possible and faster; in numpy dense where that is the faster way.

    Args:
        space: where to work.
        taps: the matrix.
        shape: that of the operand.
        axis: not negative.
        dtype: of operand and result, floating-point or complex.
    """
    outer, inner, (rows, entries) = prod(shape[:axis]), prod(shape[axis + 1 :]), taps.places.shape
    sizes = (outer, taps.size, inner), (outer, rows, inner)
    together = max(1, min(outer, _BLOCK // max(1, rows * inner)))
    blocks = [slice(k, min(k + together, outer)) for k in range(0, outer, together)]
    elements = outer * max(rows, taps.size) * inner
    todo, parts = shares(blocks, elements), shared_ranges(outer, elements)
    buffers = [space.array((together, rows, inner), dtype) for _ in todo]
    plain = partial(_sparse, sizes, taps, dtype, todo, buffers)
    dense = taps.size <= _DENSE * entries
    if dense:
        plain = partial(_dense, sizes, taps.dense().astype(dtype), plain, parts)

    def build() -> Apply:
        rank = 2 if inner == 1 else 3
        types = [read(dtype, rank), read(np.int64, 2), read(dtype, 2), write(dtype, rank), "UniTuple(int64, 2)"]
        run = jit(_product_of_lines if rank == 2 else _product, *types)
        places, weights = taps.places.astype(np.int64), taps.weights.astype(dtype)
        if rank == 2:
            places, weights = (np.ascontiguousarray(a.T) for a in (places, weights))

        def apply(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
            if not (x.flags.c_contiguous and out.flags.c_contiguous):
                plain(x, out, work)
                return
            lines, target = x.reshape(sizes[0][:rank]), out.reshape(sizes[1][:rank])

            def some(share: int) -> None:
                for part in parts[share]:
                    run(lines, places, weights, target, part)

            parallel(some, range(len(parts)))

        return apply

    able = enabled() and reals(dtype) and entries and outer * rows * inner and not (dense and inner == 1)
    return _result(shape, axis, rows), compiled(build, plain) if able else plain


def _dense(
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    matrix: np.ndarray,
    otherwise: Apply,
    todo: list[Sequence[tuple[int, int]]],
    x: np.ndarray,
    out: np.ndarray,
    work: np.ndarray,
) -> None:
    """By way of its zeros, a dense matrix spreads what is not finite over whole lines: `otherwise` is for that case."""
    lines, target = x.reshape(sizes[0]), out.reshape(sizes[1])

    def run(share: int) -> None:
        for first, last in todo[share]:
            if sizes[0][2] == 1:
                np.matmul(lines[first:last, :, 0], matrix.T, out=target[first:last, :, 0])
            else:
                np.matmul(matrix, lines[first:last], out=target[first:last])

    parallel(run, range(len(todo)))
    if not np.isfinite(np.add.reduce(out, None)):
        otherwise(x, out, work)


def _sparse(
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    taps: Taps,
    dtype: np.dtype,
    todo: list[Sequence[slice]],
    buffers: list[Place],
    x: np.ndarray,
    out: np.ndarray,
    work: np.ndarray,
) -> None:
    lines, target = x.reshape(sizes[0]), out.reshape(sizes[1])
    entries = [
        (np.ascontiguousarray(places), weights.astype(dtype)[:, None], np.flatnonzero(weights == 0))
        for places, weights in zip(taps.places.T, taps.weights.T, strict=True)
    ]

    def run(share: int) -> None:
        for block in todo[share]:
            part, total = buffers[share](work)[: block.stop - block.start], target[block]
            total.fill(0)
            for places, weights, without in entries:
                np.take(lines[block], places, 1, part, mode="clip")
                np.multiply(part, weights, out=part)
                if without.size:
                    part[:, without] = 0  # filled up, or of no influence
                np.add(total, part, out=total)

    parallel(run, range(len(todo)))


def _product(x: np.ndarray, places: np.ndarray, weights: np.ndarray, out: np.ndarray, part: tuple[int, int]) -> None:
    """``out[o, r, i] = sum over k of weights[r, k] * x[o, places[r, k], i]`` for some o; a weight of 0 does not count."""
    for o in range(part[0], part[1]):
        for r in range(places.shape[0]):
            for i in range(x.shape[2]):
                out[o, r, i] = 0
            for k in range(places.shape[1]):
                weight = weights[r, k]
                if weight != 0:
                    place = places[r, k]
                    for i in range(x.shape[2]):
                        out[o, r, i] += weight * x[o, place, i]


def _product_of_lines(
    x: np.ndarray, places: np.ndarray, weights: np.ndarray, out: np.ndarray, part: tuple[int, int]
) -> None:
    """``out[o, r] = sum over k of weights[k, r] * x[o, places[k, r]]``: the same for lines along the last axis."""
    for o in range(part[0], part[1]):
        for r in range(out.shape[1]):
            out[o, r] = 0
        for k in range(places.shape[0]):
            for r in range(out.shape[1]):
                weight, value = weights[k, r], x[o, places[k, r]]
                out[o, r] += weight * value if weight != 0 else weight
