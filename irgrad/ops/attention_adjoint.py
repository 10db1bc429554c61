"""The adjoint of scaled dot-product attention on arrays, see irgrad/ops/attention.py and irgrad/ops/attention_kernels.py.

Probabilities are formed again, block by block, so that nothing of the size queries x keys is ever stored (Dao et al.,
FlashAttention, NeurIPS 2022). With the exponentials E of a block and their sums t, P = E / t, and with dY' = dY / t

    dV += Eᵀ dY',   dS = E ⊙ (dY' Vᵀ − D / t),   D the sum of E ⊙ (dY' Vᵀ) along each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.kernels.products import multiply
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.wide import Wide
from irgrad.op import Call, Kernel
from irgrad.ops.attention_kernels import AttentionForm, Blocks, Exponentials, Scores, Sizes, masks_of, split_heads
from irgrad.ops.attention_masks import Visible
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Workspace

__all__ = ["attention_grad"]

_ALL = slice(None)
_DY = 7  # its place among the operands


def attention_grad(call: Call, form: AttentionForm, wrt: Sequence[int]) -> Kernel:
    """A kernel ``(q, k, v, mask, None, None, lengths, dy)`` → the cotangents of q (0), k (1) and v (2) that `wrt` lists."""
    dtype = call.tensor(0).dtype
    wide = accumulation_dtype(dtype)
    space = Workspace()
    sizes = Sizes.of(form, shape_of(call, 0), shape_of(call, 1), shape_of(call, 2), 0)
    places = (0, 1, 2, _DY)
    operands = {k: Wide(space, shape_of(call, k), call.tensor(k).dtype, wide) for k in places}
    results = [Wide(space, shape_of(call, k), call.tensor(k).dtype, wide) for k in wrt]
    blocks = Blocks(sizes)
    exponentials = Exponentials(wide)
    scores = [Scores(space, form, sizes, blocks, wide, exponentials) for _ in blocks.shared]
    masks = masks_of(call, space, form, sizes, blocks, 0, wide)
    batches, heads, rows = blocks.most
    queries, width = batches * heads * sizes.group * rows, max(sizes.size, sizes.v_size)
    rooms = [
        (
            space.array((queries * sizes.keys,), wide),
            space.array((queries * sizes.v_size,), wide),
            space.array((queries,), wide),
            space.array((batches * heads * sizes.keys * width,), wide) if len(blocks.tiles) > 1 else None,
        )
        for _ in blocks.shared
    ]
    scale = scores[0].scale

    def kernel(*arrays: Any, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, ...]:
        outs = out if isinstance(out, tuple) else (out,) * len(results)
        made = [way.place(place, work) for way, place in zip(results, outs, strict=True)]
        q, k, v, dy = (operands[index].of(arrays[index], work) for index in places)
        query = split_heads(q, form.q_heads).reshape(*sizes.grouped, sizes.size)
        cotangent = split_heads(dy, form.q_heads).reshape(*sizes.grouped, sizes.v_size)
        keys, values = (split_heads(x, form.kv_heads) for x in (k, v))
        found = {k: split_heads(a, form.kv_heads if k else form.q_heads) for k, a in zip(wrt, made, strict=True)}
        dq = found[0].reshape(*sizes.grouped, sizes.size) if 0 in found else None
        mask = None if arrays[3] is None else masks.extended(arrays[3], work)

        if not blocks.tiles:  # no queries
            for total in made:
                total.fill(0)

        def run(share: int) -> None:
            visible = Visible(masks, share, mask, arrays[6], work)
            second, scaled, numbers, product = (None if room is None else room(work) for room in rooms[share])
            assert second is not None and scaled is not None and numbers is not None
            for unit in blocks.shared[share]:
                by_key, by_value = (found[k][unit] if k in found else None for k in (1, 2))
                for tile in blocks.tiles:
                    seen, at = visible.keys_of(tile), (*unit, _ALL, tile)
                    first = tile.start == 0
                    if first:
                        for total in (by_key, by_value):
                            if total is not None:
                                total[..., : seen.start, :] = 0
                                total[..., seen.stop :, :] = 0
                    ours = scores[share].query(query[at], work)
                    key, value = keys[unit][..., seen, :], values[unit][..., seen, :]
                    e, sums = scores[share].of(ours, key[:, :, None], at, seen, visible, None, work)
                    given = cotangent[at]
                    dy_over = np.divide(given, sums, out=scaled[: given.size].reshape(given.shape))
                    merged = [x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], x.shape[4]) for x in (ours, e, dy_over)]
                    if by_value is not None:
                        _add_product(merged[1], merged[2], by_value[..., seen, :], first, product)
                    if dq is None and by_key is None:
                        continue
                    ds = second[: e.size].reshape(merged[1].shape)
                    multiply(merged[2], value.swapaxes(-1, -2), ds)
                    d = numbers[: prod(ds.shape[:3])].reshape(ds.shape[:3])
                    np.einsum("bhqk,bhqk->bhq", merged[1], ds, out=d)
                    np.divide(d, sums.reshape(d.shape), out=d)
                    np.subtract(ds, d[..., None], out=ds)
                    np.multiply(ds, merged[1], out=ds)
                    if by_key is not None:
                        _add_product(ds, merged[0], by_key[..., seen, :], first, product)
                    if dq is not None:
                        target = dq[at]
                        multiply(ds.reshape(e.shape), key[:, :, None], target)
                        np.multiply(target, scale, out=target)

        parallel(run, range(len(blocks.shared)))
        return tuple(way.done(a, place) for way, a, place in zip(results, made, outs, strict=True))

    return exponentials.compiled(space.kernel(kernel))


def _add_product(a: np.ndarray, b: np.ndarray, total: np.ndarray, first: bool, room: np.ndarray | None) -> None:
    """The product aᵀ b into a total, or added to it."""
    if first or room is None:
        multiply(a.swapaxes(-1, -2), b, total)
    else:
        product = room[: total.size].reshape(total.shape)
        np.add(total, multiply(a.swapaxes(-1, -2), b, product), out=total)
