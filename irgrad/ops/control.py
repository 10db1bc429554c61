"""Control flow: If, Loop, Scan.

Their subgraphs are `Graph` attributes; see `irgrad.ops.subgraphs` for what becomes of the values that they capture. There
are no gradient rules here, so that a gradient through one of them is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops.subgraphs import Body, Known, joined, plain_operands, single
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Dim, TensorType, Type

ops = OpTable()


# --- If ---------------------------------------------------------------------------------------------------------------

if_ = ops.define("If", defaults={"captured": 0})


@if_.infer
def _if_types(call: Call) -> Sequence[Type]:
    """The types of the branch that is taken where that is known, else what holds for both.

    A branch that does not type-check cannot be the one that is taken: ``If(dim == 1, Squeeze(x), x)`` with a fixed shape.
    """
    types: list[list[Type]] = []
    errors: list[TypeInferenceError] = []
    for name in _possible_branches(call):
        body = Body(call, name)
        body.expect(0, call.n_outputs, exactly=False)
        try:
            types.append([known.type for known in body.infer([])[: call.n_outputs]])
        except TypeInferenceError as error:
            errors.append(error)
    if not types:
        raise errors[0]
    return types[0] if len(types) == 1 else [joined(a, b) for a, b in zip(*types, strict=True)]


def _possible_branches(call: Call) -> list[str]:
    condition = call.contents.get(0)
    if condition is None or not isinstance(condition[0], int):
        return ["then_branch", "else_branch"]
    return ["then_branch" if condition[0] else "else_branch"]


@if_.prepare
def _if(call: Call) -> Kernel:
    branches = {name: Body(call, name).compiled([]) for name in ("then_branch", "else_branch")}

    def kernel(condition: np.ndarray, *captured: Any, out: Any = None) -> Any:
        name = "then_branch" if single(condition, "the condition") else "else_branch"
        return deliver_all(branches[name](*captured)[: call.n_outputs], out)

    return kernel


# --- Loop -------------------------------------------------------------------------------------------------------------

loop = ops.define("Loop", defaults={"captured": 0})


class _Loop:
    """A Loop node: its body, and the types that hold in every iteration.

    Inputs of the body are the iteration number, the condition, states and captured values; its outputs the condition for
    the next iteration, states, and slices of scan outputs.
    """

    def __init__(self, call: Call) -> None:
        operands = call.inputs[: plain_operands(call)]
        self.has_count, self.has_condition = call.has(0) and len(operands) > 0, call.has(1) and len(operands) > 1
        self.body = Body(call, "body")
        initial = [_present(call, t) for t in operands[2:]]
        self.n_states = len(initial)
        self.body.expect(2 + self.n_states, 1 + max(self.n_states, call.n_outputs), exactly=False)
        self.head = [_one_element(value.type) for value in self.body.own[:2]]
        self.states = self.body.invariant([Known(t) for t in self.head], initial, [], 1)
        results = self.body.infer(self.inputs())
        self.slices = [_tensor(known.type) for known in results[1 + self.n_states :]]

    def inputs(self, condition: tuple[Dim, ...] | None = None) -> list[Known]:
        """What is known of the inputs of the body that are not captured."""
        return [Known(self.head[0]), Known(self.head[1], condition), *map(Known, self.states)]

    def trips(self, call: Call) -> Dim:
        """The number of iterations where it is known: nothing ends the loop but its trip count."""
        counted = call.contents.get(0)
        if not self.has_count or counted is None:
            return None
        if self.has_condition:
            true = (1,)
            if call.contents.get(1) != true or self.body.infer(self.inputs(true))[0].contents != true:
                return None
        return max(counted[0], 0) if isinstance(counted[0], int) else counted[0]


@loop.infer
def _loop_types(call: Call) -> Sequence[Type]:
    parts = _Loop(call)
    trips = parts.trips(call)
    return [*parts.states, *(_stacked(t, trips, 0) for t in parts.slices)][: call.n_outputs]


@loop.prepare
def _loop(call: Call) -> Kernel:
    """The meaning of absent operands is the table in ONNX's own description: without `cond`, the body's does not count."""
    parts = _Loop(call)
    if not parts.has_count and not parts.has_condition:
        raise ExecutionError("a Loop with neither a trip count nor a condition would never end")
    step = parts.body.compiled(parts.inputs())
    number_type, condition_type = parts.head
    first_captured, n_states = plain_operands(call), parts.n_states

    def kernel(*operands: Any, out: Any = None) -> Any:
        limit = single(operands[0], "the trip count") if parts.has_count else None
        going = bool(single(operands[1], "the condition")) if parts.has_condition else True
        states, captured = list(operands[2:first_captured]), operands[first_captured:]
        collected: list[list[np.ndarray]] = [[] for _ in parts.slices]
        for trip in count():
            if not going or (limit is not None and trip >= limit):
                break
            number = np.full(number_type.static_shape or (), trip, number_type.dtype)
            condition = np.full(condition_type.static_shape or (), going)
            result = step(number, condition, *states, *captured)
            if parts.has_condition:
                going = bool(single(result[0], "the condition"))
            states = result[1 : 1 + n_states]
            for slices, part in zip(collected, result[1 + n_states :], strict=True):
                slices.append(part)
        stacked = [_stack(slices, t, 0) for slices, t in zip(collected, parts.slices, strict=True)]
        return deliver_all([*states, *stacked][: call.n_outputs], out)

    return kernel


def _one_element(type: Type) -> TensorType:
    """The type of the iteration number or the condition in a body: as declared, one element of rank 0 or more."""
    declared = _tensor(type)
    return declared.with_shape((1,) * (declared.rank or 0))


# --- Scan -------------------------------------------------------------------------------------------------------------

scan = ops.define("Scan", defaults={"captured": 0})


class _Scan:
    """A Scan node: its body, the types that hold in every iteration, and along which axes it goes which way.

    Inputs of the body are states, slices of the scanned operands, and captured values; its outputs states, and slices of
    scan outputs.
    """

    def __init__(self, call: Call) -> None:
        operands = [_present(call, t) for t in call.inputs[: plain_operands(call)]]
        n_scanned = int(call.attrs.get("num_scan_inputs", 0))
        self.n_states = len(operands) - n_scanned
        if n_scanned < 1 or self.n_states < 0:
            raise TypeInferenceError(f"Scan with {len(operands)} operands cannot scan {n_scanned} of them")
        self.scanned = [_tensor(t) for t in operands[self.n_states :]]
        self.body = Body(call, "body")
        self.body.expect(len(operands), max(self.n_states, call.n_outputs), exactly=False)
        n_slices = len(self.body.outputs) - self.n_states
        axes = _per_operand(call, "scan_input_axes", n_scanned)
        self.axes = [_axis(a, t.rank) for a, t in zip(axes, self.scanned, strict=True)]
        self.reverse = _flags(call, "scan_input_directions", n_scanned)
        self.out_axes = _per_operand(call, "scan_output_axes", n_slices)
        self.out_reverse = _flags(call, "scan_output_directions", n_slices)
        parts = [Known(_without_axis(t, axis)) for t, axis in zip(self.scanned, self.axes, strict=True)]
        self.states = self.body.invariant([], operands[: self.n_states], parts, 0)
        self.inputs = [*map(Known, self.states), *parts]
        self.slices = [_tensor(known.type) for known in self.body.infer(self.inputs)[self.n_states :]]

    def trips(self) -> Dim:
        """The common length of the scanned axes.

        Raises:
            TypeInferenceError: two are known and differ.
        """
        lengths = [None if t.shape is None else t.shape[axis] for t, axis in zip(self.scanned, self.axes, strict=True)]
        known = sorted({n for n in lengths if isinstance(n, int)})
        if len(known) > 1:
            raise TypeInferenceError(f"Scan goes along axes of different lengths: {', '.join(map(str, known))}")
        return known[0] if known else next((n for n in lengths if n is not None), None)


@scan.infer
def _scan_types(call: Call) -> Sequence[Type]:
    parts = _Scan(call)
    trips = parts.trips()
    stacked = [_stacked(t, trips, axis) for t, axis in zip(parts.slices, parts.out_axes, strict=True)]
    return [*parts.states, *stacked][: call.n_outputs]


@scan.prepare
def _scan(call: Call) -> Kernel:
    parts = _Scan(call)
    step = parts.body.compiled(parts.inputs)
    first_captured, n_states = plain_operands(call), parts.n_states

    def kernel(*operands: Any, out: Any = None) -> Any:
        states, captured = list(operands[:n_states]), operands[first_captured:]
        scanned = [np.moveaxis(x, axis, 0) for x, axis in zip(operands[n_states:first_captured], parts.axes, strict=True)]
        scanned = [x[::-1] if reverse else x for x, reverse in zip(scanned, parts.reverse, strict=True)]
        lengths = sorted({len(x) for x in scanned})
        if len(lengths) > 1:
            raise ExecutionError(f"the scanned axes have different lengths: {', '.join(map(str, lengths))}")
        collected: list[list[np.ndarray]] = [[] for _ in parts.slices]
        for trip in range(lengths[0]):
            result = step(*states, *(x[trip, ...] for x in scanned), *captured)
            states = result[:n_states]
            for slices, part in zip(collected, result[n_states:], strict=True):
                slices.append(part)
        stacked = [
            _stack(slices[::-1] if reverse else slices, t, axis)
            for slices, t, axis, reverse in zip(collected, parts.slices, parts.out_axes, parts.out_reverse, strict=True)
        ]
        return deliver_all([*states, *stacked][: call.n_outputs], out)

    return kernel


def _per_operand(call: Call, name: str, number: int) -> list[int]:
    """One integer for each scanned operand or output; the default is 0 for all of them."""
    values = call.attrs.get(name)
    if values is None:
        return [0] * number
    if len(values) != number:
        raise TypeInferenceError(f"Scan has {len(values)} values in {name!r}, but {number} are needed")
    return [int(v) for v in values]


def _flags(call: Call, name: str, number: int) -> list[bool]:
    values = _per_operand(call, name, number)
    if any(v not in (0, 1) for v in values):
        raise TypeInferenceError(f"Scan has {values} in {name!r}, but a direction is 0 (forward) or 1 (backward)")
    return [v == 1 for v in values]


def _axis(axis: int, rank: int | None) -> int:
    if rank is None:
        return axis
    if not -rank <= axis < rank:
        raise TypeInferenceError(f"Scan goes along the axis {axis} of a tensor of rank {rank}")
    return axis % rank


def _without_axis(type: TensorType, axis: int) -> TensorType:
    if type.shape is None:
        return type
    return type.with_shape((*type.shape[:axis], *type.shape[axis + 1 :]))


# --- scan outputs -----------------------------------------------------------------------------------------------------


def _stacked(part: TensorType, trips: Dim, axis: int) -> TensorType:
    """The type of a scan output: that of its slices with a further axis."""
    if part.shape is None:
        return part
    position = _axis(axis, len(part.shape) + 1)
    return part.with_shape((*part.shape[:position], trips, *part.shape[position:]))


def _stack(slices: Sequence[np.ndarray], part: TensorType, axis: int) -> np.ndarray:
    """A scan output from its slices; without any, dimensions that are unknown are taken to be 0."""
    if slices:
        shapes = {x.shape for x in slices}
        if len(shapes) > 1:
            raise ExecutionError(f"iterations gave slices of different shapes for one scan output: {sorted(shapes)}")
        return np.stack(slices, axis)
    shape = [d if isinstance(d, int) else 0 for d in _stacked(part, 0, axis).shape or (0,)]
    return np.full(shape, "", object) if part.dtype.hasobject else np.zeros(shape, part.dtype)


def _present(call: Call, type: Type | None) -> Type:
    if type is None:
        raise TypeInferenceError(f"an operand of {call.op.qualified_name} that has to be there is absent")
    return type


def _tensor(type: Type) -> TensorType:
    if not isinstance(type, TensorType):
        raise TypeInferenceError(f"only tensors can be scanned or stacked, not a {type}")
    return type
