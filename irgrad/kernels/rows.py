"""Arrays as [outer, along, inner], in blocks that fit into a processor's cache, shared out among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Place, Workspace

__all__ = ["BLOCK", "Block", "RowDots", "Rows"]

BLOCK = 1 << 15
"""Elements of a block: a few temporaries of its size stay in the second-level cache."""

_NARROW = 16  # elements that should lie side by side where a block does not take in whole rows
_PIECE = 1024  # products that are added up one after another, four at a time
_WORTH = 1 << 16  # elements from which on a second thread is worth waking for a handful of passes


@dataclass(frozen=True)
class Block:
    """A part of an array.

    Attributes:
        outer, inner: which part, along the first and the last axis.
        share: by whom of those that work at the same time it is worked on.
        number: its place among all blocks.
    """

    outer: slice
    inner: slice
    share: int
    number: int


class Rows:
    """How an array is cut into blocks.

    Args:
        outer: the product of the axes before those that the work is done along.
        along: the product of these.
        inner: the product of the axes behind them.

    Attributes:
        shape: the three.
        shares: how many blocks are worked on at the same time at most.
        columns: along how many rows and columns a block reaches at most: the size that a temporary array needs.
    """

    def __init__(self, outer: int, along: int, inner: int = 1) -> None:
        self.shape = outer, along, inner
        size = along * inner
        rows = max(1, min(outer, BLOCK // max(size, 1)))
        columns = inner if size <= BLOCK else min(inner, max(BLOCK // max(along, 1), _NARROW))
        self.columns = rows, columns
        count = -(-outer // rows) * -(-inner // max(columns, 1)) if outer * size else 0
        self.shares = max(1, min(threads(), count, outer * size // _WORTH))
        if 1 < count < 4 * self.shares and rows > 1:  # smaller blocks, so that all have something to do
            rows = max(1, -(-outer // (4 * self.shares)))
        self.blocks: list[Block] = []
        if outer * size:
            for first in range(0, outer, rows):
                for column in range(0, inner, columns):
                    number = len(self.blocks)
                    at = slice(first, min(first + rows, outer)), slice(column, min(column + columns, inner))
                    self.blocks.append(Block(*at, number % self.shares, number))
        self._shared = [self.blocks[share :: self.shares] for share in range(self.shares)]

    @classmethod
    def over(cls, shape: Sequence[int], first: int, last: int | None = None) -> Rows:
        """For work along the axes from `first` up to (not including) `last`."""
        last = len(shape) if last is None else last
        return cls(prod(shape[:first]), prod(shape[first:last]), prod(shape[last:]))

    def of(self, x: np.ndarray) -> np.ndarray:
        """An array in the three axes."""
        return x.reshape(self.shape)

    def run(self, function: Callable[[Block], Any]) -> None:
        """Call a function for every block."""

        def work(blocks: Sequence[Block]) -> None:
            for block in blocks:
                function(block)

        parallel(work, self._shared)

    def temporaries(self, space: Workspace, dtype: np.dtype, count: int = 1) -> list[Place]:
        """For each share room for so many arrays of the size of a block, as one with a leading axis."""
        rows, columns = self.columns
        return [space.array((count, rows * self.shape[1] * columns), dtype) for _ in range(self.shares)]

    def statistics(self, space: Workspace, dtype: np.dtype, count: int = 1) -> list[Place]:
        """For each share room for so many numbers for each row and column of a block."""
        return [space.array((count, prod(self.columns)), dtype) for _ in range(self.shares)]


class RowDots:
    """Sums along rows, of an array's elements or of the products of two arrays' (two axes each).

    Args:
        rows: how many rows there are at most.
        length: of a row.
    """

    def __init__(self, space: Workspace, rows: int, length: int, dtype: np.dtype) -> None:
        self._starts = range(0, length, _PIECE)
        self._parts = space.array((rows, len(self._starts)), dtype) if length > _PIECE else None

    def __call__(self, *operands: np.ndarray, out: np.ndarray, work: np.ndarray) -> np.ndarray:
        """The sums into `out`, which has one axis."""
        terms = "ij->i" if len(operands) == 1 else "ij,ij->i"
        if self._parts is None:
            np.einsum(terms, *operands, out=out)
            return out
        parts = self._parts(work)[: len(out)]
        for k, start in enumerate(self._starts):
            np.einsum(terms, *(a[:, start : start + _PIECE] for a in operands), out=parts[:, k])
        np.add.reduce(parts, 1, out=out)
        return out
