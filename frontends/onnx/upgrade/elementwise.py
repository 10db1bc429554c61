"""Elementwise operations: broadcasting by `axis`, bounds and coefficients that were attributes, in-place hints."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.graph import Value
from irgrad.types import is_differentiable

__all__: list[str] = []

_FLOAT_MAX = float(np.finfo(np.float32).max)


@adapter(
    *("Abs", "Add", "BatchNormalization", "Ceil", "Div", "Dropout", "Elu", "Exp", "Floor", "HardSigmoid"),
    *("InstanceNormalization", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mul", "Neg", "PRelu", "Reciprocal", "Relu"),
    *("Sigmoid", "Sqrt", "Sub", "Sum", "Tanh"),
    since=6,
)
def consumed_inputs_6(b: Builder, node: OldNode) -> None:
    """`consumed_inputs`, a hint that an operand may be overwritten, is gone."""
    node.attrs.pop("consumed_inputs", None)


@adapter("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", since=7)
def broadcast_7(b: Builder, node: OldNode) -> None:
    """`broadcast` and `axis` give way to numpy's rule.

    The second operand's shape was to be a contiguous part of the first's, beginning at `axis`; without `axis` it was a
    suffix, which numpy's rule covers, as it does an operand of one element. Caffe2, where the attribute comes from, wrote
    -1 for "not set".
    """
    broadcast, axis = node.attrs.pop("broadcast", 0), node.attrs.pop("axis", -1)
    if not broadcast or axis == -1:
        return
    second = node.operand(1)
    shape = second.tensor_type.static_shape
    if shape is not None and math.prod(shape) == 1:
        return
    first_rank, second_rank = node.rank(0), node.rank(1)
    trailing = first_rank - axis - second_rank
    if axis < 0 or trailing < 0:
        raise node.error(f"broadcasts an operand of rank {second_rank} to one of rank {first_rank} from axis {axis} on")
    node.set_input(1, with_trailing_axes(b, second, second_rank, trailing))


@adapter("PRelu", since=7)
def prelu_7(b: Builder, node: OldNode) -> None:
    """A `slope` with one element per channel is aligned with the channels no longer, but with the last axis."""
    slope = node.operand(1)
    if slope.rank == 1 and slope.tensor_type.static_shape != (1,):
        node.set_input(1, with_trailing_axes(b, slope, 1, max(0, node.rank(0) - 2)))


def with_trailing_axes(b: Builder, value: Value, rank: int, count: int) -> Value:
    """A tensor of known rank with `count` further axes of size 1 at the end."""
    return b.op("Unsqueeze", value, b.ints(range(rank, rank + count))) if count else value


@adapter("Gemm", since=7)
def gemm_7(b: Builder, node: OldNode) -> None:
    """`broadcast` is gone: the third operand is always broadcast."""
    node.attrs.pop("broadcast", None)


@adapter("Selu", since=6)
def selu_6(b: Builder, node: OldNode) -> None:
    """`consumed_inputs` is gone, and the coefficients, which had four decimals by default, have all of them."""
    node.attrs.pop("consumed_inputs", None)
    node.attrs.setdefault("alpha", float(np.float32(1.6732)))
    node.attrs.setdefault("gamma", float(np.float32(1.0507)))


@adapter("Clip", since=6)
def clip_6(b: Builder, node: OldNode) -> None:
    """`consumed_inputs` is gone, and an absent bound, which meant the largest number of the dtype, means float32's."""
    node.attrs.pop("consumed_inputs", None)
    node.attrs.setdefault("min", -math.inf)
    node.attrs.setdefault("max", math.inf)


@adapter("Clip", since=11)
def clip_11(b: Builder, node: OldNode) -> None:
    """The bounds become operands. One that is no smaller than the dtype's largest number is left away."""
    dtype = node.operand(0).dtype
    largest = float(np.finfo(dtype).max)
    low, high = node.attrs.pop("min", -_FLOAT_MAX), node.attrs.pop("max", _FLOAT_MAX)
    if low > -largest:
        node.set_input(1, b.constant(np.array(low, dtype)))
    if high < largest:
        node.set_input(2, b.constant(np.array(high, dtype)))


@adapter("Cast", since=6)
def cast_6(b: Builder, node: OldNode) -> None:
    """`to`, the name of an element type, becomes its number."""
    name = node.take("to")
    if name not in TensorProto.DataType.keys():  # noqa: SIM118 - the enum wrapper is no mapping
        raise node.error(f"casts to {name!r}, which is not an ONNX element type")
    node.attrs["to"] = TensorProto.DataType.Value(name)


@adapter("Erf", since=13)
def erf_13(b: Builder, node: OldNode) -> list[Value] | None:
    """Integers are no longer taken."""
    return through_float64(b, node)


@adapter("ReduceLogSum", "ReduceLogSumExp", since=28)
def reduce_log_28(b: Builder, node: OldNode) -> list[Value] | None:
    """Integers are no longer taken."""
    return through_float64(b, node)


def through_float64(b: Builder, node: OldNode) -> list[Value] | None:
    """Emit a node of integers as one of float64, its result rounded towards zero; None for a node of floats."""
    operand = node.operand(0)
    if is_differentiable(operand.dtype):
        return None
    result = b.op(node.op, b.cast(operand, np.dtype(np.float64)), *node.inputs[1:], **node.attrs)
    return [b.cast(result, operand.dtype)]
