"""What is known of sequences before they are there: the types of their elements, and sharper types for cotangents."""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.errors import TypeInferenceError
from irgrad.graph import Value
from irgrad.op import Call
from irgrad.types import Dim, OptionalType, SequenceType, TensorType, Type, merge_types, types_compatible

__all__ = ["as_known_as", "element_of", "element_of_sum", "joined_elements", "part_size", "with_axis"]


def as_known_as(value: Value, like: Value) -> Value:
    """A cotangent, with all that is known of the type of the value that it is the cotangent of: it has the same shapes."""
    if types_compatible(value.type, like.type):
        value.graph.set_type(value, merge_types(value.type, like.type))
    return value


def element_of(call: Call, index: int) -> TensorType:
    """The type of the elements of the sequence that an operand is.

    Raises:
        TypeInferenceError: it is absent, or no sequence of tensors.
    """
    type = call.inputs[index] if call.has(index) else None
    if not isinstance(type, SequenceType) or not isinstance(type.element, TensorType):
        name, have = call.op.qualified_name, "absent" if type is None else f"a {type}"
        hint = "; OptionalGetElement takes it out" if isinstance(type, OptionalType) else ""
        raise TypeInferenceError(f"operand {index} of {name} must be a sequence of tensors, but it is {have}{hint}")
    return type.element


def joined_elements(call: Call, types: Sequence[TensorType]) -> TensorType:
    """The type of the elements of a sequence that holds tensors of these types.

    Raises:
        TypeInferenceError: they are not all of one dtype.
    """
    first = types[0]
    for other in types[1:]:
        if other.dtype != first.dtype:
            raise TypeInferenceError(f"{call.op.qualified_name} would make a sequence that holds {first} as well as {other}")
        if first.shape is None or other.shape is None or len(first.shape) != len(other.shape):
            first = first.with_shape(None)
        else:
            first = first.with_shape(tuple(a if a == b else None for a, b in zip(first.shape, other.shape, strict=True)))
    return first


def element_of_sum(elements: Sequence[Type], what: str) -> Type:
    """The type of the elements of a sum, of sequences or optionals (`what`) that hold these.

    Raises:
        TypeInferenceError: one value cannot be of two of these types.
    """
    first = elements[0]
    for other in elements[1:]:
        if not types_compatible(first, other):
            raise TypeInferenceError(f"{what} of {first} and of {other} cannot be added")
        first = merge_types(first, other)
    return first


def part_size(call: Call, length: Dim) -> Dim:
    """The size of every part of a SplitToSequence along its axis, which has some length; None where they may differ."""
    if not call.has(1):
        return 1
    sizes = call.contents.get(1)
    if sizes is None:
        return None
    if call.tensor(1).shape == ():
        (chunk,) = sizes
        exact = isinstance(chunk, int) and isinstance(length, int) and chunk > 0 and length % chunk == 0
        return chunk if exact else None
    return sizes[0] if len(set(sizes)) == 1 else None


def with_axis(element: TensorType, axis: int, *, new: bool) -> TensorType:
    """The type of tensors joined along one of their axes, or along a new one.

    Raises:
        TypeInferenceError: there is no such axis.
    """
    if element.shape is None:
        return element
    rank = len(element.shape) + new
    if not -rank <= axis < rank:
        where = "a new axis" if new else "the axis"
        raise TypeInferenceError(f"tensors of the type {element} cannot be joined along {where} {axis}")
    axis %= rank
    return element.with_shape((*element.shape[:axis], None, *element.shape[axis + (not new) :]))
