"""Sizes in rules and lowerings: numbers where they are known, one-element int64 values where they are computed."""

from __future__ import annotations

from itertools import groupby
from math import prod
from typing import TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Value
from irgrad.op import Call
from irgrad.types import Shape

__all__ = [
    "Size",
    "as_scalar",
    "count_of",
    "dim_of",
    "int_contents",
    "join_sizes",
    "product_of",
    "quotient_of",
    "reshape_to",
    "same_shape",
    "shape_operand",
    "shaped_like",
    "size_operand",
]

Size: TypeAlias = "int | Value"
"""A number, or an int64 value of shape [1]."""


def dim_of(b: Builder, value: Value, axis: int) -> Size:
    """The size of a tensor along an axis, which may be negative: counted from the end."""
    shape = value.shape
    if shape is not None and isinstance(dim := shape[axis], int):
        return dim
    return b.op("Shape", value, start=axis, end=None if axis == -1 else axis + 1)


def count_of(b: Builder, value: Value) -> Size:
    """The number of elements of a tensor."""
    static = value.tensor_type.static_shape
    return prod(static) if static is not None else b.op("Reshape", b.op("Size", value), b.ints([1]))


def product_of(b: Builder, shape: Value, start: int, end: int | None) -> Size:
    """The product of ``shape[start:end]`` of a one-dimensional int64 value."""
    if start == end:
        return 1
    if shape.contents is not None:
        known = [size for size in shape.contents[start:end] if isinstance(size, int)]
        if len(known) == len(shape.contents[start:end]):
            return prod(known)
    stop = np.iinfo(np.int64).max if end is None else end
    return b.op("ReduceProd", b.op("Slice", shape, b.ints([start]), b.ints([stop])), keepdims=1)


def quotient_of(b: Builder, size: Size, divisor: Size) -> Size:
    """A size over one that divides it."""
    if isinstance(divisor, int) and divisor == 1:
        return size
    if isinstance(size, int) and isinstance(divisor, int):
        return size // divisor
    return b.op("Div", join_sizes(b, size), join_sizes(b, divisor))


def size_operand(b: Builder, value: Value) -> Size:
    """The size that an integer operand of one element holds."""
    known = int_contents(value)
    if known is not None:
        return known[0]
    if value.tensor_type.static_shape != (1,):
        value = b.op("Reshape", value, b.ints([1]))
    return b.cast(value, np.dtype(np.int64))


def as_scalar(b: Builder, size: Size) -> Value:
    """A size as a 0-d int64 value."""
    return b.constant(size, np.int64) if isinstance(size, int) else b.op("Squeeze", size)


def join_sizes(b: Builder, *sizes: Size) -> Value:
    """Sizes as a one-dimensional int64 value: a constant where all of them are numbers."""
    parts: list[Value] = []
    for is_number, run in groupby(sizes, lambda size: isinstance(size, int)):
        if is_number:
            parts.append(b.ints([size for size in run if isinstance(size, int)]))
        else:
            parts += [size for size in run if isinstance(size, Value)]
    return parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=0)


def reshape_to(b: Builder, value: Value, *sizes: Size) -> Value:
    """`value` with another shape, told size by size; a size of 0 means 0."""
    numbers = [size for size in sizes if isinstance(size, int)]
    if same_shape(value.shape, tuple(numbers)) and len(numbers) == len(sizes):
        return value
    literal = len(numbers) < len(sizes) or 0 in numbers
    return b.op("Reshape", value, join_sizes(b, *sizes), allowzero=1 if literal else None)


def shaped_like(b: Builder, value: Value, like: Value) -> Value:
    """`value` with the shape of `like`, which has as many elements; itself where it has that already."""
    return value if same_shape(value.shape, like.shape) else b.reshape_like(value, like)


def same_shape(a: Shape, b: Shape) -> bool:
    """Whether two shapes are known to be equal."""
    return a is not None and a == b and None not in a


def int_contents(value: Value | None) -> tuple[int, ...] | None:
    """The elements of a small integer operand where every one of them is known."""
    if value is None or value.contents is None:
        return None
    known = tuple(d for d in value.contents if isinstance(d, int))
    return known if len(known) == len(value.contents) else None


def shape_operand(call: Call, index: int) -> Shape:
    """The shape that a one-dimensional integer operand holds, as far as it is known."""
    contents, length = call.contents.get(index), call.tensor(index).static_shape
    if contents is not None:
        return tuple(None if isinstance(d, int) and d < 0 else d for d in contents)
    return None if length is None else (None,) * length[0]
