"""Sums at places: adjoints of operations that only move elements, which may move the elements' positions as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Value
from irgrad.runtime.kernels import accumulation_dtype

__all__ = ["positions", "scatter_by_position", "summed_at", "zeros_for"]


def summed_at(b: Builder, values: Value, scatter: Callable[[Value], Value]) -> Value:
    """What `scatter` makes of values by adding them at places, added in float32 where the values are narrower.

    Besides the digits, runtimes have no such sums of float16 and bfloat16.
    """
    return b.cast(scatter(b.cast(values, accumulation_dtype(values.dtype))), values.dtype)


def zeros_for(b: Builder, values: Value, shape: Value) -> Value:
    """Zeros of a shape (a one-dimensional int64 value), to which values can be added."""
    return b.op("ConstantOfShape", shape, value=np.zeros(1, values.dtype))


def positions(b: Builder, shape: Value) -> Value:
    """A tensor of some shape (a one-dimensional int64 value) that holds 0, 1, 2, ... in the order of its elements."""
    count = b.op("ReduceProd", shape, keepdims=0)
    return b.op("Reshape", b.op("Range", 0, count, 1), shape, allowzero=1)


def scatter_by_position(b: Builder, dy: Value, shape: Value, move: Callable[[Value], Value]) -> Value:
    """The adjoint of an operation, as standard operations.

    Args:
        b: where the nodes go.
        dy: the cotangent of the operation's result.
        shape: the shape of its operand.
        move: emits the operation for another operand; that must only pick elements, be it several times.
    """
    moved = b.op("Reshape", move(positions(b, shape)), b.ints([-1]))
    count = b.op("ReduceProd", shape, keepdims=1)

    def scatter(values: Value) -> Value:
        return b.op("ScatterElements", zeros_for(b, values, count), moved, values, reduction="add")

    return b.op("Reshape", summed_at(b, b.op("Reshape", dy, b.ints([-1])), scatter), shape, allowzero=1)
