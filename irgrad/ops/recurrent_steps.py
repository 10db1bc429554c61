"""One time step of RNN, GRU and LSTM and its adjoint, as emitted nodes: what the bodies of Scans hold.

The formulas are those of `irgrad.ops.recurrent_cells`. Values come by name:

- forward: the states h and c, the projected inputs z with their bias, the weights r (transposed), of a GRU whose reset gate
  acts before them r_hidden for the hidden gate; a linear GRU's bias; the peepholes p_i, p_o, p_f;
- backward: the cotangents dh and dc of the states, dy, dgates and dcells of the results, the pre-activations z, the states h
  and cells c that the step started from, the cells c_out that it made, the weights r (as they are), r_hidden, the peepholes,
  and mask, whether the step counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from irgrad.builder import Builder
from irgrad.graph import Value
from irgrad.ops.elementwise import keep_where
from irgrad.ops.recurrent_activations import Activation
from irgrad.ops.recurrent_settings import Recurrence

__all__ = ["adjoint_step", "forward_step"]

Values: TypeAlias = Mapping[str, Value]
Functions: TypeAlias = Sequence[Activation]


def _split(b: Builder, value: Value, number: int) -> Sequence[Value]:
    return b.multi("Split", value, outputs=number, axis=1, num_outputs=number)


def _clipped(b: Builder, recurrence: Recurrence, z: Value) -> Value:
    bound = recurrence.clip
    return z if bound is None else b.op("Clip", z, -bound, bound)


def _activated(b: Builder, recurrence: Recurrence, function: Activation, z: Value) -> Value:
    return function.emit(b, _clipped(b, recurrence, z))


# --- forward ----------------------------------------------------------------------------------------------------------


def forward_step(b: Builder, recurrence: Recurrence, functions: Functions, values: Values) -> tuple[list[Value], Value]:
    """Emit a step; the next states, and the pre-activations as they are to be saved."""
    if recurrence.kind == "LSTM":
        return _lstm(b, recurrence, functions, values)
    if recurrence.kind == "GRU":
        return _gru(b, recurrence, functions, values)
    z = values["z"] + values["h"] @ values["r"]
    return [_activated(b, recurrence, functions[0], z)], z


def _gru(b: Builder, recurrence: Recurrence, functions: Functions, values: Values) -> tuple[list[Value], Value]:
    h, (f, g) = values["h"], functions
    z_update, z_reset, z_hidden = _split(b, values["z"], 3)
    recurrent = _split(b, h @ values["r"], 3 if recurrence.linear else 2)
    z_update, z_reset = z_update + recurrent[0], z_reset + recurrent[1]
    update, reset = (_activated(b, recurrence, f, z) for z in (z_update, z_reset))
    further: tuple[Value, ...] = ()
    if recurrence.linear:
        bias = values.get("bias")
        through = recurrent[2] if bias is None else recurrent[2] + bias
        z_hidden = z_hidden + reset * through
        further = (through,)
    else:
        z_hidden = z_hidden + (reset * h) @ values["r_hidden"]
    hidden = _activated(b, recurrence, g, z_hidden)
    z = b.op("Concat", z_update, z_reset, z_hidden, *further, axis=1)
    return [hidden + update * (h - hidden)], z


def _lstm(b: Builder, recurrence: Recurrence, functions: Functions, values: Values) -> tuple[list[Value], Value]:
    c, (f, g, h) = values["c"], functions
    z = values["z"] + values["h"] @ values["r"]
    z_i, z_o, z_f, z_c = _split(b, z, 4)
    peeping = "p_i" in values
    if peeping:
        z_i, z_f = z_i + values["p_i"] * c, z_f + values["p_f"] * c
    i_gate = _activated(b, recurrence, f, z_i)
    f_gate = 1 - i_gate if recurrence.coupled else _activated(b, recurrence, f, z_f)
    c_out = f_gate * c + i_gate * _activated(b, recurrence, g, z_c)
    if peeping:
        z_o = z_o + values["p_o"] * c_out
        z = b.op("Concat", z_i, z_o, z_f, z_c, axis=1)
    return [_activated(b, recurrence, f, z_o) * h.emit(b, c_out), c_out], z


# --- backward ---------------------------------------------------------------------------------------------------------


def adjoint_step(
    b: Builder, recurrence: Recurrence, functions: Functions, values: Values
) -> tuple[list[Value], list[Value]]:
    """Emit the adjoint of a step.

    Returns:
        The cotangents of the states that the step started from; then those of the pre-activations and, of a linear GRU, of
        the pre-activations as the recurrent weights see them, of another GRU what r_hidden multiplies.
    """
    held = [values[name] for name in ("dh", "dc") if name in values]
    if "dcells" in values:
        held[1] = held[1] + values["dcells"]
    dh = held[0] + values["dy"] if "dy" in values else held[0]
    if recurrence.kind == "LSTM":
        states, slices = _lstm_adjoint(b, recurrence, functions, values, dh, held[1])
    elif recurrence.kind == "GRU":
        states, slices = _gru_adjoint(b, recurrence, functions, values, dh)
    else:
        _, slope = _gate(b, recurrence, functions[0], values["z"])
        dz = _with_outer(dh * slope, values.get("dgates"))
        states, slices = [dz @ values["r"]], [dz]
    counts = values.get("mask")
    if counts is not None:
        states = [b.op("Where", counts, new, old) for new, old in zip(states, held, strict=True)]
        slices = [keep_where(b, counts, v) for v in slices]
    return states, slices


def _gate(b: Builder, recurrence: Recurrence, function: Activation, z: Value) -> tuple[Value, Value]:
    """A gate and its derivative by its pre-activation."""
    x = _clipped(b, recurrence, z)
    a = function.emit(b, x)
    slope = function.emit_slope(b, x, a)
    if recurrence.clip is not None:
        slope = b.op("Where", b.op("Abs", z) > recurrence.clip, b.scalar(0, z), slope)
    return a, slope


def _with_outer(dz: Value, outer: Value | None) -> Value:
    """The cotangent of pre-activations and that which comes from outside."""
    return dz if outer is None else dz + outer


def _outer(b: Builder, values: Values, number: int) -> Sequence[Value | None]:
    """The cotangents of the saved pre-activations, gate by gate."""
    return _split(b, values["dgates"], number) if "dgates" in values else (None,) * number


def _gru_adjoint(
    b: Builder, recurrence: Recurrence, functions: Functions, values: Values, dh: Value
) -> tuple[list[Value], list[Value]]:
    h, r, (f, g) = values["h"], values["r"], functions
    z = _split(b, values["z"], recurrence.saved)
    outer = _outer(b, values, recurrence.saved)
    update, update_slope = _gate(b, recurrence, f, z[0])
    reset, reset_slope = _gate(b, recurrence, f, z[1])
    hidden, hidden_slope = _gate(b, recurrence, g, z[2])
    dz_update = _with_outer(dh * (h - hidden) * update_slope, outer[0])
    dz_hidden = _with_outer(dh * (1 - update) * hidden_slope, outer[2])
    if recurrence.linear:
        dthrough = _with_outer(dz_hidden * reset, outer[3])
        dz_reset = _with_outer(dz_hidden * z[3] * reset_slope, outer[1])
        seen = b.op("Concat", dz_update, dz_reset, dthrough, axis=1)
        before = dh * update + seen @ r
        further = seen
    else:
        dscaled = dz_hidden @ values["r_hidden"]
        dz_reset = _with_outer(dscaled * h * reset_slope, outer[1])
        before = dh * update + dscaled * reset + b.op("Concat", dz_update, dz_reset, axis=1) @ r
        further = reset * h
    return [before], [b.op("Concat", dz_update, dz_reset, dz_hidden, axis=1), further]


def _lstm_adjoint(
    b: Builder, recurrence: Recurrence, functions: Functions, values: Values, dh: Value, dc: Value
) -> tuple[list[Value], list[Value]]:
    c, c_out, (f, g, h) = values["c"], values["c_out"], functions
    z_i, z_o, z_f, z_c = _split(b, values["z"], 4)
    outer = _outer(b, values, 4)
    i_gate, i_slope = _gate(b, recurrence, f, z_i)
    o_gate, o_slope = _gate(b, recurrence, f, z_o)
    c_gate, c_slope = _gate(b, recurrence, g, z_c)
    hyper = h.emit(b, c_out)
    dz_o = _with_outer(dh * hyper * o_slope, outer[1])
    dc = dc + dh * o_gate * h.emit_slope(b, c_out, hyper)
    peeping = "p_i" in values
    if peeping:
        dc = dc + dz_o * values["p_o"]
    if recurrence.coupled:
        f_gate = 1 - i_gate
        di, dz_f = dc * (c_gate - c), outer[2]
    else:
        f_gate, f_slope = _gate(b, recurrence, f, z_f)
        di, dz_f = dc * c_gate, _with_outer(dc * c * f_slope, outer[2])
    if dz_f is None:
        dz_f = b.zeros_like(dz_o)
    dz_i = _with_outer(di * i_slope, outer[0])
    dz_c = _with_outer(dc * i_gate * c_slope, outer[3])
    before = dc * f_gate
    if peeping:
        before = before + dz_i * values["p_i"] + dz_f * values["p_f"]
    dz = b.op("Concat", dz_i, dz_o, dz_f, dz_c, axis=1)
    return [dz @ values["r"], before], [dz]
