"""Scaled dot-product attention on arrays.

Scores are formed, masked and normalised block by block, so that a block stays in the processor's cache and no array of the
size queries x keys is made that nobody asked for. Inside, arrays are grouped: [batch, kv heads, group, sequence, size], and
the query heads that share a head of keys and values have the axis `group` to themselves; of keys and values it has size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod, sqrt
from typing import Any

import numpy as np

from irgrad.kernels.products import multiply
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.wide import Wide
from irgrad.op import Call, Kernel, WorkspaceKernel
from irgrad.ops.attention_masks import Masks, Visible
from irgrad.runtime import fast
from irgrad.runtime.jit import jit, reals, write
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Workspace

__all__ = ["AttentionForm", "Blocks", "Exponentials", "Scores", "Sizes", "attention", "masks_of", "split_heads"]

_BLOCK = 1 << 17
"""Scores that are worked on at a time: half a megabyte of float32."""

_WORTH = 1 << 16
"""Scores from which on a second thread is worth waking."""

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


@dataclass(frozen=True)
class Sizes:
    """The sizes of grouped arrays, those of heads last."""

    batch: int
    heads: int
    group: int
    rows: int
    keys: int
    size: int
    v_size: int

    @classmethod
    def of(cls, form: AttentionForm, q: Sequence[int], k: Sequence[int], v: Sequence[int], past: int) -> Sizes:
        """Those of operands of some shapes, with so many keys and values before them."""

        def unpacked(shape: Sequence[int], heads: int | None) -> Sequence[int]:
            if len(shape) == 4:
                return shape
            assert heads is not None
            return shape[0], heads, shape[1], shape[2] // heads

        (batch, heads, rows, size), key = unpacked(q, form.q_heads), unpacked(k, form.kv_heads)
        group = heads // key[1] if key[1] else 0
        return cls(batch, key[1], group, rows, past + key[2], size, unpacked(v, form.kv_heads)[3])

    @property
    def grouped(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.group, self.rows


class Blocks:
    """How scores are cut into blocks: units of some heads of some batch elements, and of these tiles of rows.

    Attributes:
        shared: for each share its units.
        tiles: the rows of each tile.
        most: the sizes along batch, kv heads and rows that a block has at most.
    """

    def __init__(self, sizes: Sizes) -> None:
        per_head = max(sizes.group * sizes.rows * sizes.keys, 1)
        tile = sizes.rows if per_head <= _BLOCK else max(_BLOCK // max(sizes.group * sizes.keys, 1), 1)
        count = max(1, min(threads(), sizes.batch * sizes.heads, sizes.batch * sizes.heads * per_head // _WORTH))
        fitting = max(min(_BLOCK // per_head, -(-sizes.batch * sizes.heads // count)), 1)
        heads = max(min(fitting, sizes.heads), 1)
        batches = max(min(fitting // heads, sizes.batch), 1) if heads == sizes.heads else 1
        self.tiles = [slice(row, min(row + tile, sizes.rows)) for row in range(0, sizes.rows, max(tile, 1))]
        units = [
            (slice(first, min(first + batches, sizes.batch)), slice(head, min(head + heads, sizes.heads)))
            for first in range(0, sizes.batch, batches)
            for head in range(0, sizes.heads, heads)
        ]
        self.shared = [units[share::count] for share in range(count)]
        self.most = batches, heads, min(max(tile, 1), sizes.rows)


class Scores:
    """What a share needs to form the probabilities of a block.

    Attributes:
        scale: what the products of queries and keys are multiplied by.
    """

    def __init__(
        self,
        space: Workspace,
        form: AttentionForm,
        sizes: Sizes,
        blocks: Blocks,
        dtype: np.dtype,
        exponentials: Exponentials,
        precision: np.dtype | None = None,
    ) -> None:
        batches, heads, rows = blocks.most
        self._form, self._precision, self._exponentials = form, precision, exponentials
        self.scale = dtype.type(1 / sqrt(max(sizes.size, 1)) if form.scale is None else form.scale)
        queries = batches * heads * sizes.group * rows
        self._scores = space.array((queries * sizes.keys,), dtype)
        self._query = space.array((queries * sizes.size,), dtype)
        self._numbers = space.array((2, queries), dtype)

    def query(self, queries: np.ndarray, work: np.ndarray) -> np.ndarray:
        """The queries of a block times the scale."""
        scaled = self._query(work)[: queries.size].reshape(queries.shape)
        np.multiply(queries, self.scale, out=scaled)
        return scaled

    def of(
        self,
        query: np.ndarray,
        key: np.ndarray,
        at: tuple[slice, ...],
        seen: slice,
        visible: Visible,
        shown: np.ndarray | None,
        work: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The exponentials of a block's scores, and what they have to be divided by; 0 and no 0 where nothing is seen."""
        form = self._form
        s = self._scores(work)[: prod(query.shape[:-1]) * key.shape[-2]].reshape(*query.shape[:-1], key.shape[-2])
        multiply(query, key.swapaxes(-1, -2), s)
        if shown is not None and form.shown == 0:
            shown[at] = s
        if form.softcap:
            np.divide(s, form.softcap, out=s)
            np.tanh(s, out=s)
            np.multiply(s, form.softcap, out=s)
        if shown is not None and form.shown == 1:
            shown[at] = s
        biases = visible.biases(at, seen)
        for bias in biases:
            np.add(s, bias, out=s)
        if shown is not None and form.shown == 2:
            shown[at] = s
        numbers = self._numbers(work)[:, : prod(query.shape[:-1])]
        top, total = (row.reshape(*query.shape[:-1], 1) for row in numbers)
        if self._precision is not None:
            rounded = s.astype(self._precision).astype(accumulation_dtype(self._precision), copy=False)
            _exponentials(rounded, np.empty(top.shape, rounded.dtype), total)
            _clear(rounded, total, visible, biases)
            np.divide(rounded, total, out=rounded)
            np.copyto(s, rounded.astype(self._precision, copy=False), casting="same_kind")
            total.fill(1)
        else:
            self._exponentials(s, top, total)
            _clear(s, total, visible, biases)
        return s, total


def _exponentials(s: np.ndarray, top: np.ndarray, total: np.ndarray) -> None:
    """Exponentials of scores, in place, and the sums of their rows; 0 and a number that is none where nothing is seen."""
    np.maximum.reduce(s, -1, out=top, keepdims=True, initial=-np.inf)
    np.maximum(top, np.finfo(s.dtype).min, out=top)  # what is -inf throughout becomes 0
    np.subtract(s, top, out=s)
    np.exp(s, out=s)
    np.add.reduce(s, -1, out=total, keepdims=True)
    np.maximum(total, 1, out=total)  # which it is anyway where there is a largest score: that one's exponential is 1


def _clear(s: np.ndarray, total: np.ndarray, visible: Visible, biases: Sequence[np.ndarray]) -> None:
    """Zeros where nothing is seen although a score is no finite number."""
    if biases and not isfinite(np.add.reduce(total, None)):
        dead = visible.dead(biases)
        np.copyto(s, 0, where=dead)
        np.copyto(total, 1, where=dead)


class Exponentials:
    """What `_exponentials` does, compiled once `compile` has been called."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._compiled: Callable[..., None] | None = None
        self._lowest = np.finfo(dtype).min

    def __call__(self, s: np.ndarray, top: np.ndarray, total: np.ndarray) -> None:
        if self._compiled is None or not s.size:
            _exponentials(s, top, total)
        else:
            self._compiled(s.reshape(-1, s.shape[-1]), total.reshape(-1), self._lowest)

    def compile(self) -> None:
        from irgrad.kernels.exponentials import exponentials

        self._compiled = jit(exponentials, write(self._dtype, 2), write(self._dtype, 1), self._dtype.name)

    def compiled(self, kernel: WorkspaceKernel) -> Kernel:
        """A kernel that uses this, so that it is compiled once that has run a few times."""
        if not (fast.enabled() and reals(self._dtype)):
            return kernel

        def build() -> Callable[..., Any]:
            self.compile()
            return kernel.function

        return fast.compiled(build, kernel)


def attention(call: Call, form: AttentionForm) -> Kernel:
    """A kernel for an Attention node. A query that sees no key gets zeros."""
    dtype = call.tensor(0).dtype
    wide = accumulation_dtype(dtype)
    space = Workspace()
    shapes = [shape_of(call, k) if call.has(k) else None for k in range(7)]
    q_shape, k_shape, v_shape, _, past_shape = shapes[:5]
    assert q_shape is not None and k_shape is not None and v_shape is not None
    past = 0 if past_shape is None else past_shape[2]
    sizes = Sizes.of(form, q_shape, k_shape, v_shape, past)
    operands = [Wide(space, shape_of(call, k), call.tensor(k).dtype, wide) if call.has(k) else None for k in range(3)]
    pasts = [Wide(space, shape_of(call, k), call.tensor(k).dtype, wide) if call.has(k) else None for k in (4, 5)]
    y_shape = (*q_shape[:2], sizes.heads * sizes.group * sizes.v_size) if len(q_shape) == 3 else (*q_shape[:3], sizes.v_size)
    scores_shape = (sizes.batch, sizes.heads * sizes.group, sizes.rows, sizes.keys)
    present_shapes = [(sizes.batch, sizes.heads, sizes.keys, n) for n in (sizes.size, sizes.v_size)]
    results = [
        Wide(space, shape, kind, wide)
        for shape, kind in zip(
            [y_shape, *present_shapes, scores_shape], [dtype, call.tensor(1).dtype, call.tensor(2).dtype, dtype], strict=True
        )
    ][: call.n_outputs]
    joined = [space.array(shape, wide) if past else None for shape in present_shapes]
    blocks = Blocks(sizes)
    precision = None if form.precision in (None, dtype, wide) else form.precision
    exponentials = Exponentials(wide)
    scores = [Scores(space, form, sizes, blocks, wide, exponentials, precision) for _ in blocks.shared]
    masks = masks_of(call, space, form, sizes, blocks, past, wide)
    division = form.shown == 3 and call.n_outputs > 3  # of all probabilities, not only of the result

    def kernel(*arrays: Any, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, ...]:
        given = [*arrays, *[None] * (7 - len(arrays))]
        places = out if isinstance(out, tuple) else (out,) * len(results)
        made = [way.place(place, work) for way, place in zip(results, places, strict=True)]
        q, k, v = (way.of(a, work) for way, a in zip(operands, given[:3], strict=True) if way is not None)
        present = [split_heads(x, form.kv_heads) for x in (k, v)]
        for index, (x, earlier) in enumerate(zip(present, given[4:6], strict=True)):
            way, room = pasts[index], joined[index]
            if way is not None and room is not None:
                target = made[index + 1] if len(made) > index + 1 else room(work)
                np.concatenate((way.of(earlier, work), x), 2, out=target)
                present[index] = target
            elif len(made) > index + 1:
                np.copyto(made[index + 1], x)
        y = made[0]
        if len(q_shape) == 3:
            y = y.reshape(sizes.batch, sizes.rows, sizes.heads * sizes.group, sizes.v_size).swapaxes(1, 2)
        y = y.reshape(*sizes.grouped, sizes.v_size)
        queries = split_heads(q, form.q_heads).reshape(*sizes.grouped, sizes.size)
        keys, values = (x[:, :, None] for x in present)
        mask = None if given[3] is None else masks.extended(given[3], work)
        shown = None
        if len(made) > 3:
            made[3].fill(0)
            shown = made[3].reshape(*sizes.grouped, sizes.keys)

        def run(share: int) -> None:
            visible = Visible(masks, share, mask, given[6], work)
            for tile in blocks.tiles:
                seen = slice(0, sizes.keys) if shown is not None and form.shown != 3 else visible.keys_of(tile)
                for unit in blocks.shared[share]:
                    at = (*unit, _ALL, tile)
                    query = scores[share].query(queries[at], work)
                    s, total = scores[share].of(query, keys[unit][..., seen, :], at, seen, visible, shown, work)
                    if division and shown is not None:
                        np.divide(s, total, out=s)
                        shown[at][..., seen] = s
                    multiply(s, values[unit][..., seen, :], y[at])
                    if not division:
                        np.divide(y[at], total, out=y[at])

        parallel(run, range(len(blocks.shared)))
        return tuple(way.done(a, place) for way, a, place in zip(results, made, places, strict=True))

    return exponentials.compiled(space.kernel(kernel))


def masks_of(
    call: Call, space: Workspace, form: AttentionForm, sizes: Sizes, blocks: Blocks, past: int, dtype: np.dtype
) -> Masks:
    """What the mask and the lengths among a call's operands, and the window of its attributes, say of the scores."""
    mask = (shape_of(call, 3), call.tensor(3).dtype) if call.has(3) else None
    scores = (*sizes.grouped, sizes.keys)
    return Masks(space, form, scores, blocks.most, len(blocks.shared), mask, call.has(6), past, dtype)
