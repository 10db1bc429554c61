"""ONNX's optimizers, ai.onnx.preview.training: Adagrad, Adam, Momentum.

One node updates several tensors. Its operands are the learning rate R, the update count T, and then, each for all tensors,
what is listed in `_ROLES`: the tensors X, their gradients G, and their states; its results are the new tensors and the new
states. The formulae are those of the operations' own texts. Each is told once more in standard operations, through which a
gradient flows: that of what a trained model does by the learning rate, or by what it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import Call, Kernel, Op, OpTable
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Type, types_compatible

__all__ = ["TRAINING_DOMAIN", "ops"]

TRAINING_DOMAIN = "ai.onnx.preview.training"
RATE, COUNT, FIRST = range(3)  # the operands before the tensors

ops = OpTable()

adagrad = ops.define("Adagrad", domain=TRAINING_DOMAIN)
adam = ops.define("Adam", domain=TRAINING_DOMAIN)
momentum = ops.define("Momentum", domain=TRAINING_DOMAIN)

_ROLES = {
    adagrad: ("tensor", "gradient", "accumulated squared gradient"),
    adam: ("tensor", "gradient", "averaged gradient", "averaged squared gradient"),
    momentum: ("tensor", "gradient", "momentum"),
}


# --- operands and results ---------------------------------------------------------------------------------------------


def _groups(op: Op, operands: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The operands behind the first two, tensor by tensor: (X, G, states...)."""
    number = (len(operands) - FIRST) // len(_ROLES[op])
    return list(zip(*(operands[start : start + number] for start in range(FIRST, len(operands), number)), strict=True))


def _in_order(updated: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Results tensor by tensor, (X, states...), in the order in which the node returns them."""
    return [result for role in zip(*updated, strict=True) for result in role]


def _types(call: Call) -> Sequence[Type]:
    roles, name = _ROLES[call.op], call.op.name
    given = len(call.inputs) - FIRST
    if given < len(roles) or given % len(roles):
        raise TypeInferenceError(f"{name} takes for each tensor its {', its '.join(roles[1:])}, but it has {given} operands")
    groups = _groups(call.op, [call.tensor(k) for k in range(len(call.inputs))])
    if call.n_outputs != (len(roles) - 1) * len(groups):
        raise TypeInferenceError(f"{name} of {len(groups)} tensors has {call.n_outputs} outputs")
    for group in groups:
        for role, type in zip(roles, group, strict=True):
            if not types_compatible(type, group[0]):
                raise TypeInferenceError(f"{name} updates {group[0]}, but its {role} is {type}")
    return _in_order([(group[0], *group[2:]) for group in groups])


# --- kernels ----------------------------------------------------------------------------------------------------------

Update: TypeAlias = "Callable[..., tuple[np.ndarray, ...]]"
"""``update(x, g, *states)`` → the new x and the new states."""


def _kernel(updates: Callable[..., Update], call: Call) -> Kernel:
    update = partial(updates, **call.attrs)
    op, n_outputs = call.op, call.n_outputs

    def kernel(*operands: np.ndarray, out: Any = None) -> tuple[np.ndarray, ...]:
        rate, count = operands[RATE].reshape(())[()], int(operands[COUNT].item())
        updated = []
        for x, g, *states in _groups(op, operands):
            results = update(rate, count)(x, g, *states)
            updated.append(tuple(np.asarray(r).astype(x.dtype, copy=False) for r in results))
        return deliver_all(_in_order(updated)[:n_outputs], out)

    return kernel


def _regularised(x: np.ndarray, g: np.ndarray, coefficient: float) -> np.ndarray:
    return g if not coefficient else coefficient * x + g


def _adagrad(rate: Any, count: int, *, norm_coefficient: float, decay_factor: float, epsilon: float) -> Update:
    step = rate / rate.dtype.type(1 + count * decay_factor)

    def update(x: np.ndarray, g: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
        g = _regularised(x, g, norm_coefficient)
        squares = h + g * g
        return x - x.dtype.type(step) * g / (np.sqrt(squares) + epsilon), squares

    return update


def _adam(
    rate: Any,
    count: int,
    *,
    norm_coefficient: float,
    norm_coefficient_post: float,
    alpha: float,
    beta: float,
    epsilon: float,
) -> Update:
    corrected = np.sqrt(1 - beta**count) / (1 - alpha**count) if count > 0 else 1.0

    def update(x: np.ndarray, g: np.ndarray, v: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
        g = _regularised(x, g, norm_coefficient)
        mean = alpha * v + (1 - alpha) * g
        squares = beta * h + (1 - beta) * g * g
        moved = x - x.dtype.type(rate * corrected) * mean / (np.sqrt(squares) + epsilon)
        return (1 - norm_coefficient_post) * moved, mean, squares

    return update


def _momentum(rate: Any, count: int, *, norm_coefficient: float, alpha: float, beta: float, mode: str) -> Update:
    share = beta if count > 0 else 1.0

    def update(x: np.ndarray, g: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
        g = _regularised(x, g, norm_coefficient)
        moved = alpha * v + share * g
        direction = g + alpha * moved if mode == "nesterov" else moved
        return x - x.dtype.type(rate) * direction, moved

    return update


# --- in standard operations -------------------------------------------------------------------------------------------

Emitted: TypeAlias = "Callable[..., tuple[Value, ...]]"


def _lower(emit: Callable[[Builder, Node], tuple[Value, Emitted]], b: Builder, node: Node) -> tuple[Value, ...]:
    step, update = emit(b, node)
    if step.rank != 0:
        step = b.op("Reshape", step, b.ints([]))
    return tuple(_in_order([update(b.cast(step, group[0].dtype), *group) for group in _groups(node.op, node.inputs)]))


def _emit_regularised(node: Node, x: Value, g: Value) -> Value:
    coefficient = node.attr("norm_coefficient")
    return g if not coefficient else x * coefficient + g


def _emit_root(b: Builder, squares: Value) -> Value:
    """The square root, with the slope 0 at 0: a tensor that has had no gradient yet must not make NaN of derivatives."""
    zero = b.op("Equal", squares, 0)
    return b.op("Where", zero, b.scalar(0, squares), b.op("Sqrt", b.op("Where", zero, b.scalar(1, squares), squares)))


def _emit_adagrad(b: Builder, node: Node) -> tuple[Value, Emitted]:
    step, decay = node.operand(RATE), node.attr("decay_factor")
    if decay:
        step = step / (b.cast(node.operand(COUNT), step.dtype) * decay + 1)

    def update(step: Value, x: Value, g: Value, h: Value) -> tuple[Value, ...]:
        g = _emit_regularised(node, x, g)
        squares = h + g * g
        return x - step * g / (_emit_root(b, squares) + node.attr("epsilon")), squares

    return step, update


def _emit_adam(b: Builder, node: Node) -> tuple[Value, Emitted]:
    rate, count = node.operand(RATE), node.operand(COUNT)
    alpha, beta, post = node.attr("alpha"), node.attr("beta"), node.attr("norm_coefficient_post")
    # In float64, for 1 - beta is small; at least 1, so that no NaN arises in what T = 0 leaves unused.
    exponent = b.cast(b.op("Max", count, 1), np.dtype(np.float64))
    first, second = (1 - b.op("Pow", b.scalar(base, exponent), exponent) for base in (alpha, beta))
    step = b.op("Where", count > 0, rate * b.cast(b.op("Sqrt", second) / first, rate.dtype), rate)

    def update(step: Value, x: Value, g: Value, v: Value, h: Value) -> tuple[Value, ...]:
        g = _emit_regularised(node, x, g)
        mean = v * alpha + g * (1 - alpha)
        squares = h * beta + g * g * (1 - beta)
        moved = x - step * mean / (_emit_root(b, squares) + node.attr("epsilon"))
        return moved * (1 - post) if post else moved, mean, squares

    return step, update


def _emit_momentum(b: Builder, node: Node) -> tuple[Value, Emitted]:
    alpha, beta, nesterov = node.attr("alpha"), node.attr("beta"), node.attr("mode") == "nesterov"
    first: Value | None = None if beta == 1 else node.operand(COUNT) > 0

    def update(step: Value, x: Value, g: Value, v: Value) -> tuple[Value, ...]:
        g = _emit_regularised(node, x, g)
        scaled = g if first is None else g * b.op("Where", first, b.scalar(beta, x), b.scalar(1, x))
        moved = v * alpha + scaled
        return x - step * (g + moved * alpha if nesterov else moved), moved

    return node.operand(RATE), update


for _op, _updates, _emit in (
    (adagrad, _adagrad, _emit_adagrad),
    (adam, _adam, _emit_adam),
    (momentum, _momentum, _emit_momentum),
):
    _op.infer(_types)
    _op.prepare(partial(_kernel, _updates))
    _op.lower(partial(_lower, _emit))
