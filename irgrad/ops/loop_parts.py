"""What Loop and Scan nodes consist of: their bodies, the types that hold in every iteration, and stacks of slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.contents import Contents
from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.op import Call
from irgrad.ops.subgraphs import Body, Known, plain_operands
from irgrad.types import Dim, TensorType, Type

__all__ = ["LoopParts", "ScanParts", "stack", "stacked"]

_TRUE = (1,)


class LoopParts:
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
        self.states, self._results = self.body.invariant([Known(t) for t in self.head], initial, [], 1)
        self.slices = [_tensor(known.type) for known in self._results[1 + self.n_states :]]

    def inputs(self, condition: Contents | None = None) -> list[Known]:
        """What is known of the inputs of the body that are not captured."""
        return [Known(self.head[0]), Known(self.head[1], condition), *map(Known, self.states)]

    def is_counted(self, call: Call) -> bool:
        """Whether it is known that nothing ends the loop but its trip count."""
        if not self.has_count or not self.has_condition:
            return self.has_count
        if call.contents.get(1) != _TRUE:
            return False
        if self.body.outputs[0] is self.body.own[1] or self._results[0].contents == _TRUE:
            return True
        return self.body.infer(self.inputs(_TRUE))[0].contents == _TRUE

    def trips(self, call: Call) -> Dim:
        """The number of iterations where it is known."""
        counted = call.contents.get(0)
        if counted is None or not self.is_counted(call):
            return None
        return max(counted[0], 0) if isinstance(counted[0], int) else counted[0]


def _one_element(type: Type) -> TensorType:
    """The type of the iteration number or the condition in a body: as declared, one element of rank 0 or more."""
    declared = _tensor(type)
    return declared.with_shape((1,) * (declared.rank or 0))


class ScanParts:
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
        self.states, results = self.body.invariant([], operands[: self.n_states], parts, 0)
        self.inputs = [*map(Known, self.states), *parts]
        self.slices = [_tensor(known.type) for known in results[self.n_states :]]

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


def stacked(part: TensorType, trips: Dim, axis: int) -> TensorType:
    """The type of a scan output: that of its slices with a further axis."""
    if part.shape is None:
        return part
    position = _axis(axis, len(part.shape) + 1)
    return part.with_shape((*part.shape[:position], trips, *part.shape[position:]))


def stack(slices: Sequence[np.ndarray], part: TensorType, axis: int) -> np.ndarray:
    """A scan output from its slices; without any, dimensions that are unknown are taken to be 0."""
    if slices:
        shapes = {x.shape for x in slices}
        if len(shapes) > 1:
            raise ExecutionError(f"iterations gave slices of different shapes for one scan output: {sorted(shapes)}")
        return np.stack(slices, axis)
    shape = [d if isinstance(d, int) else 0 for d in stacked(part, 0, axis).shape or (0,)]
    return np.full(shape, "", object) if part.dtype.hasobject else np.zeros(shape, part.dtype)


def _present(call: Call, type: Type | None) -> Type:
    if type is None:
        raise TypeInferenceError(f"an operand of {call.op.qualified_name} that has to be there is absent")
    return type


def _tensor(type: Type) -> TensorType:
    if not isinstance(type, TensorType):
        raise TypeInferenceError(f"only tensors can be scanned or stacked, not a {type}")
    return type
