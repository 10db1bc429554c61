"""How a node runs over a space: what a rule of fusion tells of the nodes that it knows.

The space of a node is the shape that it goes through: that of the result of an elementwise operation, that of the operand of
a reduction. The axes of its operands and results run along axes of the space, or have the size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.types import Dim, TensorType

__all__ = ["Emit", "Layout", "Member", "NotFusible", "aligned", "along", "elementwise", "is_embedded", "known_shape"]

Layout: TypeAlias = "tuple[int | None, ...]"
"""For each axis of a value the axis of the space that it runs along; None where it has the size 1."""

Emit: TypeAlias = "Callable[[Builder, Node, Sequence[Value | None]], Sequence[Value]]"
"""``emit(b, node, operands)``: emit, for some operands, what gives the results of a node; one value for each."""


class NotFusible(Exception):
    """Why a node can be no member of a group, in words."""


@dataclass(frozen=True)
class Member:
    """What a node is as a member of a group.

    Attributes:
        space: the dimensions that it goes through.
        operands: the layout of each operand; None for one that is absent, or that says how to compute (axes).
        results: the layout of each result.
        whole: axes along which results depend on all elements of operands.
        summed: axes that those results which do not run along them are sums over: partial sums may be added up.
        emit: how the node is written inside of a group, where it is not written as it is.
    """

    space: tuple[Dim, ...]
    operands: tuple[Layout | None, ...]
    results: tuple[Layout, ...]
    whole: frozenset[int] = frozenset()
    summed: frozenset[int] = frozenset()
    emit: Emit | None = None


def known_shape(value: Value) -> tuple[Dim, ...]:
    """The shape of a value.

    Raises:
        NotFusible: a size has neither a number nor a name, or the value is no tensor of numbers.
    """
    type = value.type
    if not isinstance(type, TensorType) or (type.dtype.kind in "OcV" and type.dtype.name != "bfloat16"):
        raise NotFusible(f"%{value.name} is no tensor of numbers")
    if type.shape is None or None in type.shape:
        raise NotFusible(f"the shape of %{value.name} is not known")
    return type.shape


def along(value: Value, axes: Sequence[int | None]) -> Layout:
    """A layout for a value, each of whose axes runs along one of the space, but those of size 1 along none."""
    return tuple(None if dim == 1 else axis for dim, axis in zip(known_shape(value), axes, strict=True))


def aligned(value: Value, space: tuple[Dim, ...]) -> Layout:
    """The layout of an operand that is broadcast to the space.

    Raises:
        NotFusible: its sizes are not known to be those of the space.
    """
    shape = known_shape(value)
    first = len(space) - len(shape)
    if all(dim == 1 for dim in shape):
        return (None,) * len(shape)
    if first < 0 or any(dim not in (1, space[first + k]) for k, dim in enumerate(shape)):
        raise NotFusible(f"%{value.name} is not known to be broadcast to {_text(space)}")
    return along(value, range(first, len(space)))


def is_embedded(value: Value | None) -> bool:
    """Whether a value is a constant that is part of a group instead of an operand of it: a single number."""
    return value is not None and value.constant is not None and not value.is_parameter and value.constant.size == 1


def elementwise(node: Node) -> Member:
    """A node each of whose results depends, at each place, on the operands at that place, which are broadcast to it."""
    space = known_shape(node.outputs[0])
    if any(known_shape(value) != space for value in node.outputs):
        raise NotFusible("its results are not of one shape")
    operands = tuple(None if v is None or is_embedded(v) else aligned(v, space) for v in node.inputs)
    return Member(space, operands, tuple(along(value, range(len(space))) for value in node.outputs))


def _text(shape: tuple[Dim, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
