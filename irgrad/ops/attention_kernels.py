"""Scaled dot-product attention on arrays.

Scores are formed, masked and normalised block by block, so that a block stays in the processor's cache and no array of the
size queries x keys is made that nobody asked for. Inside, arrays are grouped: [batch, kv heads, group, sequence, size], and
the query heads that share a head of keys and values have the axis `group` to themselves; of keys and values it has size 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, TypeAlias

import numpy as np

from irgrad.runtime.kernels import accumulation_dtype, deliver_all

__all__ = ["AttentionForm", "attend", "split_heads"]

_BLOCK = 1 << 17
"""Scores that are worked on at a time: half a megabyte of float32."""

Block: TypeAlias = "tuple[slice, slice, slice, slice]"
"""A part of the scores along batch, kv heads, group and queries."""

_ALL = slice(None)


@dataclass(frozen=True)
class AttentionForm:
    """What the attributes of an Attention node say.

    Attributes:
        q_heads: query heads of operands that pack them, [batch, sequence, heads * size]; None where they have an axis.
        kv_heads: the same of keys and values.
        scale: what the products of queries and keys are multiplied by; None for 1 / sqrt(head size).
        causal: query i, whose position is p = i + offset, sees the keys up to p only.
        left: it sees the keys from p - left on; all of them for -1.
        right: it sees the keys up to p + right; all of them for -1.
        softcap: scores s become softcap · tanh(s / softcap) where this is not 0.
        precision: the dtype of the softmax; None for that of the queries.
        shown: what the fourth result holds: scores (0), capped ones (1), masked ones (2), or their softmax (3).
    """

    q_heads: int | None = None
    kv_heads: int | None = None
    scale: float | None = None
    causal: bool = False
    left: int = -1
    right: int = -1
    softcap: float = 0.0
    precision: np.dtype | None = None
    shown: int = 0

    @property
    def reach(self) -> int | None:
        """How far beyond its own position a query sees; None where nothing ends it."""
        if self.causal:
            return 0
        return self.right if self.right >= 0 else None


def split_heads(x: np.ndarray, heads: int | None) -> np.ndarray:
    """The operand as [batch, heads, sequence, size]: a view."""
    if x.ndim == 4:
        return x
    assert heads is not None
    batch, sequence, hidden = x.shape
    return x.reshape(batch, sequence, heads, hidden // heads).swapaxes(1, 2)


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None = None,
    past_key: np.ndarray | None = None,
    past_value: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    *,
    form: AttentionForm,
    n_outputs: int = 1,
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    """The results of an Attention node with `n_outputs` outputs. A query that sees no key gets zeros."""
    wide = accumulation_dtype(q.dtype)
    queries, keys, values = split_heads(q, form.q_heads), split_heads(k, form.kv_heads), split_heads(v, form.kv_heads)
    if past_key is not None and past_value is not None:
        keys, values = np.concatenate((past_key, keys), 2), np.concatenate((past_value, values), 2)
    (batch, heads, rows, size), (kv_heads, total), v_size = queries.shape, keys.shape[1:3], values.shape[3]
    grouped = (batch, kv_heads, heads // kv_heads, rows)
    y = np.empty((batch, rows, heads, v_size) if q.ndim == 3 else (batch, heads, rows, v_size), wide)
    shown = np.zeros((*grouped, total), wide) if n_outputs > 3 else None
    offset = 0 if past_key is None else past_key.shape[2]
    _attend(
        queries.astype(wide, copy=False).reshape(*grouped, size),
        keys.astype(wide, copy=False)[:, :, None],
        values.astype(wide, copy=False)[:, :, None],
        _Visibility(form, mask, lengths, offset, (*grouped, total), wide),
        form,
        None if form.precision in (None, q.dtype, wide) else form.precision,
        (y.swapaxes(1, 2) if q.ndim == 3 else y).reshape(*grouped, v_size),
        shown,
    )
    y = (y.reshape(batch, rows, heads * v_size) if q.ndim == 3 else y).astype(q.dtype, copy=False)
    if shown is None:
        return deliver_all((y, keys, values), out)
    return deliver_all((y, keys, values, shown.reshape(batch, heads, rows, total).astype(q.dtype, copy=False)), out)


def _attend(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    visibility: _Visibility,
    form: AttentionForm,
    precision: np.dtype | None,
    y: np.ndarray,
    shown: np.ndarray | None,
) -> None:
    """Attention on grouped arrays of one dtype, into `y`, and into `shown` (zeros so far) what `form.shown` says."""
    # Of heads of the size 0, products are 0 by any scale.
    scale = queries.dtype.type(1 / sqrt(max(queries.shape[-1], 1)) if form.scale is None else form.scale)
    shape = (*queries.shape[:4], keys.shape[3])
    scratch = np.empty(0, queries.dtype)
    for at in _blocks(shape):
        whole = shown is not None and form.shown != 3
        seen = _ALL if whole else visibility.keys_of(at[3])
        key, value = keys[at[:2]][..., seen, :], values[at[:2]][..., seen, :]
        query = queries[at] * scale
        if shown is not None and form.shown == 3:
            s = shown[at][..., seen]
        else:
            count = prod(query.shape[:-1]) * key.shape[-2]
            scratch = np.empty(count, queries.dtype) if scratch.size < count else scratch
            s = scratch[:count].reshape(*query.shape[:-1], key.shape[-2])
        np.matmul(query, key.swapaxes(-1, -2), out=s)
        if form.shown == 0 and shown is not None:
            shown[at] = s
        if form.softcap:
            np.divide(s, form.softcap, out=s)
            np.tanh(s, out=s)
            np.multiply(s, form.softcap, out=s)
        if form.shown == 1 and shown is not None:
            shown[at] = s
        bias, dead = visibility.bias_of(at, seen)
        if bias is not None:
            np.add(s, bias, out=s)
        if form.shown == 2 and shown is not None:
            shown[at] = s
        if precision is None:
            _softmax(s, dead)
        else:
            rounded = s.astype(precision).astype(accumulation_dtype(precision), copy=False)
            _softmax(rounded, dead)
            s[...] = rounded.astype(precision, copy=False)
        np.matmul(s, value, out=y[at])


def _softmax(s: np.ndarray, dead: np.ndarray | None) -> None:
    """The softmax along the last axis, in place; rows of negative infinities, and those that are `dead`, become zeros."""
    top = np.maximum.reduce(s, -1, keepdims=True, initial=-np.inf)
    top[top == -np.inf] = 0
    np.subtract(s, top, out=s)
    np.exp(s, out=s)
    total = np.add.reduce(s, -1, keepdims=True)
    total[total == 0] = 1
    np.divide(s, total, out=s)
    if dead is not None:
        np.copyto(s, 0, where=dead)


def _blocks(shape: tuple[int, ...]) -> Iterator[Block]:
    """Blocks of an array of the shape [batch, kv heads, group, queries, keys]: whole ones, or as many rows as fit.

    Those of the same rows follow each other, so that what depends on positions only is computed once.
    """
    batch, heads, group, rows, keys = shape
    per_head = max(group * rows * keys, 1)
    tile = rows if per_head <= _BLOCK else max(_BLOCK // max(group * keys, 1), 1)
    some_heads = min(max(_BLOCK // per_head, 1), max(heads, 1))
    some_batches = max(_BLOCK // (per_head * max(heads, 1)), 1)
    for row in range(0, rows, max(tile, 1)):
        for first in range(0, batch, some_batches):
            for head in range(0, heads, some_heads):
                yield slice(first, first + some_batches), slice(head, head + some_heads), _ALL, slice(row, row + tile)


class _Visibility:
    """Which keys a query sees, and what a mask adds to its scores.

    Args:
        form: the attributes.
        mask: booleans (whether a key is seen) or numbers (added to the scores), of up to four axes that are broadcast to
            [batch, heads, queries, keys]; keys beyond the end of its last axis are not seen.
        lengths: for each batch how many keys are seen at all; queries are at the end of these. None for all of them.
        offset: the position of the first query otherwise.
        shape: that of the grouped scores.
        dtype: that of the scores.
    """

    def __init__(
        self,
        form: AttentionForm,
        mask: np.ndarray | None,
        lengths: np.ndarray | None,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        self._form, self._offset, self._shape, self._dtype = form, offset, shape, dtype
        self._lengths = None if lengths is None else lengths.reshape(-1, 1, 1, 1, 1)
        self._mask = None if mask is None else self._grouped(mask)
        self._last: tuple[tuple[int | None, ...], tuple[np.ndarray | None, np.ndarray | None]] | None = None

    def _grouped(self, mask: np.ndarray) -> np.ndarray:
        _, heads, group, _, keys = self._shape
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        if mask.shape[3] < keys:
            filler = np.zeros(1, np.bool_) if mask.dtype == np.bool_ else np.full(1, -np.inf, self._dtype)
            missing = np.broadcast_to(filler, (*mask.shape[:3], keys - mask.shape[3]))
            mask = np.concatenate((mask if mask.dtype == np.bool_ else mask.astype(self._dtype), missing), 3)
        by_head = (heads, group) if mask.shape[1] == heads * group else (1, 1)
        return mask.reshape(mask.shape[0], *by_head, *mask.shape[2:])

    def keys_of(self, rows: slice) -> slice:
        """The keys outside which no query of some rows sees any, where these are the same in every batch."""
        reach, total = self._form.reach, self._shape[4]
        if self._lengths is not None:
            return _ALL
        stop = total if reach is None else min(max(min(rows.stop, self._shape[3]) + self._offset + reach, 0), total)
        start = 0 if self._form.left < 0 else min(max(rows.start + self._offset - self._form.left, 0), stop)
        return slice(start, stop)

    def bias_of(self, at: Block, keys: slice) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What is added to a block of scores, and which of its rows see no key at all; None for nothing, and for none."""
        everywhere, dead = self._by_position(at[3], keys)
        bias = None if everywhere is None else _part(everywhere, (at[0], _ALL, _ALL, _ALL, _ALL))
        if self._mask is None:
            return bias, None if dead is None else _part(dead, (at[0], _ALL, _ALL, _ALL, _ALL))
        mask = _part(self._mask, (*at, keys))
        if mask.dtype == np.bool_:
            bias = np.where(mask, self._dtype.type(0) if bias is None else bias, self._dtype.type(-np.inf))
        else:
            mask = mask.astype(self._dtype, copy=False)
            bias = mask if bias is None else mask + bias
        return bias, _dead(bias)

    def _by_position(self, rows: slice, keys: slice) -> tuple[np.ndarray | None, np.ndarray | None]:
        """0 or -inf for the queries of some rows, [batch or 1, 1, 1, rows, keys], and which of the rows see no key."""
        place = (rows.start, keys.start, keys.stop)
        if self._last is None or self._last[0] != place:
            seen = self._seen(rows, keys)
            bias = None if seen is None else np.where(seen, self._dtype.type(0), self._dtype.type(-np.inf))
            self._last = place, (bias, None if bias is None else _dead(bias))
        return self._last[1]

    def _seen(self, rows: slice, keys: slice) -> np.ndarray | None:
        form, reach = self._form, self._form.reach
        key = np.arange(self._shape[4])[keys]
        position = np.arange(self._shape[3])[rows][:, None]
        position = position + (self._offset if self._lengths is None else self._lengths - self._shape[3])
        conditions = []
        if reach is not None:
            conditions.append(key <= position + reach)
        if form.left >= 0:
            conditions.append(key >= position - form.left)
        if self._lengths is not None:
            conditions.append(key < self._lengths)
        if not conditions:
            return None
        seen = np.logical_and.reduce(np.broadcast_arrays(*conditions))
        return np.asarray(seen.reshape((1,) * (5 - seen.ndim) + seen.shape))


def _dead(bias: np.ndarray) -> np.ndarray | None:
    """Which rows of a bias are -inf throughout; None where there is none."""
    dead = np.maximum.reduce(bias, -1, keepdims=True, initial=-np.inf) == -np.inf
    return np.asarray(dead) if dead.any() else None


def _part(array: np.ndarray, at: tuple[slice, ...]) -> np.ndarray:
    """A part of an array that is broadcast along its axes of size 1."""
    return array[tuple(_ALL if size == 1 else place for size, place in zip(array.shape, at, strict=True))]
