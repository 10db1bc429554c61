"""What operations with one parameter per channel (axis 1) share: bringing it to the operand's shape, and summing it back."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Value

__all__ = ["per_channel", "rank_of", "sum_per_channel"]


def rank_of(value: Value) -> int:
    """The number of axes of an operand.

    Raises:
        UnsupportedOpError: it is not known at compile time.
    """
    if value.rank is None:
        raise UnsupportedOpError(f"the rank of %{value.name} must be known at compile time; declare its shape")
    return value.rank


def per_channel(b: Builder, parameter: Value, x: Value) -> Value:
    """A parameter of shape [C] with axes of size 1 behind it, so that it broadcasts to x of shape [N, C, D1, ...]."""
    rank = rank_of(x)
    return parameter if rank <= 2 else b.op("Unsqueeze", parameter, b.ints(range(1, rank - 1)))


def sum_per_channel(b: Builder, v: Value) -> Value:
    """The sum of v of shape [N, C, D1, ...] for each channel, shape [C]; of shape [N] to [1], as of a single channel."""
    rank = rank_of(v)
    return b.reduce_sum(v, [k for k in range(rank) if k != 1], keepdims=rank == 1)
