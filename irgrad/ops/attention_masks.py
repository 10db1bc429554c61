"""Which keys a query sees, and what a mask adds to its scores, block by block.

What is not seen gets -inf, the logarithm of 0, added to its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from irgrad.runtime.workspace import Place, Workspace

__all__ = ["Masks", "Visible", "Window"]

_ALL = slice(None)


class Window(Protocol):
    """How far queries see, see `AttentionForm`."""

    @property
    def left(self) -> int: ...

    @property
    def reach(self) -> int | None: ...


class Masks:
    """What is known before a run.

    Args:
        space: where temporary arrays get their places.
        window: how far queries see.
        scores: the sizes of the grouped scores.
        most: the sizes along batch, kv heads and rows that a block has at most.
        shares: how many blocks are worked on at the same time.
        mask: shape and dtype of a mask (booleans: whether a key is seen; or numbers, added to the scores) of up to four axes
            that are broadcast to [batch, heads, queries, keys]; keys beyond the end of its last axis are not seen.
        lengths: whether there is a number of keys that are seen at all for each batch; queries are at the end of these.
        offset: the position of the first query otherwise.
        dtype: that of the scores.
    """

    def __init__(
        self,
        space: Workspace,
        window: Window,
        scores: tuple[int, int, int, int, int],
        most: tuple[int, int, int],
        shares: int,
        mask: tuple[Sequence[int], np.dtype] | None,
        lengths: bool,
        offset: int,
        dtype: np.dtype,
    ) -> None:
        self.window, self.scores, self.dtype, self.lengths, self.offset = window, scores, dtype, lengths, offset
        _, heads, group, queries, keys = scores
        batches, some_heads, rows = most
        self._differences = np.arange(-queries, keys, dtype=np.int32)
        self.positional = lengths or window.reach is not None or window.left >= 0
        count = (batches if lengths else 1) * rows * keys
        self.seen: list[Place | None] = [None] * shares
        self.bias: list[Place | None] = [None] * shares
        self.part: list[Place | None] = [None] * shares
        self.whole: Place | None = None
        if self.positional:
            self.seen = [space.array((2, count), np.bool_) for _ in range(shares)]
            self.bias = [space.array((count,), dtype) for _ in range(shares)]
        if mask is not None:
            shape, kind = mask
            full = (1,) * (4 - len(shape)) + tuple(shape)
            by_head = (heads, group) if full[1] == heads * group else (1, 1)
            self.mask_shape = (full[0], *by_head, full[2], keys)
            if full[3] < keys:
                self.whole = space.array((*full[:3], keys), kind)
            if kind != dtype:
                sizes = [1 if a == 1 else b for a, b in zip(full[:3], (batches, some_heads * group, rows), strict=True)]
                self.part = [space.array((prod(sizes) * keys,), dtype) for _ in range(shares)]

    def differences(self, rows: slice, keys: slice) -> np.ndarray:
        """For some queries and keys, as a view, the number of the key minus that of the query."""
        start = keys.start - rows.start + self.scores[3]
        shape, step = (rows.stop - rows.start, keys.stop - keys.start), self._differences.itemsize
        return np.lib.stride_tricks.as_strided(self._differences[start:], shape, (-step, step), writeable=False)

    def extended(self, mask: np.ndarray, work: np.ndarray) -> np.ndarray:
        """A mask with all its axes, to the last key."""
        if self.whole is not None:
            whole = self.whole(work)
            whole[..., : mask.shape[-1]] = mask
            whole[..., mask.shape[-1] :] = False if mask.dtype == np.bool_ else -np.inf
            mask = whole
        return mask.reshape(self.mask_shape)


class Visible:
    """What one share of a run needs to know: the mask as `Masks.extended` gives it, or None, and the lengths, or None."""

    def __init__(
        self, masks: Masks, share: int, mask: np.ndarray | None, lengths: np.ndarray | None, work: np.ndarray
    ) -> None:
        self._masks, self._share, self._mask, self._work = masks, share, mask, work
        self._lengths = lengths
        self._last: tuple[Any, np.ndarray | None] = (None, None)

    def keys_of(self, rows: slice) -> slice:
        """The keys outside which no query of some rows sees any, where these are the same in every batch."""
        masks, window = self._masks, self._masks.window
        total = masks.scores[4]
        if self._lengths is not None:
            return slice(0, total)
        reach = window.reach
        stop = total if reach is None else min(max(rows.stop + masks.offset + reach, 0), total)
        start = 0 if window.left < 0 else min(max(rows.start + masks.offset - window.left, 0), stop)
        return slice(start, stop)

    def biases(self, at: tuple[slice, ...], keys: slice) -> list[np.ndarray]:
        """What is added to the scores of a block for some keys: arrays that are broadcast to it."""
        found = []
        if self._masks.positional:
            found.append(self._by_position(at[0], at[3], keys))
        if self._mask is not None:
            part = self._mask[tuple(_ALL if n == 1 else cut for n, cut in zip(self._mask.shape, (*at, keys), strict=True))]
            room = self._masks.part[self._share]
            if room is not None:
                place = room(self._work)[: part.size].reshape(part.shape)
                np.copyto(place, part, casting="same_kind")
                part = _logarithm(place) if self._mask.dtype == np.bool_ else place
            found.append(part)
        return found

    @staticmethod
    def dead(biases: Sequence[np.ndarray]) -> np.ndarray:
        """Which rows of a block see no key at all."""
        total = sum(biases[1:], start=biases[0])
        return np.asarray(np.maximum.reduce(total, -1, keepdims=True, initial=-np.inf) == -np.inf)

    def _by_position(self, batches: slice, rows: slice, keys: slice) -> np.ndarray:
        place = (rows.start, keys.start, keys.stop, None if self._lengths is None else batches.start)
        if self._last[0] == place and self._last[1] is not None:
            return self._last[1]
        masks = self._masks
        lengths = [None] if self._lengths is None else self._lengths[batches].reshape(-1).tolist()
        differences = masks.differences(rows, keys)
        shape = (len(lengths), *differences.shape)
        seen_place, bias_place = masks.seen[self._share], masks.bias[self._share]
        assert seen_place is not None and bias_place is not None
        seen, more = (room[: prod(shape)].reshape(shape) for room in seen_place(self._work))
        reach, left = masks.window.reach, masks.window.left
        for length, mine, other in zip(lengths, seen, more, strict=True):
            offset = masks.offset if length is None else length - masks.scores[3]
            if reach is None:
                mine.fill(True)
            else:
                np.less_equal(differences, offset + reach, out=mine)
            if left >= 0:
                np.logical_and(mine, np.greater_equal(differences, offset - left, out=other), out=mine)
            if length is not None:
                mine[:, max(length - keys.start, 0) :] = False
        bias = bias_place(self._work)[: seen.size].reshape(shape)
        np.copyto(bias, seen)
        _logarithm(bias)
        bias = bias.reshape(shape[0], 1, 1, *shape[1:])
        self._last = place, bias
        return bias


def _logarithm(x: np.ndarray) -> np.ndarray:
    """0 for 1 and -inf for 0, in place."""
    with np.errstate(divide="ignore"):
        np.log(x, out=x)
    return x
