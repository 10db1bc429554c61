"""What the simplifications ask about values: shapes that are surely the same, elements that are known."""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign

import numpy as np

from irgrad.graph import Node, Value
from irgrad.literals import is_uniform
from irgrad.types import Dim, Shape, TensorType

__all__ = [
    "broadcast",
    "fits_into",
    "ints_of",
    "is_negative_zero",
    "is_positive_zero",
    "is_unused",
    "parsed_axes",
    "permutation",
    "same_shape",
    "uniform",
]

_STEPS = 8  # nodes that `uniform` looks back
_REARRANGING = frozenset({"Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})


def _shape(value: Value) -> Shape:
    return value.type.shape if isinstance(value.type, TensorType) else None


def same_shape(a: Value, b: Value) -> bool:
    """Whether two tensors surely have the same shape: every dimension is the same number or the same symbol."""
    first, second = _shape(a), _shape(b)
    return first is not None and first == second and None not in first


def fits_into(other: Value, value: Value) -> bool:
    """Whether broadcasting `other` with `value` surely gives the shape of `value`."""
    small, large = _shape(other), _shape(value)
    if small is None or large is None or len(small) > len(large):
        return False
    return all(d == 1 or (d == e and d is not None) for d, e in zip(small, large[len(large) - len(small) :], strict=True))


def broadcast(shapes: Sequence[Shape]) -> tuple[Dim, ...] | None:
    """The shape that tensors of these shapes are broadcast to; None where it does not follow from the shapes."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    rank = max(map(len, known), default=0)
    result: list[Dim] = []
    for axis in range(rank):
        dims = {shape[axis - rank] for shape in known if len(shape) >= rank - axis} - {1}
        if len(dims) > 1 or None in dims:
            return None
        result.append(dims.pop() if dims else 1)
    return tuple(result)


def uniform(value: Value | None) -> np.ndarray | None:
    """The element that all elements of a tensor surely are, as a 0-d array; None where there is no such element."""
    for _ in range(_STEPS):
        if value is None:
            return None
        array, node = value.constant, value.producer
        if array is not None:
            known = array.size > 0 and not value.is_parameter and array.dtype != object and is_uniform(array)
            return array.reshape(-1)[0:1].reshape(()) if known else None
        if node is None:
            return None
        if node.op.qualified_name == "ConstantOfShape":
            fill = node.attr("value")
            return np.zeros((), np.float32) if fill is None else np.asarray(fill).reshape(())
        if node.op.qualified_name not in _REARRANGING:
            return None
        value = node.input(0)
    return None


def is_positive_zero(number: np.ndarray) -> bool:
    """Whether a floating-point number is 0 and not −0."""
    return bool(number == 0) and copysign(1, float(number)) > 0


def is_negative_zero(number: np.ndarray) -> bool:
    """Whether a floating-point number is −0."""
    return bool(number == 0) and copysign(1, float(number)) < 0


def ints_of(value: Value | None) -> tuple[int, ...] | None:
    """The elements of a small integer tensor where all of them are known numbers."""
    if value is None or value.contents is None or value.is_parameter:
        return None
    known = tuple(d for d in value.contents if isinstance(d, int))
    return known if len(known) == len(value.contents) else None


def permutation(node: Node) -> tuple[int, ...] | None:
    """The permutation of a Transpose; None where it is left to its default and the rank is unknown."""
    perm, rank = node.attr("perm"), node.operand(0).rank
    if perm is not None:
        return tuple(perm)
    return None if rank is None else tuple(reversed(range(rank)))


def parsed_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the first one, sorted."""
    return tuple(sorted(axis % rank for axis in axes))


def is_unused(value: Value) -> bool:
    """Whether nothing reads a value, the caller of the graph included."""
    return not (value.users or value.is_output or value.name in value.graph.gradients)
