"""RNN, GRU and LSTM and their adjoints in standard operations: a Scan over the steps for each direction.

What needs no state stands outside of the Scan: the projection of the inputs, and the products that give the cotangents of
the weights. Arrays of all steps are [steps, batch, ...], those of one step in the body [batch, ...].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.ops.dims import Size, dim_of, join_sizes
from irgrad.ops.elementwise import keep_where
from irgrad.ops.recurrent_settings import C0, H0, LENS, B, P, R, Recurrence, W, X
from irgrad.ops.recurrent_steps import adjoint_step, forward_step
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.types import TensorType, without_symbols

__all__ = ["lower_adjoint", "lower_forward"]

_END = 2**62  # as an end of a slice: to the last element


class _Scan:
    """A Scan under construction.

    Args:
        b: where to.
        states: name → initial value.
        scanned: name → value of which each step gets a slice along axis 0.
        captured: name → value that all steps read.

    Attributes:
        inside: emits into the body.
        values: name → value in the body, for everything that is not None.
    """

    def __init__(
        self,
        b: Builder,
        states: Mapping[str, Value],
        scanned: Mapping[str, Value | None],
        captured: Mapping[str, Value | None],
    ) -> None:
        self._b, self._body = b, Graph("step")
        self.inside = Builder(self._body)
        self.values: dict[str, Value] = {}
        self._operands: list[Value] = []
        self._numbers = [self._add(group, sliced=group is scanned) for group in (states, scanned, captured)]

    def _add(self, group: Mapping[str, Value | None], *, sliced: bool) -> int:
        present = {name: value for name, value in group.items() if value is not None}
        for name, value in present.items():
            type = without_symbols(value.type)
            if sliced and isinstance(type, TensorType) and type.shape is not None:
                type = type.with_shape(type.shape[1:])
            self.values[name] = self._body.add_input(name, type)
            self._operands.append(value)
        return len(present)

    def finish(self, states: Sequence[Value], slices: Sequence[Value], *, reverse: bool) -> tuple[Value, ...]:
        """Emit the Scan, given the next states and the slices of its further outputs; final states, then stacked slices."""
        named = {f"next_{k}": value for k, value in enumerate(states)}
        named.update({f"slice_{k}": value for k, value in enumerate(slices)})
        self._body.set_outputs(named)
        _, scanned, captured = self._numbers
        attrs = {"body": self._body, "num_scan_inputs": scanned, "captured": captured}
        if reverse:
            attrs |= {"scan_input_directions": (1,) * scanned, "scan_output_directions": (1,) * len(slices)}
        return self._b.node(find_op("Scan"), self._operands, attrs, outputs=len(named)).outputs


class _Layer:
    """The operands of a layer as values in the dtype to compute in, and what is told of them in several places."""

    def __init__(self, b: Builder, recurrence: Recurrence, operands: Sequence[Value | None], dtype: np.dtype) -> None:
        self.b, self.recurrence, self.dtype = b, recurrence, accumulation_dtype(dtype)
        self.lens = operands[LENS] if len(operands) > LENS else None
        self._operands = [None if v is None or k == LENS else b.cast(v, self.dtype) for k, v in enumerate(operands)]

    def operand(self, position: int) -> Value | None:
        return self._operands[position] if position < len(self._operands) else None

    def needed(self, position: int) -> Value:
        found = self.operand(position)
        assert found is not None
        return found

    @cached_property
    def hidden(self) -> Size:
        return dim_of(self.b, self.needed(R), 2)

    @cached_property
    def x(self) -> Value:
        """The inputs, [steps, batch, size]."""
        return self.batch_second(self.needed(X))

    def zeros(self, batch: Size) -> Value:
        """A state of zeros."""
        return self.b.op("ConstantOfShape", join_sizes(self.b, batch, self.hidden), value=np.zeros(1, self.dtype))

    def mask(self, steps: Size) -> Value | None:
        """Whether a step counts, [steps, batch, 1]; None where all do."""
        lens, b = self.lens, self.b
        if lens is None:
            return None
        if isinstance(steps, int):
            numbers = b.constant(np.arange(steps)[:, None, None])
        else:
            count = b.op("Squeeze", steps, b.ints([0]))
            zero, one = b.constant(np.array(0, np.int64)), b.constant(np.array(1, np.int64))
            numbers = b.op("Unsqueeze", b.op("Range", zero, count, one), b.ints([1, 2]))
        return numbers < b.op("Unsqueeze", b.cast(lens, np.dtype(np.int64)), b.ints([1]))

    def part(self, value: Value, d: int, axis: int = 0) -> Value:
        """What belongs to one direction."""
        if len(self.recurrence.reverse) == 1:
            return self.b.op("Squeeze", value, self.b.ints([axis]))
        return self.b.op("Gather", value, self.b.constant(np.array(d, np.int64)), axis=axis)

    def joined(self, parts: Sequence[Value], axis: int = 0) -> Value:
        """The directions put together along a new axis."""
        spread = [self.b.op("Unsqueeze", part, self.b.ints([axis])) for part in parts]
        return spread[0] if len(spread) == 1 else self.b.op("Concat", *spread, axis=axis)

    def batch_second(self, value: Value) -> Value:
        """X or a state as an operand with its batch axis second, or such a one as an operand."""
        return self.b.op("Transpose", value, perm=(1, 0, 2)) if self.recurrence.batch_first else value

    def initial(self, position: int, d: int) -> Value | None:
        found = self.operand(position)
        return None if found is None else self.part(self.batch_second(found), d)

    def sequence(self, y: Value, d: int) -> Value:
        """One direction of Y or its cotangent, [steps, batch, H]."""
        part = self.part(self.b.cast(y, self.dtype), d, axis=2 if self.recurrence.batch_first else 1)
        return self.batch_second(part)

    def blocks(self, value: Value, axis: int) -> Sequence[Value]:
        """The first two blocks of H, and the third one: what a GRU's weights of the reset and update gates are."""
        double = 2 * self.hidden if isinstance(self.hidden, int) else self.b.op("Mul", self.hidden, 2)
        return self.b.multi("Split", value, join_sizes(self.b, double, self.hidden), outputs=2, axis=axis)

    def peepholes(self, d: int) -> dict[str, Value | None]:
        p = self.operand(P)
        if p is None:
            return {}
        return dict(
            zip(("p_i", "p_o", "p_f"), self.b.multi("Split", self.part(p, d), outputs=3, num_outputs=3), strict=True)
        )


# --- forward ----------------------------------------------------------------------------------------------------------


def lower_forward(
    b: Builder, recurrence: Recurrence, operands: Sequence[Value | None], *, saving: bool
) -> tuple[Value, ...]:
    """Emit a layer; the results are those of `irgrad.ops.recurrent_kernels.run`."""
    x = operands[X]
    assert x is not None
    layer = _Layer(b, recurrence, operands, x.dtype)
    steps, batch = dim_of(b, layer.x, 0), dim_of(b, layer.x, 1)
    mask = layer.mask(steps)
    n_states, kept = recurrence.n_states, recurrence.n_states + 1
    found = [_forward_direction(layer, d, batch, mask, saving=saving) for d in range(len(recurrence.reverse))]
    by_output = list(zip(*found, strict=True))
    y = layer.joined(by_output[n_states], axis=1)
    if recurrence.batch_first:
        y = b.op("Transpose", y, perm=(2, 0, 1, 3))
    ends = [layer.batch_second(layer.joined(parts)) for parts in by_output[:n_states]]
    return (*(b.cast(v, x.dtype) for v in (y, *ends)), *(layer.joined(parts) for parts in by_output[kept:]))


def _forward_direction(layer: _Layer, d: int, batch: Size, mask: Value | None, *, saving: bool) -> tuple[Value, ...]:
    """The final states, the states after all steps and, when saving, the pre-activations and cells of one direction."""
    b, recurrence = layer.b, layer.recurrence
    projected = b.op("MatMul", layer.x, b.op("Transpose", layer.part(layer.needed(W), d), perm=(1, 0)))
    captured = layer.peepholes(d)
    bias, recurrent_bias = _biases(layer, d)
    if bias is not None:
        projected = projected + bias
    r = b.op("Transpose", layer.part(layer.needed(R), d), perm=(1, 0))
    if recurrence.kind == "GRU" and not recurrence.linear:
        captured["r"], captured["r_hidden"] = layer.blocks(r, 1)
    else:
        captured |= {"r": r, "bias": recurrent_bias}
    positions = (H0, C0)[: recurrence.n_states]
    initial = [layer.initial(position, d) or layer.zeros(batch) for position in positions]
    scan = _Scan(b, dict(zip("hc", initial, strict=False)), {"z": projected, "mask": mask}, captured)
    with scan.inside as inner:
        states, z = forward_step(inner, recurrence, recurrence.functions[d], scan.values)
        counts = scan.values.get("mask")
        y = states[0]
        if counts is not None:
            y, z = keep_where(inner, counts, y), keep_where(inner, counts, z)
            before = [scan.values[name] for name in "hc"[: len(states)]]
            states = [inner.op("Where", counts, new, old) for new, old in zip(states, before, strict=True)]
    further = [z, *states[1:]] if saving else []
    return scan.finish(states, [y, *further], reverse=recurrence.reverse[d])


def _biases(layer: _Layer, d: int) -> tuple[Value | None, Value | None]:
    """What is added to the projected inputs, and what a linear GRU adds to the recurrent part of its hidden gate."""
    b, found = layer.b, layer.operand(B)
    if found is None:
        return None, None
    of_input, of_recurrence = b.multi("Split", layer.part(found, d), outputs=2, num_outputs=2)
    if not layer.recurrence.linear:
        return of_input + of_recurrence, None
    for_gates, for_hidden = layer.blocks(of_recurrence, 0)
    gates, hidden = layer.blocks(of_input, 0)
    return b.op("Concat", gates + for_gates, hidden, axis=0), for_hidden


# --- backward ---------------------------------------------------------------------------------------------------------


def lower_adjoint(
    b: Builder,
    recurrence: Recurrence,
    cotangents: Sequence[Value | None],
    saved: Sequence[Value],
    operands: Sequence[Value | None],
    wrt: Sequence[int],
) -> tuple[Value, ...]:
    """Emit the adjoint of a layer; the arguments are those of `irgrad.ops.recurrent_kernels.run_adjoint`."""
    y, gates = saved[0], saved[1]
    layer = _Layer(b, recurrence, operands, y.dtype)
    steps, batch = dim_of(b, gates, 1), dim_of(b, gates, 2)
    mask = layer.mask(steps)
    found = [_AdjointDirection(layer, d, cotangents, saved, batch, mask) for d in range(len(recurrence.reverse))]
    results = []
    for position in wrt:
        parts = [part.of(position) for part in found]
        if position == X:
            result = layer.batch_second(parts[0] if len(parts) == 1 else b.op("Add", *parts))
        else:
            result = layer.joined(parts)
            if position in (H0, C0):
                result = layer.batch_second(result)
        results.append(b.cast(result, y.dtype))
    return tuple(results)


class _AdjointDirection:
    """The adjoint of one direction; [steps, batch, ...] cotangents of its pre-activations and all that follows from them."""

    def __init__(
        self,
        layer: _Layer,
        d: int,
        cotangents: Sequence[Value | None],
        saved: Sequence[Value],
        batch: Size,
        mask: Value | None,
    ) -> None:
        b, recurrence = layer.b, layer.recurrence
        self.layer, self.d, self.mask = layer, d, mask
        n_outputs, n_states = recurrence.n_outputs, recurrence.n_states
        self._y, self._batch = saved[0], batch
        self.cells = layer.part(saved[2], d) if recurrence.has_cells else None
        self.cells_started = None if self.cells is None else self._started(self.cells, C0)
        dy = cotangents[0]
        ends = [
            None if g is None else layer.part(layer.batch_second(b.cast(g, layer.dtype)), d) for g in cotangents[1:n_outputs]
        ]
        inside = [None if g is None else layer.part(g, d) for g in cotangents[n_outputs:]]
        scanned = {
            "z": layer.part(saved[1], d),
            "h": self.started if recurrence.kind == "GRU" else None,
            "c": self.cells_started,
            "c_out": self.cells,
            "dy": None if dy is None else layer.sequence(dy, d),
            **dict(zip(("dgates", "dcells"), inside, strict=False)),
            "mask": mask,
        }
        captured = layer.peepholes(d)
        r = layer.part(layer.needed(R), d)
        self.scaled = recurrence.kind == "GRU" and not recurrence.linear
        if self.scaled:
            captured["r"], captured["r_hidden"] = layer.blocks(r, 0)
        else:
            captured["r"] = r
        states = {f"d{name}": end or layer.zeros(batch) for name, end in zip("hc", ends, strict=False)}
        scan = _Scan(b, states, scanned, captured)
        with scan.inside as inner:
            before, slices = adjoint_step(inner, recurrence, recurrence.functions[d], scan.values)
        found = scan.finish(before, slices, reverse=not recurrence.reverse[d])
        self.states, self.dz = found[:n_states], found[n_states]
        self.further = found[n_states + 1] if len(found) > n_states + 1 else None

    @cached_property
    def started(self) -> Value:
        """The states that the steps started from."""
        return self._started(self.layer.sequence(self._y, self.d), H0)

    def _started(self, made: Value, position: int) -> Value:
        """The states (or cells) that the steps started from, given those that they made."""
        layer, b, reverse = self.layer, self.layer.b, self.layer.recurrence.reverse[self.d]
        given = layer.initial(position, self.d)
        initial = given or layer.zeros(self._batch)
        if reverse and given is not None and self.mask is not None and position == H0:
            # Behind the end of a sequence, where Y is 0, the state is still the initial one. Cells are saved as they are.
            made = b.op("Where", self.mask, made, given)
        first = b.op("Unsqueeze", initial, b.ints([0]))
        longer = b.op("Concat", *((made, first) if reverse else (first, made)), axis=0)
        starts, ends = ([1], [_END]) if reverse else ([0], [-1])
        return b.op("Slice", longer, b.ints(starts), b.ints(ends), b.ints([0]))

    def of(self, position: int) -> Value:
        """The cotangent of the part of an operand that belongs to the direction."""
        layer, b, linear = self.layer, self.layer.b, self.layer.recurrence.linear
        if position in (H0, C0):
            return self.states[0 if position == H0 else 1]
        if position == X:
            return b.op("MatMul", self.dz, layer.part(layer.needed(W), self.d))
        if position == W:
            x = layer.x if self.mask is None else keep_where(b, self.mask, layer.x)
            return b.op("Einsum", self.dz, x, equation="tbg,tbi->gi")
        recurrent = self.further if linear and self.further is not None else self.dz
        if position == B:
            sums = [b.reduce_sum(v, [0, 1]) for v in ((self.dz, recurrent) if linear else (self.dz,))]
            return b.op("Concat", sums[0], sums[-1], axis=0)
        if position == P:
            return self._of_p()
        if not self.scaled or self.further is None:
            return b.op("Einsum", recurrent, self.started, equation="tbg,tbh->gh")
        parts = zip(layer.blocks(self.dz, 2), (self.started, self.further), strict=True)
        return b.op("Concat", *(b.op("Einsum", dz, seen, equation="tbg,tbh->gh") for dz, seen in parts), axis=0)

    def _of_p(self) -> Value:
        """The peepholes of i and f see the cells that a step started from, that of o those that it made."""
        b = self.layer.b
        gates = b.multi("Split", self.dz, outputs=4, axis=2, num_outputs=4)
        seen = (self.cells_started, self.cells, self.cells_started)
        sums = [b.op("Einsum", dz, cells, equation="tbh,tbh->h") for dz, cells in zip(gates, seen, strict=False)]
        return b.op("Concat", *sums, axis=0)
