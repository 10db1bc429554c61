"""Training mode: what exporters write for inference becomes what the model was while it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from irgrad.builder import Builder, call_of
from irgrad.errors import PassError
from irgrad.graph import Graph, Node, Value
from irgrad.infer import infer_types
from irgrad.ops.batch_norm import MEAN, VAR
from irgrad.ops.dropout import DATA, RATIO, TRAINING
from irgrad.parameters import made_constant, named_by
from irgrad.passes.training.updates import note_update, updates_of
from irgrad.pipeline import Pass

__all__ = ["TrainMode"]


@dataclass(frozen=True)
class TrainMode(Pass):
    """Let BatchNormalization use the statistics of the batch, and Dropout drop.

    The new running statistics, which move with the `momentum` that the file gives, become further outputs
    ``<name of the statistic>_updated``; `irgrad.passes.training.updates.updates_of` tells which output is the next value of
    which parameter. Statistics that several nodes share move once for each of them, in the order of the program. A
    Dropout whose mode is a value of the graph keeps that, and its ratio is no parameter any more.

    Nodes are chosen by patterns with ``*`` and ``?`` for their names.

    Attributes:
        only: patterns of which a name has to match one.
        skip: patterns of which it must not match any.
        batch_norm: whether BatchNormalization changes.
        dropout: whether Dropout does.
    """

    name: ClassVar[str] = "train_mode"
    only: Sequence[str] = ("*",)
    skip: Sequence[str] = ()
    batch_norm: bool = True
    dropout: bool = True

    def requires(self, graph: Graph) -> None:
        for inner in graph.walk():
            if inner is not graph and (nodes := [repr(n) for n in self._chosen(inner, "BatchNormalization")]):
                raise PassError(
                    f"running statistics cannot leave the subgraph that {'; '.join(nodes)} is in; simplify away what "
                    "decides which subgraph runs, or leave the node out (skip=)"
                )
        for node in self._chosen(graph, "BatchNormalization"):
            for position in (MEAN, VAR):
                self._check(node, node.operand(position))

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        changed = False
        for inner in graph.walk():
            for node in self._chosen(inner, "Dropout"):
                changed |= _let_drop(node)
        moved: dict[Value, Value] = {}
        for node in self._chosen(graph, "BatchNormalization"):
            changed |= _let_learn(node, moved)
        return changed | _return(graph, moved)

    def _chosen(self, graph: Graph, op: str) -> Iterator[Node]:
        if not {"BatchNormalization": self.batch_norm, "Dropout": self.dropout}[op]:
            return
        for node in graph.nodes():
            matches = [any(fnmatchcase(node.name, pattern) for pattern in given) for given in (self.only, self.skip)]
            if node.op.qualified_name == op and matches == [True, False]:
                yield node

    def _check(self, node: Node, value: Value) -> None:
        statistic = _statistic(value)
        if named_by(statistic).producer is not None:
            raise PassError(
                f"the running statistic %{value.name} of {node!r} is computed, so that no update can be put back"
            )
        name = _name_of(statistic)
        if name in node.graph.outputs and name not in updates_of(node.graph).values():
            raise PassError(f"the graph already has an output {name!r}, which a running statistic needs for its own")


def _name_of(statistic: Value) -> str:
    return f"{statistic.name}_updated"


def _statistic(value: Value) -> Value:
    """The running statistic that an operand is, before nodes that share it have moved it."""
    producer = value.producer
    while producer is not None and producer.op.qualified_name == "BatchNormalization" and value is not producer.outputs[0]:
        value = producer.operand(MEAN if value is producer.outputs[1] else VAR)
        producer = value.producer
    return value


def _let_drop(node: Node) -> bool:
    training, ratio = node.input(TRAINING), node.input(RATIO)
    changed = False
    if ratio is not None and ratio.is_parameter and {*ratio.users} == {node}:
        ratio.is_parameter = False  # a number in a file looks like a weight, but this one is not learned
        changed = True
    fixed = None if ratio is None or ratio.is_parameter else ratio.constant
    if fixed is not None and not fixed.astype(np.float32).any():
        return changed  # it has nothing to drop
    if training is not None and (training.constant is None or training.constant.any()):
        return changed
    on = Builder(node.graph).constant(np.array(True))
    node.graph.set_operands(node, [node.operand(DATA), ratio, on])
    return True


def _let_learn(node: Node, moved: dict[Value, Value]) -> bool:
    """Put a BatchNormalization into training mode; `moved` says for each statistic what has become of it so far."""
    graph, changed = node.graph, False
    statistics = [_own(_statistic(node.operand(position))) for position in (MEAN, VAR)]
    for position, statistic in zip((MEAN, VAR), statistics, strict=True):
        latest = moved.get(statistic, statistic)
        if node.operand(position) is not latest or (statistic.constant is not None and not statistic.is_parameter):
            graph.set_input(node, position, latest)
            statistic.is_parameter = statistic.constant is not None
            changed = True
    if not node.attr("training_mode") or len(node.outputs) < 3:
        attrs = {**node.attrs, "training_mode": 1}
        types = infer_types(call_of(node.op, attrs, node.inputs, 3))
        graph.set_op(node, node.op, attrs)
        for type in types[len(node.outputs) :]:
            graph.add_output(node, type)
        changed = True
    moved.update(zip(statistics, node.outputs[1:], strict=True))
    return changed


def _own(statistic: Value) -> Value:
    """A running statistic as a parameter (or input) of the graph, which can be fed its next value."""
    named = named_by(statistic)
    return named if named.constant is None else made_constant(statistic)


def _return(graph: Graph, moved: dict[Value, Value]) -> bool:
    """Return what the statistics have become, and say so; True if the graph did not yet."""
    outputs, known = graph.outputs, updates_of(graph)
    changed = False
    for statistic, value in moved.items():
        name = next((name for name, returned in outputs.items() if returned is value), _name_of(statistic))
        if known.get(statistic.name) != name:
            outputs[name] = value
            note_update(graph, statistic.name, name)
            if not graph.has_value(name):
                graph.rename(value, name)
            changed = True
    if changed:
        graph.set_outputs(outputs)
    return changed
