"""Losses as a pass: the head that turns a model's output into the scalar that is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Value
from irgrad.passes.autodiff.derivatives import resolve_outputs
from irgrad.pipeline import Pass
from irgrad.types import TensorType

__all__ = ["LOSSES", "Loss"]


@dataclass(frozen=True)
class _Definition:
    """How a loss is made: ``emit(b, prediction, target)``, and what its target is like."""

    emit: Callable[[Builder, Value, Value], Value]
    target: Callable[[TensorType], TensorType]


def _like(prediction: TensorType) -> TensorType:
    return prediction


def _classes(prediction: TensorType) -> TensorType:
    """Class indices: the prediction's shape without its axis 1."""
    shape = prediction.shape
    return TensorType(np.dtype(np.int64), None if shape is None else (*shape[:1], *shape[2:]))


def _mean(b: Builder, value: Value) -> Value:
    return b.op("ReduceMean", value, keepdims=0)


def _cross_entropy(b: Builder, logits: Value, target: Value) -> Value:
    return b.op("SoftmaxCrossEntropyLoss", logits, target, reduction="mean")


def _nll(b: Builder, log_probabilities: Value, target: Value) -> Value:
    return b.op("NegativeLogLikelihoodLoss", log_probabilities, target, reduction="mean")


def _mse(b: Builder, prediction: Value, target: Value) -> Value:
    difference = prediction - target
    return _mean(b, difference * difference)


def _l1(b: Builder, prediction: Value, target: Value) -> Value:
    return _mean(b, b.op("Abs", prediction - target))


def _bce_with_logits(b: Builder, logits: Value, target: Value) -> Value:
    # softplus(x) − x t: the logarithm of a sigmoid without ever forming the sigmoid.
    return _mean(b, b.op("Softplus", logits) - logits * target)


LOSSES: dict[str, _Definition] = {
    "bce_with_logits": _Definition(_bce_with_logits, _like),
    "cross_entropy": _Definition(_cross_entropy, _classes),
    "l1": _Definition(_l1, _like),
    "mse": _Definition(_mse, _like),
    "nll": _Definition(_nll, _classes),
}
"""Name → definition. All of them are means over the elements (over the rows, for the two on class indices)."""


@dataclass(frozen=True)
class Loss(Pass):
    """Add a loss: a target input and a scalar output.

    Attributes:
        kind: a key of `LOSSES`: "cross_entropy" and "nll" (targets: int64 class indices, the classes along axis 1 of the
            prediction), "mse", "l1" and "bce_with_logits" (targets like the prediction).
        output: the output that is the prediction; may be left out where there is one of a floating-point dtype.
        target: the name of the new input.
        result: the name of the new output.
    """

    name: ClassVar[str] = "loss"
    kind: str = "mse"
    output: str | None = None
    target: str = "target"
    result: str = "loss"

    def requires(self, graph: Graph) -> None:
        if self.kind not in LOSSES:
            raise PassError(f"there is no loss {self.kind!r}; there are: {', '.join(LOSSES)}")
        for name, taken in ((self.target, graph.has_value(self.target)), (self.result, self.result in graph.outputs)):
            if taken:
                raise PassError(f"the name {name!r}, which the loss needs, is taken; choose another (target=, result=)")
        outputs = resolve_outputs(graph, None if self.output is None else [self.output])
        if len(outputs) != 1:
            raise PassError(f"the loss is of one output, but there are {', '.join(outputs)}; name one (output=)")

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        ((_, prediction),) = resolve_outputs(graph, None if self.output is None else [self.output]).items()
        definition = LOSSES[self.kind]
        target = graph.add_input(self.target, definition.target(prediction.tensor_type))
        with Builder(graph) as b:
            loss = definition.emit(b, prediction, target)
        if not graph.has_value(self.result):
            graph.rename(loss, self.result)
        graph.set_outputs({**graph.outputs, self.result: loss})
        return True
