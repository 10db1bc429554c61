"""Normalisation and dropout: how the training mode is told, statistics per element, parameters per group."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter, emit
from irgrad.graph import Value

__all__: list[str] = []


# --- batch normalisation ----------------------------------------------------------------------------------------------


@adapter("BatchNormalization", since=7)
def batch_norm_7(b: Builder, node: OldNode) -> None:
    """`is_test`, by default 0, is gone: a node with more than one output trains.

    What it said is handed on as the `training_mode` that comes with opset 14.
    """
    node.attrs["training_mode"] = int(not node.attrs.pop("is_test", 0))


@adapter("BatchNormalization", since=9)
def batch_norm_9(b: Builder, node: OldNode) -> list[Value] | None:
    """`spatial`, by default 1, is gone.

    With 0, every element of a sample had statistics and parameters of its own, of the shape [C, D1, ..., Dn]. That is what
    a sample flattened to [C·D1·...·Dn] gets today.
    """
    if node.attrs.pop("spatial", 1):
        return None
    data, parameters = node.operand(0), [node.operand(k) for k in range(1, 5)]
    flat = [v if v.rank == 1 else b.op("Reshape", v, b.ints([-1])) for v in parameters]
    node.inputs = [b.op("Flatten", data, axis=1), *flat]
    node.version = 9
    normalised, *statistics = emit(b, node)
    shapes = _by_output(parameters)[: len(statistics)]
    return [b.reshape_like(normalised, data), *(b.reshape_like(v, s) for v, s in zip(statistics, shapes, strict=True))]


@adapter("BatchNormalization", since=14)
def batch_norm_14(b: Builder, node: OldNode) -> list[Value] | None:
    """`training_mode` says that a node trains; the outputs `saved_mean` and `saved_var` are gone.

    Those were the statistics that the node had normalised with. In a node that did not train, which was not to have any
    output but the first, all statistics are the operands.
    """
    trains = bool(node.attrs.pop("training_mode", any(node.used[1:])))
    node.attrs["training_mode"] = int(trains)
    wanted, node.n_outputs = node.n_outputs, 3 if trains else 1
    if node.n_outputs == wanted:
        return None
    node.version = 14
    results = emit(b, node)
    if not trains:
        return [*results, *_by_output([node.operand(k) for k in range(1, 5)])][:wanted]
    data = node.operand(0)
    axes = b.ints([axis for axis in range(node.rank(0)) if axis != 1])
    mean = b.op("ReduceMean", data, axes)
    deviation = b.op("Sub", data, mean)
    variance = b.op("ReduceMean", b.op("Mul", deviation, deviation), axes, keepdims=0)
    return [*results, b.reshape_like(mean, node.operand(1)), variance][:wanted]


def _by_output(parameters: list[Value]) -> list[Value]:
    """Of the operands scale, bias, mean and var, what corresponds to the outputs mean, var, saved_mean and saved_var."""
    return parameters[2:] * 2


# --- the rest ---------------------------------------------------------------------------------------------------------


@adapter("GroupNormalization", since=21)
def group_norm_21(b: Builder, node: OldNode) -> None:
    """`scale` and `bias` have one element per channel instead of one per group; `stash_type` is new.

    Its default, to normalise in float32, would lose digits of float64.
    """
    data, groups = node.operand(0), int(node.take("num_groups"))
    node.attrs["num_groups"] = groups
    channels = data.shape[1] if data.shape is not None else None
    if isinstance(channels, int):
        per_group = b.ints([1, channels // groups])
    else:
        count = b.op("Div", b.op("Shape", data, start=1, end=2), b.ints([groups]))
        per_group = b.op("Concat", b.ints([1]), count, axis=0)
    for index in (1, 2):
        repeated = b.op("Expand", b.op("Unsqueeze", node.operand(index), b.ints([1])), per_group)
        node.set_input(index, b.op("Reshape", repeated, b.ints([-1])))
    if data.dtype == np.float64:
        node.attrs["stash_type"] = int(TensorProto.DOUBLE)


@adapter("Dropout", since=7)
def dropout_7(b: Builder, node: OldNode) -> None:
    """`is_test`, by default 0, is gone: nodes do not drop anything. What it said waits for opset 12, which can say it."""
    node.attrs["training"] = not node.attrs.pop("is_test", 0)


@adapter("Dropout", since=10)
def dropout_10(b: Builder, node: OldNode) -> list[Value] | None:
    """The mask has bools instead of numbers of the data's dtype."""
    if not any(node.used[1:]):
        return None
    node.version = 10
    kept, mask = emit(b, node)
    return [kept, b.cast(mask, kept.dtype)]


@adapter("Dropout", since=12)
def dropout_12(b: Builder, node: OldNode) -> None:
    """`ratio` becomes an operand, and `training_mode`, whether anything is dropped, another one."""
    node.set_input(1, b.constant(np.array(node.attrs.pop("ratio", 0.5), np.float32)))
    if node.attrs.pop("training", False):
        node.set_input(2, b.constant(np.array(True)))
