"""GatherElements, and ScatterElements that adds: the forms that numba compiles, which need no positions."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from irgrad.op import Call, Kernel, WorkspaceKernel
from irgrad.ops.accumulate import check_range
from irgrad.runtime.fast import compiled, enabled
from irgrad.runtime.jit import jit, read, reals, write
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import ranges, shares

__all__ = ["adding_elements", "picking_elements"]


class _Lines:
    """x as [outer, size, inner] and indices as [outer, count, inner], and how threads share the work.

    Args:
        call: its first operand is x and its second the indices, along an `axis`.
    """

    def __init__(self, call: Call) -> None:
        x, indices = call.tensor(0), call.tensor(1)
        assert x.static_shape is not None and indices.static_shape is not None
        self.dtype, self.index_dtype = x.dtype, indices.dtype
        self.shape, self.places, rank = x.static_shape, indices.static_shape, len(x.static_shape)
        axis = call.attrs["axis"] % max(rank, 1)
        before, behind = slice(axis), slice(axis + 1, rank)
        self.aligned = rank > 0 and all(self.shape[s] == self.places[s] for s in (before, behind))
        outer, inner = prod(self.shape[before]), prod(self.shape[behind])
        self.size, self.narrow = prod(self.shape[axis : axis + 1]), inner == 1
        self.x, self.indices = (outer, self.size, inner), (outer, prod(self.places[axis : axis + 1]), inner)
        parts = [(*part, 0, inner) for part in ranges(outer)] if outer > 1 else [(0, outer, *part) for part in ranges(inner)]
        self.todo = shares(parts, prod(self.places))

    @property
    def compilable(self) -> bool:
        """Whether it can be compiled, and is worth it and wanted."""
        fit = self.index_dtype in (np.int32, np.int64) and reals(self.dtype) and self.aligned
        return enabled() and fit and prod(self.x) > 0 and prod(self.indices) > 0

    def run(self, function: Callable[..., Any], *arrays: np.ndarray) -> None:
        """Call a function with arrays and each part of the work."""

        def some(share: int) -> None:
            for part in self.todo[share]:
                function(*arrays, part)

        parallel(some, range(len(self.todo)))


_PART = "UniTuple(int64, 4)"


def picking_elements(call: Call, plain: Kernel) -> Kernel:
    """GatherElements, compiled where that is wanted and possible.

    Args:
        call: with static shapes.
        plain: numpy's form.
    """
    lines = _Lines(call)
    if not lines.compilable:
        return plain
    assert isinstance(plain, WorkspaceKernel)
    function, rank = plain.function, 2 if lines.narrow else 3
    shapes = [s[:rank] for s in (lines.x, lines.indices, lines.indices)]

    def build() -> Kernel:
        types = [read(lines.dtype, rank), read(lines.index_dtype, rank), write(lines.dtype, rank)]
        run = jit(_pick_in_lines if lines.narrow else _pick, *types, _PART)

        def kernel(x: np.ndarray, places: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> Any:
            y = np.empty(lines.places, lines.dtype) if out is None else out
            arrays = x, places, y
            if not all(a.flags.c_contiguous for a in arrays):
                return function(x, places, out=y, work=work)
            check_range(places, lines.size)
            lines.run(run, *(a.reshape(s) for a, s in zip(arrays, shapes, strict=True)))
            return y

        return kernel

    return compiled(build, plain)


def adding_elements(call: Call, plain: Kernel) -> Kernel:
    """ScatterElements with the reduction "add", compiled where that is wanted and possible; operands as above."""
    lines = _Lines(call)
    if not lines.compilable or len(lines.todo) == 1:
        return plain
    assert isinstance(plain, WorkspaceKernel)
    function, rank = plain.function, 2 if lines.narrow else 3
    shapes = [s[:rank] for s in (lines.x, lines.indices, lines.indices)]

    def build() -> Kernel:
        types = [write(lines.dtype, rank), read(lines.index_dtype, rank), read(lines.dtype, rank)]
        run = jit(_add_in_lines if lines.narrow else _add, *types, _PART)

        def kernel(
            x: np.ndarray, places: np.ndarray, updates: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray
        ) -> Any:
            y = np.empty(lines.shape, lines.dtype) if out is None else out
            arrays = y, places, updates
            if not all(a.flags.c_contiguous for a in arrays):
                return function(x, places, updates, out=y, work=work)
            check_range(places, lines.size)
            np.copyto(y, x)
            lines.run(run, *(a.reshape(s) for a, s in zip(arrays, shapes, strict=True)))
            return y

        return kernel

    return compiled(build, plain)


def _pick(x: np.ndarray, indices: np.ndarray, y: np.ndarray, part: tuple[int, int, int, int]) -> None:
    """``y[o, j, i] = x[o, indices[o, j, i], i]`` for some o and i."""
    for o in range(part[0], part[1]):
        for j in range(indices.shape[1]):
            for i in range(part[2], part[3]):
                place = np.int64(indices[o, j, i])
                y[o, j, i] = x[o, place + x.shape[1] if place < 0 else place, i]


def _pick_in_lines(x: np.ndarray, indices: np.ndarray, y: np.ndarray, part: tuple[int, int, int, int]) -> None:
    """The same without the last axis, which would make an inner loop of one round."""
    for o in range(part[0], part[1]):
        for j in range(indices.shape[1]):
            place = np.int64(indices[o, j])
            y[o, j] = x[o, place + x.shape[1] if place < 0 else place]


def _add(target: np.ndarray, indices: np.ndarray, updates: np.ndarray, part: tuple[int, int, int, int]) -> None:
    """``target[o, indices[o, j, i], i] += updates[o, j, i]`` for some o and i, and every j in order."""
    for o in range(part[0], part[1]):
        for j in range(indices.shape[1]):
            for i in range(part[2], part[3]):
                place = np.int64(indices[o, j, i])
                target[o, place + target.shape[1] if place < 0 else place, i] += updates[o, j, i]


def _add_in_lines(target: np.ndarray, indices: np.ndarray, updates: np.ndarray, part: tuple[int, int, int, int]) -> None:
    """The same without the last axis."""
    for o in range(part[0], part[1]):
        for j in range(indices.shape[1]):
            place = np.int64(indices[o, j])
            target[o, place + target.shape[1] if place < 0 else place] += updates[o, j]
