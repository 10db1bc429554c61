"""What adjoints do with sequences, as loops over their elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from onnx import helper

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.types import SequenceType, TensorType

__all__ = ["lower_sizes", "lower_sum", "lower_zeros"]

Step: TypeAlias = "Callable[[Builder, list[Value]], Value]"
"""Emits what becomes of the elements of some sequences that are at one place."""


def lower_sum(b: Builder, sequences: Sequence[Value]) -> Value:
    """Emit the sequence of the sums of the elements at the same places of sequences of one length."""
    return _sequence_of(b, sequences, lambda inner, elements: inner.total(elements))


def lower_zeros(b: Builder, sequence: Value) -> Value:
    """Emit the sequence of zeros of the shapes of the elements of a sequence."""
    return _sequence_of(b, [sequence], lambda inner, elements: inner.zeros_like(elements[0]))


def lower_sizes(b: Builder, sequence: Value, axis: int) -> Value:
    """Emit the sizes of the elements of a sequence along an axis, as a one-dimensional int64 tensor."""
    end = None if axis == -1 else axis + 1
    return _loop(
        b, [sequence], None, lambda inner, elements: inner.op("Squeeze", inner.op("Shape", elements[0], start=axis, end=end))
    )


def _sequence_of(b: Builder, sequences: Sequence[Value], step: Step) -> Value:
    """The sequence of what a step gives for the elements at one place after another."""
    type = sequences[0].type
    assert isinstance(type, SequenceType)
    assert isinstance(type.element, TensorType)
    empty = b.op("SequenceEmpty", dtype=int(helper.np_dtype_to_tensor_dtype(type.element.dtype)))
    return _loop(b, sequences, empty, step)


def _loop(b: Builder, sequences: Sequence[Value], empty: Value | None, step: Step) -> Value:
    """A Loop over the places of sequences of one length.

    Args:
        b: where it goes.
        sequences: what it reads.
        empty: a sequence to which the results are appended; without it they are stacked into one tensor.
        step: what is done at each place.
    """
    body = Graph("element")
    place = body.add_input("place", TensorType(np.dtype(np.int64), ()))
    going = body.add_input("going", TensorType(np.dtype(bool), ()))
    before = None if empty is None else body.add_input("before", empty.type)
    read = [body.add_input(f"sequence_{k}", sequence.type) for k, sequence in enumerate(sequences)]
    inner = Builder(body)
    result = step(inner, [inner.op("SequenceAt", sequence, place) for sequence in read])
    after = result if before is None else inner.op("SequenceInsert", before, result)
    body.set_outputs({"going": going, "after": after})
    states = [] if empty is None else [empty]
    operands = [b.op("SequenceLength", sequences[0]), None, *states, *sequences]
    return b.node(find_op("Loop"), operands, {"body": body, "captured": len(sequences)}).outputs[0]
