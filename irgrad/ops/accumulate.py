"""Kernels' way of finding and filling places told by indices that may repeat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irgrad.runtime.fast import compiled, enabled
from irgrad.runtime.jit import jit, read, reals, write
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Workspace, ranges, shares

__all__ = ["accumulate_rows", "added_rows", "check_range", "places_size", "put_rows", "wrapped"]

_CHUNK = 1 << 14  # elements at a time: their positions stay in the cache
_WIDE = 256  # elements of a row from which on one call for each row costs less than work on single elements
_COLUMNS = 32  # elements of a row from which on threads share the columns


def check_range(indices: np.ndarray, size: int) -> bool:
    """Whether there are negative ones among indices along an axis of some size.

    Raises:
        IndexError: one is out of range.
    """
    low, high = (int(indices.min()), int(indices.max())) if indices.size else (0, -1)
    if low < -size or high >= size:
        raise IndexError(f"the index {low if low < -size else high} is out of range for an axis of {size} elements")
    return low < 0


def wrapped(indices: np.ndarray, size: int, out: np.ndarray) -> np.ndarray:
    """Indices along an axis of some size in an array of intp, negative ones counted from the start instead of the end.

    Raises:
        IndexError: one is out of range.
    """
    negative = check_range(indices, size)
    np.copyto(out, indices, casting="same_kind" if indices.dtype.kind == "i" else "unsafe")
    return np.remainder(out, size, out=out) if negative else out


def accumulate_rows(
    ufunc: np.ufunc, target: np.ndarray, rows: np.ndarray, values: np.ndarray, places: np.ndarray | None = None
) -> None:
    """``target[rows[k]] = ufunc(target[rows[k]], values[k])`` for k = 0, 1, 2, ..., in place.

    ``ufunc.at`` is fast for one-dimensional operands only (measured: about 2 ns per element, 5 to 10 times less than for
    rows), hence element by element, a chunk of rows at a time; wide rows one by one.

    Args:
        ufunc: np.add, np.multiply, np.maximum or np.minimum.
        target: contiguous, of shape [n, width].
        rows: of shape [k], each in range(n); a row may come several times.
        values: of shape [k, width].
        places: memory to work in, an array of intp; see `places_size`.
    """
    width = target.shape[1]
    if width >= _WIDE:
        for row, value in zip(rows, values, strict=True):
            place = target[row]
            ufunc(place, value, out=place)
        return
    flat = target.reshape(-1)
    if width == 1:
        ufunc.at(flat, rows, values.reshape(-1))
        return
    chunk = max(1, _CHUNK // max(width, 1))
    if places is None:
        places = np.empty(places_size(len(rows), width), np.intp)
    columns = places[:width]
    columns[...] = np.arange(width)
    for first in range(0, len(rows), chunk):
        some = rows[first : first + chunk]
        numbers = places[width : width + len(some) * width].reshape(len(some), width)
        numbers[...] = some[:, None]
        np.multiply(numbers, width, out=numbers)
        np.add(numbers, columns, out=numbers)
        ufunc.at(flat, numbers.reshape(-1), values[first : first + chunk].reshape(-1))


def places_size(count: int, width: int) -> int:
    """How many numbers `accumulate_rows` keeps of so many rows of some width."""
    if width >= _WIDE or width <= 1:
        return 0
    return width + min(count, max(1, _CHUNK // width)) * width


def put_rows(target: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """``target[rows[k]] = values[k]`` for k = 0, 1, 2, ...: of several values for one row the last one stays."""
    if target.shape[1] == 1 and target.dtype != object:
        np.put(target, rows, values, mode="clip")
    else:
        target[rows] = values


def added_rows(
    space: Workspace, shape: tuple[int, int], count: int, dtype: np.dtype
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
    """``add(target, rows, values, work)``: rows of values added to rows of the target, see `accumulate_rows`.

    Compiled where that is wanted and possible. Threads share the columns of wide rows; were they to share the rows, each
    would look at all indices, and guess wrong at every other one whether it is its own.

    Args:
        space: where to work.
        shape: of the target.
        count: how many rows are added.
        dtype: of all.
    """
    height, width = shape
    place = space.array((places_size(count, width),), np.intp)

    def plain(target: np.ndarray, rows: np.ndarray, values: np.ndarray, work: np.ndarray) -> None:
        accumulate_rows(np.add, target, rows, values, place(work))

    if not (enabled() and reals(dtype) and height and width and count):
        return plain
    pieces = len(shares(range(threads()), count * width)) if width >= _COLUMNS else 1
    parts, rank = ranges(width, pieces), 1 if width == 1 else 2

    def build() -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]:
        types = [write(dtype, rank), read(np.int64, 1), read(dtype, rank), "UniTuple(int64, 2)"]
        run = jit(_add_elements if rank == 1 else _add_rows, *types)

        def add(target: np.ndarray, rows: np.ndarray, values: np.ndarray, work: np.ndarray) -> None:
            if not (target.flags.c_contiguous and values.flags.c_contiguous and rows.dtype == np.int64):
                plain(target, rows, values, work)
                return
            to, of = (target, values) if rank > 1 else (target.reshape(-1), values.reshape(-1))
            parallel(lambda part: run(to, rows, of, part), parts)

        return add

    return compiled(build, plain)


def _add_rows(target: np.ndarray, rows: np.ndarray, values: np.ndarray, part: tuple[int, int]) -> None:
    """What `accumulate_rows` does for np.add, in some columns."""
    for k in range(rows.shape[0]):
        for column in range(part[0], part[1]):
            target[rows[k], column] += values[k, column]


def _add_elements(target: np.ndarray, rows: np.ndarray, values: np.ndarray, part: tuple[int, int]) -> None:
    """The same for rows of one element, flat."""
    for k in range(rows.shape[0]):
        target[rows[k]] += values[k]
