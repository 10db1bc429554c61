"""Offsets in one block of memory for what lives during known spans of time, such that nothing that lives together overlaps.

Finding the smallest block is NP-hard (it is bin packing in disguise); the most bytes that live at one time are a lower
bound. On training graphs one of a few orders nearly always reaches it: place each item, in that order, into the tightest gap
between what is placed already and lives at the same time (greedy by size: Pisarchyk and Lee, Efficient Memory Management for
Deep Neural Net Inference, 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np

__all__ = ["ALIGNMENT", "Item", "Packing", "aligned", "lower_bound", "pack", "pack_into"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
_ATTEMPTS = 400  # further orders, where none of the simple ones is as small as can be
_GOOD_ENOUGH = 1.01
_PLACEMENTS = 40_000  # of single items, for those: about a second


class Item(NamedTuple):
    """Something that needs memory.

    Attributes:
        size: bytes.
        begin: the first step during which it lives.
        end: the last one.
    """

    size: int
    begin: int
    end: int


@dataclass(frozen=True)
class Packing:
    """Where everything lies.

    Attributes:
        offsets: the first byte of each item, a multiple of `ALIGNMENT`.
        size: bytes of the block.
        bound: no block is smaller than this.
    """

    offsets: tuple[int, ...]
    size: int
    bound: int


def lower_bound(items: Sequence[Item]) -> int:
    """The most bytes that live at one time, sizes rounded up to the alignment."""
    if not items:
        return 0
    changes = np.zeros(max(item.end for item in items) + 2, np.int64)
    for item in items:
        size = aligned(item.size)
        changes[item.begin] += size
        changes[item.end + 1] -= size
    return int(np.cumsum(changes).max())


def pack(items: Sequence[Item]) -> Packing:
    """Offsets for items: of several orders the one that gives the smallest block. Deterministic.

    The time is that of numpy over all items for each item and order; the first order that reaches the bound is the last.
    """
    bound = lower_bound(items)
    best: tuple[int, list[int]] | None = None
    order: list[int] = []
    for key in _ORDERS:
        candidate = sorted(range(len(items)), key=lambda k: (*key(items[k]), k))
        size, offsets = _place(items, candidate)
        if best is None or size < best[0]:
            best, order = (size, offsets), candidate
        if best[0] == bound:
            break
    assert best is not None
    draw = Random(0)
    for _ in range(min(_ATTEMPTS, _PLACEMENTS // max(1, len(items)))):
        if best[0] <= bound * _GOOD_ENOUGH:
            break
        # What sticks out at the top was placed too late: it goes first, with something else, so that no order comes twice.
        size, offsets = best
        first = {k for k in order if offsets[k] + aligned(items[k].size) == size} | {draw.randrange(len(items))}
        candidate = sorted(order, key=lambda k, first=first: k not in first)  # type: ignore[misc]
        found = _place(items, candidate)
        if found[0] <= best[0]:
            best, order = found, candidate
    return Packing(tuple(best[1]), best[0], bound)


def pack_into(items: Sequence[Item], rooms: Sequence[Item]) -> list[tuple[int, int] | None]:
    """Places for items in memory that stands empty until it is needed for something else.

    Args:
        items: what needs memory.
        rooms: memory that is free before the step at which each begins.

    Returns:
        For each item the room (its position) and the offset there, None where there is no room for it. The largest items
        choose first, and take the smallest room.
    """
    places: list[tuple[int, int] | None] = [None] * len(items)
    smallest_first = sorted(range(len(rooms)), key=lambda r: (rooms[r].size, r))
    guests: list[list[int]] = [[] for _ in rooms]
    for k in sorted(range(len(items)), key=lambda k: (-items[k].size, k)):
        item, size = items[k], aligned(items[k].size)
        for r in smallest_first:
            if rooms[r].size < item.size or rooms[r].begin <= item.end:
                continue
            beside = [j for j in guests[r] if items[j].begin <= item.end and items[j].end >= item.begin]
            lows = np.array([places[j][1] for j in beside], np.int64)  # type: ignore[index]
            offset = _tightest_gap(lows, lows + [aligned(items[j].size) for j in beside], size)
            if offset + item.size <= rooms[r].size:
                places[k] = r, offset
                guests[r].append(k)
                break
    return places


_Order = Callable[[Item], tuple[int, ...]]

_ORDERS: tuple[_Order, ...] = (
    lambda i: (-i.size, i.begin),
    lambda i: (i.begin - i.end, -i.size),  # duration
    lambda i: (-i.size * (i.end - i.begin + 1), i.begin),
    lambda i: (-(i.size.bit_length()), i.begin - i.end),  # about the same size: the longer one first
    lambda i: (i.begin, -i.size),  # as an allocator would meet them
)


def _place(items: Sequence[Item], order: Sequence[int]) -> tuple[int, list[int]]:
    """The size of the block and the offsets, where items are placed in that order, each into the tightest gap."""
    begins, ends = np.empty(len(items), np.int64), np.empty(len(items), np.int64)
    lows, highs = np.empty(len(items), np.int64), np.empty(len(items), np.int64)
    offsets, total = [0] * len(items), 0
    for placed, k in enumerate(order):
        item, size = items[k], aligned(items[k].size)
        together = (begins[:placed] <= item.end) & (ends[:placed] >= item.begin)
        low, high = lows[:placed][together], highs[:placed][together]
        offset = _tightest_gap(low, high, size) if size else 0
        begins[placed], ends[placed], lows[placed], highs[placed] = item.begin, item.end, offset, offset + size
        offsets[k] = offset
        total = max(total, offset + size)
    return total, offsets


def _tightest_gap(lows: np.ndarray, highs: np.ndarray, size: int) -> int:
    """The offset of the smallest gap between intervals that holds so many bytes; else what lies above all of them."""
    if not lows.size:
        return 0
    order = np.argsort(lows, kind="stable")
    tops = np.maximum.accumulate(highs[order])
    starts = np.concatenate(([0], tops[:-1]))
    gaps = lows[order] - starts
    fits = np.flatnonzero(gaps >= size)
    return int(starts[fits[np.argmin(gaps[fits])]]) if fits.size else int(tops[-1])


def aligned(size: int) -> int:
    """A number of bytes, rounded up to a multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT
