"""Counting n-grams: which of a known set of short sequences of tokens occur in rows of tokens, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError

__all__ = ["NGrams"]


class NGrams:
    """A set of n-grams.

    Args:
        pool: all 1-grams, then all 2-grams, and so on, token after token.
        starts: where in the pool the n-grams of each length begin.
        shortest: the length of the shortest n-grams that count.
        longest: that of the longest.
        skips: up to how many tokens may lie between two tokens of an n-gram; as many between any two of them.

    Raises:
        ExecutionError: the pool cannot be cut like this.

    Attributes:
        count: how many n-grams there are in the pool, of whatever length.
    """

    def __init__(self, pool: Sequence[Any], starts: Sequence[int], shortest: int, longest: int, skips: int) -> None:
        tokens = np.array(pool, object if pool and isinstance(pool[0], str) else np.int64)
        self._vocabulary, ids = np.unique(tokens, return_inverse=True)
        self._skips = skips
        self.count = 0
        self._sets: list[tuple[int, _Set]] = []
        for length, (start, stop) in enumerate(zip(starts, [*starts[1:], len(pool)], strict=True), 1):
            grams, rest = divmod(stop - start, length)
            if start < 0 or grams < 0 or rest:
                raise ExecutionError(f"the tokens from {start} to {stop} of the pool are not {length}-grams")
            if shortest <= length <= longest and grams:
                self._sets.append((self.count, _Set(ids[start:stop].reshape(grams, length), len(self._vocabulary))))
            self.count += grams

    def occurrences(self, rows: np.ndarray) -> np.ndarray:
        """How often each n-gram occurs in each row, shape [rows, count]."""
        ids = _places(self._vocabulary, rows)
        found = np.zeros((len(rows), self.count), np.int64)
        for first, grams in self._sets:
            found[:, first : first + grams.count] = sum(grams.occurrences(w) for w in self._windows(ids, grams.length))
        return found

    def _windows(self, ids: np.ndarray, length: int) -> Iterator[np.ndarray]:
        """All that may be an n-gram of some length: [rows, positions, length], once for each distance of its tokens."""
        for step in range(1, self._skips + 2 if length > 1 else 2):
            positions = max(ids.shape[1] - step * (length - 1), 0)
            places = np.arange(positions)[:, None] + step * np.arange(length)
            yield ids[:, places]


class _Set:
    """Different n-grams of one length.

    The tokens of an n-gram are merged into one number, from the left, one after the other: the pair of that number and the
    next token becomes its place among all such pairs that there are.

    Args:
        grams: tokens, numbers below `vocabulary`, of shape [count, length].
        vocabulary: how many tokens there are.
    """

    def __init__(self, grams: np.ndarray, vocabulary: int) -> None:
        self.count, self.length = grams.shape
        self._vocabulary = vocabulary
        self._pairs: list[np.ndarray] = []
        merged = np.zeros(self.count, np.int64)
        for token in grams.T:
            pairs, merged = np.unique(merged * vocabulary + token, return_inverse=True)
            self._pairs.append(pairs)
        self._merged = merged

    def occurrences(self, windows: np.ndarray) -> np.ndarray:
        """How often each n-gram is among the windows [rows, positions, length] of each row; an unknown token is -1."""
        merged = np.zeros(windows.shape[:2], np.int64)
        for pairs, token in zip(self._pairs, np.moveaxis(windows, -1, 0), strict=True):
            known = (merged >= 0) & (token >= 0)
            merged = np.where(known, _places(pairs, merged * self._vocabulary + token), -1)
        different = len(self._pairs[-1])
        row, position = np.nonzero(merged >= 0)
        counts = np.bincount(row * different + merged[row, position], minlength=len(windows) * different)
        return counts.reshape(len(windows), different)[:, self._merged]


def _places(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The places of values in a sorted array, -1 for one that is not there."""
    if not known.size:
        return np.full(values.shape, -1, np.int64)
    places = np.minimum(np.searchsorted(known, values), known.size - 1)
    return np.where(known[places] == values, places, -1)
