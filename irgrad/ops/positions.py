"""Adjoints of operations that only move elements, by letting the operation move the elements' positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Value

__all__ = ["positions", "scatter_by_position"]


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
    zeros = b.op("ConstantOfShape", b.op("ReduceProd", shape, keepdims=1), value=np.zeros(1, dy.dtype))
    flat = b.op("ScatterElements", zeros, moved, b.op("Reshape", dy, b.ints([-1])), reduction="add")
    return b.op("Reshape", flat, shape, allowzero=1)
