"""Sequences: lists of tensors, made, read and changed element by element; tensors cut into them and joined out of them.

A sequence is a Python list of arrays at run time, and no kernel changes the one that it is given. The cotangent of a
sequence is a sequence of the same length whose elements have the same shapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, OpTable
from irgrad.ops.sequence_kernels import join, place_of, sum_of_sequences, zeros_of_sequence
from irgrad.ops.sequence_lowering import lower_sizes, lower_sum, lower_zeros
from irgrad.ops.sequence_types import as_known_as, element_of, element_of_sum, joined_elements, part_size, with_axis
from irgrad.runtime.kernels import deliver
from irgrad.types import SequenceType, TensorType, Type, dtype_of_element

ops = OpTable()

# --- made -------------------------------------------------------------------------------------------------------------

sequence_empty = ops.define("SequenceEmpty", gradient=ZERO, defaults={"dtype": int(TensorProto.FLOAT)})


@sequence_empty.kernel
def _empty(*, dtype: int, out: None = None) -> list[np.ndarray]:
    return []


@sequence_empty.infer
def _empty_type(call: Call) -> Sequence[Type]:
    return [SequenceType(TensorType(dtype_of_element(call.attrs["dtype"]), None))]


sequence_construct = ops.define("SequenceConstruct")


@sequence_construct.kernel
def _construct(*elements: np.ndarray, out: None = None) -> list[np.ndarray]:
    return list(elements)


@sequence_construct.infer
def _construct_type(call: Call) -> Sequence[Type]:
    return [SequenceType(joined_elements(call, [call.tensor(k) for k in range(len(call.inputs))]))]


@sequence_construct.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    return [
        as_known_as(b.op("SequenceAt", dy, _number(b, k)), x) if b.needs(x) else None
        for k, x in enumerate(node.operand(k) for k in range(len(node.inputs)))
    ]


def _number(b: Builder, k: int) -> Value:
    return b.constant(np.array(k, np.int64))


# --- elements ---------------------------------------------------------------------------------------------------------

sequence_at = ops.define("SequenceAt")


@sequence_at.kernel
def _at(sequence: list[np.ndarray], position: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(sequence[place_of(position, len(sequence))], out)


@sequence_at.infer
def _at_type(call: Call) -> Sequence[Type]:
    return [element_of(call, 0)]


@sequence_at.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """The cotangent among zeros."""
    sequence, position = node.operand(0), node.operand(1)
    others = b.op("SequenceErase", b.zeros_like(sequence), position)
    return (as_known_as(b.op("SequenceInsert", others, dy, _place(b, sequence, position)), sequence),)


def _place(b: Builder, sequence: Value, position: Value | None) -> Value | None:
    """Where an element has to be put into the sequence of the others; None for the end.

    SequenceInsert counts a negative position from the end of a sequence that is shorter by one.
    """
    if position is None:
        return None
    if position.contents is not None and isinstance(known := position.contents[0], int):
        return position if known >= 0 else None if known == -1 else _number(b, known + 1)
    length = b.cast(b.op("SequenceLength", sequence), position.dtype)
    return b.op("Where", position < 0, position + length, position)


sequence_insert = ops.define("SequenceInsert")


@sequence_insert.kernel
def _insert(
    sequence: list[np.ndarray], element: np.ndarray, position: np.ndarray | None = None, *, out: None = None
) -> list[np.ndarray]:
    length = len(sequence)
    place = length if position is None else place_of(position, length, last=length)
    return [*sequence[:place], element, *sequence[place:]]


@sequence_insert.infer
def _insert_type(call: Call) -> Sequence[Type]:
    return [SequenceType(joined_elements(call, [element_of(call, 0), call.tensor(1)]))]


@sequence_insert.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | None]:
    """What was inserted is taken out again, without a look at the sequence: a Loop that grows one need not keep it."""
    sequence, element, position = node.operand(0), node.operand(1), node.input(2)
    if position is None:
        place = None
    elif position.contents is not None and isinstance(known := position.contents[0], int):
        place = position if known >= 0 else _number(b, known - 1)
    else:
        # Counted from the end of a sequence that is longer by one.
        place = b.op("Where", position < 0, position - 1, position)
    dsequence = delement = None
    if b.needs(sequence):
        dsequence = as_known_as(b.op("SequenceErase", dy, place), sequence)
    if b.needs(element):
        delement = as_known_as(b.op("SequenceAt", dy, _number(b, -1) if place is None else place), element)
    return dsequence, delement


sequence_erase = ops.define("SequenceErase")


@sequence_erase.kernel
def _erase(sequence: list[np.ndarray], position: np.ndarray | None = None, *, out: None = None) -> list[np.ndarray]:
    place = place_of(np.array(-1) if position is None else position, len(sequence))
    return [*sequence[:place], *sequence[place + 1 :]]


@sequence_erase.infer
def _erase_type(call: Call) -> Sequence[Type]:
    return [SequenceType(element_of(call, 0))]


@sequence_erase.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """Zeros in the place of what was taken out."""
    sequence, position = node.operand(0), node.input(1)
    erased = b.op("SequenceAt", sequence, _number(b, -1) if position is None else position)
    place = _place(b, sequence, position)
    return (as_known_as(b.op("SequenceInsert", dy, b.zeros_like(erased), place), sequence),)


sequence_length = ops.define("SequenceLength", gradient=ZERO)


@sequence_length.kernel
def _length(sequence: list[np.ndarray], *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.array(len(sequence), np.int64), out)


@sequence_length.infer
def _length_type(call: Call) -> Sequence[Type]:
    element_of(call, 0)
    return [TensorType(np.dtype(np.int64), ())]


# --- cut and joined ---------------------------------------------------------------------------------------------------

split_to_sequence = ops.define("SplitToSequence")


@split_to_sequence.kernel
def _split_to_sequence(
    x: np.ndarray, sizes: np.ndarray | None = None, *, axis: int = 0, keepdims: int = 1, out: None = None
) -> list[np.ndarray]:
    length = x.shape[axis]
    if sizes is None and not keepdims:
        parts = np.moveaxis(x, axis, 0)
        return [parts[k, ...] for k in range(length)]  # arrays, also where these have no axis left
    if sizes is None or sizes.ndim == 0:
        chunk = 1 if sizes is None else int(sizes)
        if chunk < 1:
            raise ValueError(f"parts of {chunk} elements do not add up to an axis of {length}")
        ends = list(range(chunk, length, chunk)) + [length] * (length > 0)
    else:
        ends = np.cumsum(sizes, dtype=np.int64).tolist()
        if any(size < 0 for size in sizes.tolist()) or (ends[-1] if ends else 0) != length:
            raise ValueError(f"parts of {', '.join(map(str, sizes.tolist()))} elements do not add up to an axis of {length}")
    return np.split(x, ends[:-1], axis) if ends else []


@split_to_sequence.infer
def _split_to_sequence_type(call: Call) -> Sequence[Type]:
    x, axis = call.tensor(0), call.attrs["axis"]
    if x.shape is None:
        return [SequenceType(x)]
    if not -len(x.shape) <= axis < len(x.shape):
        raise TypeInferenceError(f"SplitToSequence goes along the axis {axis} of {x}")
    axis %= len(x.shape)
    part = () if not call.has(1) and not call.attrs["keepdims"] else (part_size(call, x.shape[axis]),)
    return [SequenceType(x.with_shape((*x.shape[:axis], *part, *x.shape[axis + 1 :])))]


@split_to_sequence.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """The parts joined again. There may be none, which cannot be joined: then with a part that adds nothing."""
    x, axis = node.operand(0), node.attr("axis")
    new_axis = int(node.input(1) is None and not node.attr("keepdims"))
    size = None if x.shape is None else x.shape[axis]
    if isinstance(size, int) and size > 0:
        return (as_known_as(b.op("ConcatFromSequence", dy, axis=axis, new_axis=new_axis), x),)
    axes, first = b.ints([axis]), b.ints([0])
    nothing = b.op("Slice", b.zeros_like(x), first, first, axes)
    part = b.reduce_sum(nothing, [axis]) if new_axis else nothing
    joined = b.op("ConcatFromSequence", b.op("SequenceInsert", dy, part), axis=axis, new_axis=new_axis)
    dx = b.op("Slice", joined, first, b.ints([-1]), axes) if new_axis else joined
    return (as_known_as(dx, x),)


concat_from_sequence = ops.define("ConcatFromSequence")


@concat_from_sequence.kernel
def _concat_from_sequence(
    sequence: list[np.ndarray], *, axis: int, new_axis: int = 0, out: np.ndarray | None = None
) -> np.ndarray:
    return join(sequence, axis, bool(new_axis), out)


@concat_from_sequence.infer
def _concat_from_sequence_type(call: Call) -> Sequence[Type]:
    return [with_axis(element_of(call, 0), call.attrs["axis"], new=bool(call.attrs["new_axis"]))]


@concat_from_sequence.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """The cotangent cut into parts of the sizes that the elements have."""
    sequence, axis = node.operand(0), node.attr("axis")
    if node.attr("new_axis"):
        return (as_known_as(b.op("SplitToSequence", dy, axis=axis, keepdims=0), sequence),)
    element = sequence.type.element if isinstance(sequence.type, SequenceType) else None
    size = element.shape[axis] if isinstance(element, TensorType) and element.shape is not None else None
    if isinstance(size, int) and size > 0:
        sizes = None if size == 1 else _number(b, size)
    else:
        sizes = b.op("irgrad.SequenceSizes", sequence, axis=axis)
    return (as_known_as(b.op("SplitToSequence", dy, sizes, axis=axis), sequence),)


# --- what adjoints need -----------------------------------------------------------------------------------------------

sequence_sum = ops.define("SequenceSum", domain=IRGRAD_DOMAIN)
"""``SequenceSum(s, t, ...)``: the sums of the elements at the same places of sequences of one length, of the same shapes.

Elements that are known to be nothing but zeros are left out, so that −0 may stay what it is.
"""


@sequence_sum.kernel
def _sum(*sequences: list[np.ndarray], out: None = None) -> list[np.ndarray]:
    return sum_of_sequences(sequences)


@sequence_sum.infer
def _sum_type(call: Call) -> Sequence[Type]:
    return [SequenceType(element_of_sum([element_of(call, k) for k in range(len(call.inputs))], "sequences"))]


@sequence_sum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [dy] * len(node.inputs)


@sequence_sum.lower
def _(b: Builder, node: Node) -> Value:
    return lower_sum(b, [node.operand(k) for k in range(len(node.inputs))])


sequence_zeros = ops.define("SequenceZeros", domain=IRGRAD_DOMAIN, gradient=ZERO)
"""``SequenceZeros(s)``: zeros of the shapes of the elements of s."""


@sequence_zeros.kernel
def _zeros(sequence: list[np.ndarray], *, out: None = None) -> list[np.ndarray]:
    return zeros_of_sequence(sequence)


@sequence_zeros.infer
def _zeros_type(call: Call) -> Sequence[Type]:
    return [SequenceType(element_of(call, 0))]


@sequence_zeros.lower
def _(b: Builder, node: Node) -> Value:
    return lower_zeros(b, node.operand(0))


sequence_sizes = ops.define("SequenceSizes", domain=IRGRAD_DOMAIN, gradient=ZERO)
"""``SequenceSizes(s; axis)``: the sizes of the elements of s along an axis, as a one-dimensional int64 tensor."""


@sequence_sizes.kernel
def _sizes(sequence: list[np.ndarray], *, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.array([element.shape[axis] for element in sequence], np.int64), out)


@sequence_sizes.infer
def _sizes_type(call: Call) -> Sequence[Type]:
    element_of(call, 0)
    return [TensorType(np.dtype(np.int64), (None,))]


@sequence_sizes.lower
def _(b: Builder, node: Node) -> Value:
    return lower_sizes(b, node.operand(0), node.attr("axis"))
