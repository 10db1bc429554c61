"""Scaled dot-product attention.

With the scores s = scale · Q Kᵀ (softly capped, masked), P = softmax(s) and Y = P V, the cotangents are

    dV = Pᵀ dY,   dP = dY Vᵀ,   ds = P ⊙ (dP − D),   dQ = scale · ds K,   dK = scale · dsᵀ Q

with D the sum of dP ⊙ P along each row, also that of dY ⊙ Y (Dao et al., FlashAttention, NeurIPS 2022, appendix B.2).
P is taken from the forward node, which can return it as its fourth result. A query that sees no key has a row of zeros in P,
and so passes nothing on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import sqrt

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import attention_adjoint as kernels_of_adjoint
from irgrad.ops import attention_kernels as kernels
from irgrad.ops import costs
from irgrad.ops.attention_kernels import AttentionForm
from irgrad.ops.dims import Size, dim_of, join_sizes, quotient_of, reshape_to, shaped_like
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import planned
from irgrad.types import (
    Dim,
    TensorType,
    Type,
    add_dims,
    dims_differ,
    divide_dims,
    dtype_of_element,
    merge_dims,
    multiply_dims,
)

__all__ = ["inverse_root", "ops", "turned"]

ops = OpTable()

attention = ops.define("Attention", broadcasts=(3,), cost=costs.attention)

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6  # places of operands
_MODES = _RAW, _CAPPED, _MASKED, _PROBABILITIES = 0, 1, 2, 3  # what qk_matmul_output_mode shows
_PRECISIONS = (1, 10, 11, 16)  # element types of softmax_precision: the floating-point ones


def _form(call: Call) -> AttentionForm:
    attrs, precision = call.attrs, call.attrs.get("softmax_precision")
    return AttentionForm(
        q_heads=attrs.get("q_num_heads"),
        kv_heads=attrs.get("kv_num_heads"),
        scale=attrs.get("scale"),
        causal=bool(attrs["is_causal"]),
        left=attrs["left_window_size"],
        right=attrs["right_window_size"],
        softcap=attrs.get("softcap", 0.0),
        precision=None if precision is None else dtype_of_element(precision),
        shown=attrs.get("qk_matmul_output_mode", _RAW),
    )


@attention.prepare
@planned()
def _attention(call: Call) -> Kernel:
    return kernels.attention(call, _form(call))


# --- types ------------------------------------------------------------------------------------------------------------


@attention.infer
def _attention_types(call: Call) -> Sequence[Type]:
    """As onnx has it, which however takes unknown sizes for 0, and gives present states no shape where there are no past."""
    q, k, v = (call.tensor(index) for index in range(3))
    ranks = {type.rank for type in (q, k, v)} - {None}
    if not ranks:
        return [q, k.with_shape(None), v.with_shape(None), q.with_shape(None)][: call.n_outputs]
    if ranks not in ({3}, {4}):
        raise TypeInferenceError(f"Attention takes Q, K and V that all have 3 or all have 4 axes, not {q}, {k} and {v}")
    packed = ranks == {3}
    _check_attributes(call, packed)
    past_key, past_value = (_optional_dims(call, index, "past keys and values", 4) for index in (_PAST_KEY, _PAST_VALUE))
    (length,) = _optional_dims(call, _LENGTHS, "nonpad_kv_seqlen", 1)
    (batch, heads, rows, size), key, value = (
        _unpacked(call, type, name) for type, name in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads"))
    )
    batch = _agreed("batch sizes", batch, key[0], value[0], past_key[0], past_value[0], length)
    kv_heads = _agreed("numbers of kv heads", key[1], value[1], past_key[1], past_value[1])
    size = _agreed("sizes of Q's and K's heads", size, key[3], past_key[3])
    v_size = _agreed("sizes of V's heads", value[3], past_value[3])
    if isinstance(heads, int) and isinstance(kv_heads, int) and (heads == kv_heads == 0 or heads % (kv_heads or heads + 1)):
        raise TypeInferenceError(f"Attention has {heads} heads of queries, which is no multiple of its {kv_heads} kv heads")
    total = _agreed("numbers of keys and values", key[2], value[2])
    if call.has(_PAST_KEY):
        total = add_dims(_agreed("numbers of past keys and values", past_key[2], past_value[2]), total)
    _check_mask(call, (batch, heads, rows, total))
    return [
        q.with_shape((batch, rows, multiply_dims(heads, v_size)) if packed else (batch, heads, rows, v_size)),
        k.with_shape((batch, kv_heads, total, size)),
        v.with_shape((batch, kv_heads, total, v_size)),
        q.with_shape((batch, heads, rows, total)),
    ][: call.n_outputs]


def _check_attributes(call: Call, packed: bool) -> None:
    for name in ("q_num_heads", "kv_num_heads"):
        heads = call.attrs.get(name)
        if packed and (heads is None or heads < 1):
            raise TypeInferenceError(f"Attention of operands with 3 axes needs the attribute {name}, a positive number")
        if not packed and heads is not None:
            raise TypeInferenceError(f"Attention has the attribute {name}, which is for operands with 3 axes, not 4")
    for name in ("left_window_size", "right_window_size"):
        if call.attrs[name] < -1:
            raise TypeInferenceError(f"the attribute {name} of Attention is {call.attrs[name]}, neither -1 nor a size")
    if not call.attrs["softcap"] >= 0:
        raise TypeInferenceError(f"the softcap of Attention is {call.attrs['softcap']}, neither positive nor 0 for none")
    for name, known in (("qk_matmul_output_mode", _MODES), ("softmax_precision", _PRECISIONS)):
        if call.attrs.get(name, known[0]) not in known:
            raise TypeInferenceError(f"the attribute {name} of Attention is {call.attrs[name]}, which is none of {known}")
    if call.has(_PAST_KEY) != call.has(_PAST_VALUE):
        raise TypeInferenceError("Attention takes past_key and past_value together or neither of them")
    if call.has(_PAST_KEY) and call.has(_LENGTHS):
        raise TypeInferenceError("Attention takes either past keys and values or nonpad_kv_seqlen, not both")


def _unpacked(call: Call, type: TensorType, name: str) -> tuple[Dim, ...]:
    """The sizes [batch, heads, sequence, head size] of Q, K or V."""
    if type.shape is None:
        return (None, call.attrs.get(name), None, None)
    if len(type.shape) == 4:
        return type.shape
    batch, sequence, hidden = type.shape
    heads = call.attrs[name]
    if isinstance(hidden, int) and hidden % heads:
        raise TypeInferenceError(f"Attention cannot divide the last axis of {type} among {heads} heads")
    return batch, heads, sequence, divide_dims(hidden, heads)


def _optional_dims(call: Call, index: int, what: str, rank: int) -> tuple[Dim, ...]:
    shape = call.tensor(index).shape if call.has(index) else None
    if shape is not None and len(shape) != rank:
        raise TypeInferenceError(f"Attention takes {what} with {rank} axes, not {call.tensor(index)}")
    return (None,) * rank if shape is None else shape


def _agreed(what: str, *dims: Dim) -> Dim:
    """The size that several operands have along an axis of theirs."""
    numbers = {dim for dim in dims if isinstance(dim, int)}
    if len(numbers) > 1:
        raise TypeInferenceError(f"the operands of Attention have different {what}: {', '.join(map(str, sorted(numbers)))}")
    return merge_dims(*dims)


def _check_mask(call: Call, scores: Sequence[Dim]) -> None:
    """Check that a mask is broadcast to the scores; keys beyond the end of its last axis are hidden."""
    if not call.has(_MASK) or (shape := call.tensor(_MASK).shape) is None:
        return
    fits = 1 <= len(shape) <= 4
    for have, want in zip(shape[-2::-1], scores[-2::-1], strict=False):
        fits &= have == 1 or not dims_differ(have, want)
    if not fits or (isinstance(shape[-1], int) and isinstance(scores[3], int) and shape[-1] > scores[3]):
        wanted = TensorType(call.tensor(_MASK).dtype, tuple(scores))
        raise TypeInferenceError(f"the mask of Attention is {call.tensor(_MASK)}, which is not broadcast to {wanted}")


# --- the adjoint ------------------------------------------------------------------------------------------------------


@attention.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> list[Value | None]:
    """See the top of this file. The mask gets the cotangent of the masked scores, the past its part of the present's."""
    dy, dkey, dvalue, dshown = (*cotangents, None, None, None)[:4]
    q, k, v, mask, past_key, past_value = (node.input(index) for index in range(6))
    if any(node.operand(index).rank is None for index in range(3)):
        raise UnsupportedOpError("the ranks of Q, K and V must be known at compile time; declare their shapes")
    results: list[Value | None] = [None] * len(node.inputs)
    if dy is not None and dshown is None and _is_plain(b, node):
        wrt = tuple(index for index in range(3) if b.needs(node.inputs[index]))
        operands = [*node.inputs[:4], *[None] * (4 - len(node.inputs)), None, None, node.input(_LENGTHS), dy]
        attrs = {name: node.attrs[name] for name in _GRAD_ATTRS if name in node.attrs}
        found = dict(zip(wrt, b.multi("irgrad.AttentionGrad", *operands, outputs=len(wrt), wrt=wrt, **attrs), strict=True))
        results[0] = found.get(0)
        for index, present in ((1, dkey), (2, dvalue)):
            more = None if present is None else _joined(b, present, node.operand(index))
            results[index] = _plus(found.get(index), more)
        return results
    if dy is not None or dshown is not None:
        back = _Backward(b, node, dy, dshown)
        if b.needs(v) or b.needs(past_value):
            dvalue = _plus(dvalue, back.values())
        masked = back.masked_scores() if any(map(b.needs, (q, k, mask, past_key))) else None
        if masked is not None and mask is not None and b.needs(mask):
            results[_MASK] = back.mask(masked, mask)
        scores = back.scores(masked) if any(map(b.needs, (q, k, past_key))) else None
        if scores is not None and b.needs(q):
            results[0] = back.queries(scores)
        if scores is not None and (b.needs(k) or b.needs(past_key)):
            dkey = _plus(dkey, back.keys(scores))
    for index, past_index, present in ((1, _PAST_KEY, dkey), (2, _PAST_VALUE, dvalue)):
        past, current = node.input(past_index), node.operand(index)
        if past is not None and present is not None:
            sizes = join_sizes(b, dim_of(b, past, 2), dim_of(b, current, 1 if current.rank == 3 else 2))
            results[past_index], present = b.multi("Split", present, sizes, axis=2, outputs=2)
        results[index] = None if present is None else _joined(b, present, current)
    return results


_GRAD_ATTRS = ("is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "right_window_size", "scale")


def _is_plain(b: AdjointBuilder, node: Node) -> bool:
    """Whether `AttentionGrad` covers a node: no past, no soft cap, no gradient of the mask, no precision of its own."""
    mask = node.input(_MASK)
    return (
        any(b.needs(node.inputs[index]) for index in range(3))
        and node.input(_PAST_KEY) is None
        and not (mask is not None and b.needs(mask))
        and not node.attr("softcap")
        and node.attr("softmax_precision") is None
    )


class _Backward:
    """The cotangents of Y and of the shown scores, pulled back stage by stage.

    The values in between are [batch, kv heads, queries, size]: where several heads of queries share a head of keys and
    values, the queries of these are laid end to end, so that one product serves all of them and sums over them. They have
    the dtype that sums are formed in.
    """

    def __init__(self, b: Builder, node: Node, dy: Value | None, dshown: Value | None) -> None:
        self._b, self._node = b, node
        self._mode = node.attr("qk_matmul_output_mode")
        self._dy = None if dy is None else self._queries(dy)
        self._dshown = None if dshown is None else self._wide(self._grouped(dshown))

    # --- operands -----------------------------------------------------------------------------------------------------

    @cached_property
    def _p(self) -> Value:
        return self._wide(self._grouped(_probabilities(self._b, self._node)))

    @cached_property
    def _key(self) -> Value:
        return self._present(1)

    @cached_property
    def _value(self) -> Value:
        return self._present(2)

    @cached_property
    def _by_head(self) -> Value:
        """Q, [batch, query heads, queries, size]."""
        return _split(self._b, self._node.operand(0), self._node.attr("q_num_heads"))

    @cached_property
    def _query(self) -> Value:
        return self._wide(self._grouped(self._by_head))

    def _present(self, index: int) -> Value:
        """K (1) or V (2) with what is past before it."""
        node, x = self._node, self._node.operand(index)
        if len(node.outputs) > index:
            return self._wide(node.outputs[index])
        if node.input(_PAST_KEY) is not None or (x.rank == 3 and node.input(_LENGTHS) is None):
            return self._wide(_adjoint_builder(self._b).augment(node, 3)[index])
        return self._wide(_split(self._b, x, node.attr("kv_num_heads")))

    def _queries(self, x: Value) -> Value:
        return self._wide(self._grouped(_split(self._b, x, self._node.attr("q_num_heads"))))

    def _wide(self, x: Value) -> Value:
        return self._b.cast(x, accumulation_dtype(self._node.operand(0).dtype))

    def _grouped(self, x: Value) -> Value:
        """A value of the shape [batch, heads, queries, size] as [batch, kv heads, queries of the group, size]."""
        assert x.shape is not None
        heads = x.shape[1]
        kv_heads = self._key.shape[1] if self._key.shape is not None else None
        if heads is not None and heads == kv_heads:
            return x
        b, number = self._b, dim_of(self._b, self._key, 1)
        rows = dim_of(b, x, 2) * quotient_of(b, dim_of(b, x, 1), number)
        return reshape_to(b, x, dim_of(b, x, 0), number, rows, dim_of(b, x, 3))

    def _ungrouped(self, x: Value) -> Value:
        like = self._by_head
        if x.shape is not None and like.shape is not None and x.shape[1] is not None and x.shape[1] == like.shape[1]:
            return x
        return reshape_to(self._b, x, *(dim_of(self._b, like, axis) for axis in range(3)), dim_of(self._b, x, 3))

    @cached_property
    def _scale(self) -> float | Value:
        """What the products of queries and keys are multiplied by."""
        given = self._node.attr("scale")
        if given is not None:
            return float(given)
        return inverse_root(self._b, dim_of(self._b, self._query, 3), self._query.dtype)

    # --- stages -------------------------------------------------------------------------------------------------------

    def values(self) -> Value | None:
        """The cotangent of the present values."""
        if self._dy is None:
            return None
        return self._b.cast(turned(self._b, self._p) @ self._dy, self._node.operand(2).dtype)

    def masked_scores(self) -> Value | None:
        """The cotangent of what the softmax is taken of."""
        b, dp, total = self._b, None, None
        if self._dy is not None:
            dp = self._dy @ turned(b, self._value)
        if self._mode == _PROBABILITIES and self._dshown is not None:
            dp = _plus(dp, self._dshown)
            total = None if dp is None else b.reduce_sum(dp * self._p, [3], keepdims=True)
        elif self._dy is not None:
            total = b.reduce_sum(self._dy * self._queries(self._node.outputs[0]), [3], keepdims=True)
        dmasked = None if dp is None or total is None else self._p * (dp - total)
        return _plus(dmasked, self._dshown) if self._mode == _MASKED else dmasked

    def mask(self, dmasked: Value, mask: Value) -> Value:
        """The cotangent of the mask, still broadcast to the scores; a shorter mask has none for the keys beyond its end."""
        b, dmask = self._b, self._ungrouped(dmasked)
        if dmask.shape is None or mask.shape is None or mask.shape[-1] is None or mask.shape[-1] != dmask.shape[3]:
            dmask = b.op("Slice", dmask, b.ints([0]), join_sizes(b, dim_of(b, mask, -1)), b.ints([-1]))
        return b.cast(dmask, mask.dtype)

    def scores(self, dmasked: Value | None) -> Value | None:
        """The cotangent of the products of queries and keys, given that of the masked scores."""
        softcap, b = self._node.attr("softcap"), self._b
        if not softcap:
            return _plus(dmasked, self._dshown) if self._mode in (_RAW, _CAPPED) else dmasked
        dcapped = _plus(dmasked, self._dshown) if self._mode == _CAPPED else dmasked
        if dcapped is not None:
            t = b.op("Tanh", (self._query @ turned(b, self._key)) * (self._scale / softcap))
            dcapped = dcapped * (1 - t * t)
        return _plus(dcapped, self._dshown) if self._mode == _RAW else dcapped

    def queries(self, dscores: Value) -> Value:
        """The cotangent of Q."""
        q = self._node.operand(0)
        return _joined(self._b, self._ungrouped(self._b.cast((dscores @ self._key) * self._scale, q.dtype)), q)

    def keys(self, dscores: Value) -> Value:
        """The cotangent of the present keys."""
        return self._b.cast((turned(self._b, dscores) @ self._query) * self._scale, self._node.operand(1).dtype)


# --- the adjoint of the plain form in one node ------------------------------------------------------------------------

attention_grad = ops.define(
    "AttentionGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"is_causal": 0, "left_window_size": -1, "right_window_size": -1, "wrt": (0, 1, 2)},
    cost=costs.attention_grad,
)
"""``AttentionGrad(q, k, v, mask, None, None, lengths, dy)`` → the cotangents of those of q (0), k (1) and v (2) that the
attribute `wrt` lists, ascending, given that of the first result of an Attention with those operands and attributes.

The probabilities are formed again, block by block: no array of the size queries x keys is stored.
"""


@attention_grad.infer
def _attention_grad_types(call: Call) -> Sequence[Type]:
    return [call.tensor(index) for index in call.attrs["wrt"]]


@attention_grad.prepare
@planned()
def _attention_grad(call: Call) -> Kernel:
    return kernels_of_adjoint.attention_grad(call, _form(call), call.attrs["wrt"])


@attention_grad.lower
def _(b: Builder, node: Node) -> tuple[Value, ...]:
    """By the probabilities, which another Attention shows."""
    attrs = {name: value for name, value in node.attrs.items() if name != "wrt"}
    wide = accumulation_dtype(node.operand(0).dtype)
    operands = [b.cast(node.operand(index), wide) for index in range(3)]
    shown = b.multi("Attention", *operands, *node.inputs[3:7], outputs=4, qk_matmul_output_mode=_PROBABILITIES, **attrs)
    forward = shown[0].producer
    assert forward is not None
    wrt, back = node.attr("wrt"), _Backward(b, forward, b.cast(node.operand(7), wide), None)
    scores = back.scores(back.masked_scores()) if wrt != (2,) else None
    found: dict[int, Value | None] = {}
    if scores is not None:
        found[0] = back.queries(scores)
        found[1] = _joined(b, back.keys(scores), node.operand(1))
    values = back.values()
    assert values is not None
    found[2] = _joined(b, values, node.operand(2))
    return tuple(b.cast(v, node.operand(index).dtype) for index in wrt if (v := found[index]) is not None)


def _probabilities(b: Builder, node: Node) -> Value:
    """The softmax of the scores: as the forward node's fourth result, or from a node like it where that shows another."""
    shows = {**node.attrs, "qk_matmul_output_mode": _PROBABILITIES}
    if len(node.outputs) < 4:
        return _adjoint_builder(b).augment(node, 4, attrs=shows)[3]
    shown = node.outputs[3]
    if node.attr("qk_matmul_output_mode") == _PROBABILITIES:
        return shown
    if shown.users or shown.is_output:
        return b.node(node.op, node.inputs, shows, outputs=4).outputs[3]
    # Exporters write all results, wanted or not. Whoever asks for this one by its name must not get another.
    b.graph.rename(shown, b.graph.fresh_name("probabilities"))
    return _adjoint_builder(b).augment(node, 4, attrs=shows)[3]


def _adjoint_builder(b: Builder) -> AdjointBuilder:
    assert isinstance(b, AdjointBuilder), "a lowering asks for all results of its forward node"
    return b


def _split(b: Builder, x: Value, heads: int | None) -> Value:
    """A value of the shape [batch, sequence, heads * size] as [batch, heads, sequence, size]; one of that shape itself."""
    if x.rank == 4:
        return x
    assert heads is not None
    sizes = join_sizes(b, 0, 0, heads, quotient_of(b, dim_of(b, x, 2), heads))
    return b.op("Transpose", b.op("Reshape", x, sizes), perm=(0, 2, 1, 3))


def inverse_root(b: Builder, size: Size, dtype: np.dtype) -> float | Value:
    """1 / sqrt(size): a number where the size is one (any, where it is 0), else a value of the shape [1]."""
    if isinstance(size, int):
        return 1 / sqrt(max(size, 1))
    return b.op("Reciprocal", b.op("Sqrt", b.cast(size, dtype)))


def _joined(b: Builder, x: Value, like: Value) -> Value:
    """The inverse of `_split`: a value of the shape [batch, heads, sequence, size] in that of `like`."""
    return shaped_like(b, x if like.rank == 4 else b.op("Transpose", x, perm=(0, 2, 1, 3)), like)


def turned(b: Builder, x: Value) -> Value:
    """Emit a value with four axes, of which the last two change places."""
    return b.op("Transpose", x, perm=(0, 1, 3, 2))


def _plus(x: Value | None, y: Value | None) -> Value | None:
    """The sum of two cotangents, None standing for zero."""
    if x is None or y is None:
        return x if y is None else y
    return x + y
