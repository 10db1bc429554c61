"""Linear attention: a state per head that is decayed, written to and read from at every step of a sequence.

The recurrence and its chunks are told in irgrad/ops/linear_attention_kernels.py. The adjoint is an operation of its own,
``LinearAttentionGrad``; what that means step by step is two Scans, one that goes forward again and keeps the states, and one
that goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph, Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.attention import inverse_root, turned
from irgrad.ops.dims import Size, dim_of, join_sizes, quotient_of, shaped_like
from irgrad.ops.linear_attention_kernels import LinearForm, attend_linearly, pull_back_linearly
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.types import Dim, Type, dims_differ, divide_dims, merge_dims, multiply_dims

ops = OpTable()

linear_attention = ops.define("LinearAttention", cost=costs.linear_attention(1))
linear_attention_grad = ops.define(
    "LinearAttentionGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"update_rule": "gated_delta", "scale": 0.0, "chunk_size": 64},
    cost=costs.linear_attention(3),
)
"""``LinearAttentionGrad(query, key, value, past_state, decay, beta, dy, dpresent)`` → the cotangents of those of the first
six that are present, in their order; `dpresent` may be absent."""

_PAST, _DECAY, _BETA, _DY, _DPRESENT = 3, 4, 5, 6, 7
_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""Update rule → whether it takes a decay, and whether it takes a beta."""


def _form(attrs: Mapping[str, Any]) -> LinearForm:
    return LinearForm(
        q_heads=attrs["q_num_heads"],
        kv_heads=attrs["kv_num_heads"],
        scale=attrs["scale"] or None,
        delta=_RULES[attrs["update_rule"]][1],
        chunk=attrs["chunk_size"],
    )


@linear_attention.prepare
def _linear_attention(call: Call) -> Kernel:
    return partial(attend_linearly, form=_form(call.attrs))


@linear_attention_grad.prepare
def _linear_attention_grad(call: Call) -> Kernel:
    return partial(pull_back_linearly, form=_form(call.attrs))


# --- types ------------------------------------------------------------------------------------------------------------


@linear_attention.infer
def _linear_attention_types(call: Call) -> Sequence[Type]:
    """As onnx has it, which however does not take float64."""
    _check(call)
    query, heads, kv_heads = call.tensor(0), call.attrs["q_num_heads"], call.attrs["kv_num_heads"]
    (batch, time, q_hidden), key, value = (_dims(call, index, 3) for index in range(3))
    past = _dims(call, _PAST, 4)
    batch, time = _agreed(call, batch, key[0], value[0], past[0]), _agreed(call, time, key[1], value[1])
    size = _agreed(call, _share(call, q_hidden, heads), _share(call, key[2], kv_heads), past[2])
    v_size = _agreed(call, _share(call, value[2], kv_heads), past[3])
    _agreed(call, kv_heads, past[1])
    for index, wide in ((_DECAY, multiply_dims(kv_heads, size)), (_BETA, 1)):
        given = _dims(call, index, 3)
        _agreed(call, batch, given[0])
        _agreed(call, time, given[1])
        if dims_differ(given[2], kv_heads) and dims_differ(given[2], wide):
            raise _misfit(call)
    state = call.tensor(_PAST) if call.has(_PAST) else query
    types = [
        query.with_shape((batch, time, multiply_dims(heads, v_size))),
        state.with_shape((batch, kv_heads, size, v_size)),
    ]
    return types[: call.n_outputs]


@linear_attention_grad.infer
def _linear_attention_grad_types(call: Call) -> Sequence[Type]:
    return [call.tensor(index) for index in range(_DY) if call.has(index)]


def _check(call: Call) -> None:
    heads, kv_heads = call.attrs.get("q_num_heads"), call.attrs.get("kv_num_heads")
    if not heads or not kv_heads or min(heads, kv_heads) < 1 or heads % kv_heads:
        raise TypeInferenceError(f"LinearAttention has {heads} heads of queries, no multiple of its {kv_heads} kv heads")
    rule = call.attrs["update_rule"]
    if rule not in _RULES:
        raise TypeInferenceError(f"LinearAttention has the update rule {rule!r}, which is none of {', '.join(_RULES)}")
    for index, name, wanted in zip((_DECAY, _BETA), ("decay", "beta"), _RULES[rule], strict=True):
        if call.has(index) != wanted:
            raise TypeInferenceError(f"LinearAttention with the update rule {rule!r} takes {'a' if wanted else 'no'} {name}")


def _dims(call: Call, index: int, rank: int) -> tuple[Dim, ...]:
    shape = call.tensor(index).shape if call.has(index) else None
    if shape is not None and len(shape) != rank:
        raise _misfit(call)
    return (None,) * rank if shape is None else shape


def _share(call: Call, hidden: Dim, heads: int) -> Dim:
    if isinstance(hidden, int) and hidden % heads:
        raise _misfit(call)
    return divide_dims(hidden, heads)


def _agreed(call: Call, *dims: Dim) -> Dim:
    found = merge_dims(*dims)
    if any(dims_differ(found, dim) for dim in dims):
        raise _misfit(call)
    return found


def _misfit(call: Call) -> TypeInferenceError:
    shown = ", ".join("_" if t is None else str(t) for t in call.inputs)
    heads = f"{call.attrs['q_num_heads']} and {call.attrs['kv_num_heads']} heads"
    return TypeInferenceError(f"the shapes of the operands of LinearAttention do not fit each other and {heads}: {shown}")


# --- the adjoint ------------------------------------------------------------------------------------------------------


@linear_attention.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> list[Value | None]:
    dy, dpresent = (*cotangents, None)[:2]
    operands = [node.input(index) for index in range(_DY)]
    gradient = b.node(
        linear_attention_grad,
        [*operands, b.zeros_if_none(dy, node.outputs[0]), dpresent],
        node.attrs,
        outputs=sum(operand is not None for operand in operands),
    )
    found = iter(gradient.outputs)
    return [None if operand is None else next(found) for operand in node.inputs]


@linear_attention_grad.lower
def _(b: Builder, node: Node) -> list[Value]:
    """Two Scans over axis 1 of operands [batch, time, heads, ...]."""
    query, key, value, dy = (node.operand(index) for index in (0, 1, 2, _DY))
    past, decay, beta, dpresent = (node.input(index) for index in (_PAST, _DECAY, _BETA, _DPRESENT))
    heads, wide = node.attr("kv_num_heads"), accumulation_dtype(query.dtype)
    group = node.attr("q_num_heads") // heads

    def unpacked(x: Value, *shape: Size) -> Value:
        return b.cast(b.op("Reshape", x, join_sizes(b, 0, 0, *shape)), wide)

    def share(x: Value, divisor: int) -> Size:
        return quotient_of(b, dim_of(b, x, 2), divisor)

    steps = {"k": unpacked(key, heads, share(key, heads), 1), "v": unpacked(value, heads, 1, share(value, heads))}
    if decay is not None:
        steps["g"] = unpacked(decay, heads, share(decay, heads), 1)
    if beta is not None:
        steps["beta"] = unpacked(beta, share(beta, 1), 1, 1)
    size = dim_of(b, steps["k"], 3)
    sizes = dim_of(b, query, 0), heads, size, dim_of(b, steps["v"], 4)
    start, end = (b.cast(x, wide) if x is not None else _zeros(b, wide, *sizes) for x in (past, dpresent))
    _, steps["state"] = _scan(b, ("state", start), steps, _forward_step)
    steps["q"], steps["do"] = (unpacked(x, heads, group, share(x, heads * group)) for x in (query, dy))
    steps["do"] *= node.attr("scale") or inverse_root(b, size, wide)
    dstate, dq, dk, dv, *rest = _scan(b, ("dstate", end), steps, _backward_step, reverse=True)
    results = [shaped_like(b, b.cast(dx, x.dtype), x) for dx, x in ((dq, query), (dk, key), (dv, value))]
    if past is not None:
        results.append(b.cast(dstate, past.dtype))
    return results + [_summed_to(b, dx, x) for dx, x in zip(rest, [x for x in (decay, beta) if x is not None], strict=True)]


def _zeros(b: Builder, dtype: np.dtype, *sizes: Size) -> Value:
    return b.op("ConstantOfShape", join_sizes(b, *sizes), value=np.zeros(1, dtype))


def _summed_to(b: Builder, x: Value, like: Value) -> Value:
    """A cotangent [batch, time, heads, size, 1], summed to the shape of `like`, [batch, time, n], where n is smaller."""
    n = dim_of(b, like, 2)
    if x.shape is None or multiply_dims(*x.shape[2:]) != n:
        each = quotient_of(b, dim_of(b, x, 2) * dim_of(b, x, 3), n)
        x = b.reduce_sum(b.op("Reshape", x, join_sizes(b, 0, 0, n, each)), [3])
    return shaped_like(b, b.cast(x, like.dtype), like)


Step: TypeAlias = "Callable[[Builder, dict[str, Value]], Sequence[Value]]"
"""Emits a step: from the state and the slices by name to the next state and what is kept of the step."""


def _scan(
    b: Builder, carried: tuple[str, Value], sliced: Mapping[str, Value], step: Step, *, reverse: bool = False
) -> tuple[Value, ...]:
    """Emit a Scan over axis 1: the last state, and what each step keeps, stacked along axis 1."""
    body = Graph("step")
    name, start = carried
    values = {name: body.add_input(name, start.type)}
    for name, x in sliced.items():
        shape = None if x.shape is None else (x.shape[0], *x.shape[2:])
        values[name] = body.add_input(name, x.tensor_type.with_shape(shape))
    with Builder(body) as inner:
        results = step(inner, values)
        body.set_outputs({f"result_{k}": value for k, value in enumerate(results)})
    kept = len(results) - 1
    return b.multi(
        "Scan",
        start,
        *sliced.values(),
        outputs=len(results),
        body=body,
        num_scan_inputs=len(sliced),
        scan_input_axes=(1,) * len(sliced),
        scan_output_axes=(1,) * kept,
        scan_input_directions=(int(reverse),) * len(sliced),
        scan_output_directions=(int(reverse),) * kept,
    )


def _decayed(b: Builder, s: Mapping[str, Value]) -> Value:
    return s["state"] * b.op("Exp", s["g"]) if "g" in s else s["state"]


def _written(b: Builder, s: Mapping[str, Value], decayed: Value) -> tuple[Value, Value]:
    """What the decayed state lacks of v (all of it where there is no delta rule), and the row that is written therefore."""
    if "beta" not in s:
        return s["v"], s["v"]
    missing = s["v"] - turned(b, s["k"]) @ decayed
    return missing, s["beta"] * missing


def _forward_step(b: Builder, s: Mapping[str, Value]) -> list[Value]:
    """The next state, and the one before the step."""
    decayed = _decayed(b, s)
    return [decayed + s["k"] * _written(b, s, decayed)[1], b.op("Identity", s["state"])]


def _backward_step(b: Builder, s: Mapping[str, Value]) -> list[Value]:
    """The cotangent of the state before the step, and those of q, k, v, g and β."""
    decayed = _decayed(b, s)
    missing, u = _written(b, s, decayed)
    dstate = s["dstate"] + turned(b, s["q"]) @ s["do"]
    dq = s["do"] @ turned(b, decayed + s["k"] * u)
    dk = dstate @ turned(b, u)
    dv = du = turned(b, s["k"]) @ dstate
    if "beta" in s:
        dv = s["beta"] * du
        dk = dk - decayed @ turned(b, dv)
        dstate = dstate - s["k"] * dv
    results = [dstate, dq, dk, dv]
    if "g" in s:
        results[0] = dstate * b.op("Exp", s["g"])
        results.append(b.reduce_sum(dstate * decayed, [3], keepdims=True))
    if "beta" in s:
        results.append(b.reduce_sum(du * missing, [3], keepdims=True))
    return results
