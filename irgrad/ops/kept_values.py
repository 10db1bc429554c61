"""Values of the iterations of a Loop, one kept after another and read again one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.ops.backward_body import BackwardBody
from irgrad.ops.sequence_types import as_known_as
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["Keeping", "Kept", "dtype_of", "empty", "held_as", "keep", "read_kept"]


@dataclass(frozen=True)
class Kept:
    """What a Loop has kept of a value of its body.

    Attributes:
        all: a stack, or a sequence.
        first, length: where the elements of each iteration begin and how many they are, for a value that is a sequence.
        there: in which iterations there was anything, for one that is an optional.
    """

    all: Value
    first: Value | None = None
    length: Value | None = None
    there: Value | None = None

    @property
    def slices(self) -> Value:
        """What tells the number of iterations: something with an element for each."""
        return self.length or self.all


def dtype_of(type: Type) -> np.dtype:
    """The dtype of the tensors that a value of a type is made of."""
    while not isinstance(type, TensorType):
        type = type.element
    return type.dtype


def empty(b: Builder, type: Type) -> Value:
    """A sequence of no elements, or a tensor of none, of the dtype that those of a type have."""
    dtype = dtype_of(type)
    if isinstance(type, TensorType):
        return b.constant(np.zeros((0,) * (type.rank or 0), dtype))
    return b.op("SequenceEmpty", dtype=int(helper.np_dtype_to_tensor_dtype(dtype)))


# --- kept in the body of the forward node -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Keeping:
    """What an iteration keeps of a value: a sequence that has grown by it, and further slices.

    Attributes:
        longer: the sequence after the iteration.
        first, length, there: slices, see `Kept`.
    """

    longer: Value
    first: Value | None = None
    length: Value | None = None
    there: Value | None = None

    @property
    def slices(self) -> list[Value]:
        return [value for value in (self.first, self.length, self.there) if value is not None]

    def kept(self, all: Value, slices: Sequence[Value]) -> Kept:
        """What has been kept after the last iteration: the sequence, and the stacks of the slices."""
        stacks = iter(slices)
        first, length, there = (None if v is None else next(stacks) for v in (self.first, self.length, self.there))
        return Kept(all, first, length, there)


def keep(b: Builder, queue: Value, value: Value) -> Keeping:
    """Append a value of an iteration to a sequence: a tensor, the elements of a sequence, what an optional holds."""
    there, type = None, value.type
    if isinstance(type, OptionalType):
        there, element = b.op("OptionalHasElement", value), type.element
        value = _either(b, there, [value], lambda b, o: b.op("OptionalGetElement", o), lambda b, o: empty(b, element))
    if isinstance(value.type, TensorType):
        return Keeping(b.op("SequenceInsert", queue, value), there=there)
    length = b.op("SequenceLength", value)
    return Keeping(_copied(b, value, length, None, onto=queue), b.op("SequenceLength", queue), length, there)


# --- what the backward body reads -------------------------------------------------------------------------------------


def read_kept(inner: BackwardBody, kept: Kept, trip: Value, like: Value) -> Value:
    """What was kept of `like` in an iteration."""
    b = inner.b
    type = like.type.element if isinstance(like.type, OptionalType) else like.type
    everything, there = inner.capture(kept.all), None if kept.there is None else _slice(inner, kept.there, trip)
    if kept.first is not None and kept.length is not None:
        first, length = _slice(inner, kept.first, trip), _slice(inner, kept.length, trip)
        found = _copied(b, everything, length, first, onto=empty(b, type))
    elif isinstance(kept.all.type, SequenceType):
        found = b.op("SequenceAt", everything, trip)
    else:
        found = _slice(inner, kept.all, trip)
    if there is not None:
        found = _either(b, there, [found], lambda b, v: b.op("Optional", v), lambda b, v: b.op("Optional", type=type))
    return as_known_as(found, like)


def _slice(inner: BackwardBody, stack: Value, trip: Value) -> Value:
    return inner.b.op("Gather", inner.capture(stack), trip, axis=0)


def held_as(b: Builder, value: Value, like: Value) -> Value:
    """A value as an optional, or as what an optional holds, if that is what another value is: a state may be either."""
    if isinstance(value.type, OptionalType) and not isinstance(like.type, OptionalType):
        return as_known_as(b.op("OptionalGetElement", value), like)
    if isinstance(like.type, OptionalType) and not isinstance(value.type, OptionalType):
        return b.op("Optional", value)
    return value


# --- made of standard operations --------------------------------------------------------------------------------------


def _either(
    b: Builder,
    condition: Value,
    captured: Sequence[Value],
    then: Callable[..., Value],
    other: Callable[..., Value],
) -> Value:
    """An If with one result, its branches as functions of a builder and the captured values."""
    branches = {"then_branch": Graph("then"), "else_branch": Graph("else")}
    for graph, branch in zip(branches.values(), (then, other), strict=True):
        inputs = [graph.add_input(f"value_{k}", v.type) for k, v in enumerate(captured)]
        graph.set_outputs([branch(Builder(graph, role=b.role, origin=b.origin), *inputs)])
    return b.node(find_op("If"), [condition, *captured], {**branches, "captured": len(captured)}).outputs[0]


def _copied(b: Builder, elements: Value, count: Value, first: Value | None, *, onto: Value) -> Value:
    """A sequence with `count` elements of another one, from the one numbered `first` on, appended: a Loop of insertions."""
    graph = Graph("copy")
    number = graph.add_input("number", TensorType(np.dtype(np.int64), ()))
    going = graph.add_input("going", TensorType(np.dtype(bool), ()))
    grown = graph.add_input("grown", SequenceType(TensorType(dtype_of(onto.type), None)))
    source = graph.add_input("source", elements.type)
    inside = Builder(graph, role=b.role, origin=b.origin)
    place = number if first is None else inside.op("Add", number, graph.add_input("first", first.type))
    longer = inside.op("SequenceInsert", grown, inside.op("SequenceAt", source, place))
    graph.set_outputs([going, longer])
    captured = [elements] if first is None else [elements, first]
    operands = [count, b.constant(np.array(True)), onto, *captured]
    return b.node(find_op("Loop"), operands, {"body": graph, "captured": len(captured)}).outputs[0]
