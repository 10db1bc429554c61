"""Which axes of one iteration space the axes of each tensor of a body run along.

The space is that of the largest tensors. Where these have several shapes (as before and after a Reshape), its axes are the
finest ones that all of them are made of: of [N, C, H, W] and [N, G, C/G · H · W] they are N, G, C/G, H · W apart. What the
axes of a smaller tensor run along follows from how it meets others: aligned by broadcasting, kept by a reduction, reshaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TypeAlias

from irgrad.codegen.items import Unsupported
from irgrad.graph import Value

__all__ = ["Aligned", "Layouts", "Relation", "Reshaped", "shape_of", "space_of"]


@dataclass(frozen=True)
class Aligned:
    """Pairs of an axis of one tensor and an axis of another that run along the same, where neither has size 1."""

    a: Value
    b: Value
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def right(cls, small: Value, large: Value) -> Aligned:
        """As broadcasting aligns them."""
        extra = len(shape_of(large)) - len(shape_of(small))
        return cls(small, large, tuple((k, k + extra) for k in range(len(shape_of(small)))))


@dataclass(frozen=True)
class Reshaped:
    """Two tensors of the same elements in the same order."""

    a: Value
    b: Value


Relation: TypeAlias = "Aligned | Reshaped"


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of a value.

    Raises:
        Unsupported: it is not a tensor of static shape, or has no elements.
    """
    shape = value.tensor_type.static_shape
    if shape is None:
        raise Unsupported(f"the shape of %{value.name} is not static")
    if 0 in shape:
        raise Unsupported(f"%{value.name} is empty")
    return shape


def space_of(values: Iterable[Value], cuts: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The sizes of the axes of the iteration space.

    Args:
        values: all tensors.
        cuts: further shapes that the largest tensors are seen in.
    """
    shapes = [*map(shape_of, values), *cuts]
    total = max(map(prod, shapes), default=1)
    marks = {1, total}
    for shape in shapes:
        if prod(shape) == total:
            marks |= {prod(shape[k:]) for k in range(len(shape))}
    ascending = sorted(marks)
    for low, high in pairwise(ascending):
        if high % low:
            raise Unsupported("its tensors are reshaped in a way that no common axes describe")
    return tuple(high // low for low, high in zip(ascending[-2::-1], ascending[:0:-1], strict=True))


class Layouts:
    """The axes of the space that each axis of each tensor runs along.

    Args:
        sizes: of the axes of the space.
        values: the tensors.
        relations: how they meet.

    Raises:
        Unsupported: they do not all belong to one space.
    """

    def __init__(self, sizes: Sequence[int], values: Iterable[Value], relations: Sequence[Relation]) -> None:
        self.sizes = tuple(sizes)
        self._found: dict[Value, list[tuple[int, ...] | None]] = {}
        total = prod(sizes)
        for value in values:
            shape = shape_of(value)
            self._found[value] = [() if size == 1 else None for size in shape]
            if prod(shape) == total:
                self._fill(value, tuple(range(len(sizes))))
        while sum(self._apply(relation) for relation in relations):
            pass  # until none tells anything new
        for value, axes in self._found.items():
            if None in axes:
                raise Unsupported(f"%{value.name} does not belong to the iteration space of the largest tensor")
            order = [a for part in axes for a in part or ()]
            if order != sorted(set(order)):
                raise Unsupported(f"the axes of %{value.name} are not in the order of those of the largest tensor")

    def of(self, value: Value) -> tuple[tuple[int, ...], ...]:
        """For each axis of a tensor those of the space that it runs along, from the outermost to the innermost."""
        return tuple(axes or () for axes in self._found[value])

    def axes(self, value: Value, dims: Iterable[int] | None = None) -> tuple[int, ...]:
        """The axes of the space that some axes of a tensor, or all of them, run along."""
        parts = self.of(value)
        return tuple(a for k in (range(len(parts)) if dims is None else dims) for a in parts[k])

    def _apply(self, relation: Relation) -> bool:
        if isinstance(relation, Reshaped):
            return self._reshape(relation.a, relation.b) or self._reshape(relation.b, relation.a)
        a, b, changed = self._found[relation.a], self._found[relation.b], False
        for j, k in relation.pairs:
            if a[j] == () or b[k] == () or a[j] == b[k]:
                continue
            if a[j] is not None and b[k] is not None:
                raise Unsupported(f"%{relation.a.name} and %{relation.b.name} meet along different axes")
            a[j], b[k], changed = a[j] or b[k], a[j] or b[k], True
        return changed

    def _reshape(self, known: Value, other: Value) -> bool:
        parts = self._found[known]
        if None in parts or None not in self._found[other]:
            return False
        self._fill(other, tuple(a for part in parts for a in part or ()))
        return True

    def _fill(self, value: Value, axes: Sequence[int]) -> None:
        """Cut a run of axes into the sizes of a tensor's own."""
        waiting, parts = list(axes), []
        for size in shape_of(value):
            part: list[int] = []
            while prod(self.sizes[a] for a in part) < size and waiting:
                part.append(waiting.pop(0))
            if prod(self.sizes[a] for a in part) != size:
                raise Unsupported(f"%{value.name} is reshaped in a way that no common axes describe")
            parts.append(tuple(part))
        self._found[value] = list(parts)
