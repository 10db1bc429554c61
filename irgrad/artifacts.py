"""Training artifacts: a model's training as files that any ONNX runtime executes.

The four models of onnxruntime's on-device training, in standard operations: one step's loss and gradients, the loss alone,
the optimizer, and the first values of all that is remembered from step to step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irgrad.errors import UsageError
from irgrad.files import filling, save_arrays
from irgrad.frontends.onnx.writer import write_model
from irgrad.graph import Graph, Value
from irgrad.literals import counted
from irgrad.parameters import decides_types, make_inputs, named_by
from irgrad.passes.autodiff.derivatives import Grad, Wrt, resolve_outputs, resolve_wrt
from irgrad.passes.loss import Loss
from irgrad.passes.simplify import Simplify
from irgrad.passes.training.updates import initial_state, updates_of
from irgrad.pipeline import Pass, Pipeline

__all__ = ["save_artifacts"]

_CHECKPOINT = "checkpoint.npz"
_INDEX = "artifacts.json"


def save_artifacts(
    graph: Graph,
    folder: str | Path,
    *,
    loss: str | Loss | None = None,
    output: str | None = None,
    wrt: Wrt = "parameters",
    optimizer: str | Pass | Sequence[Any] = "adamw",
    training: bool = True,
    opset: int | None = None,
) -> dict[str, Any]:
    """Write what it takes to train a model on any ONNX runtime: models in standard operations, and a checkpoint.

    ========================  =========================================  ==================================================
    file                      inputs                                     outputs
    ========================  =========================================  ==================================================
    ``training_model.onnx``   data, key, target, parameters, statistics  loss, gradients, the statistics' next values
    ``eval_model.onnx``       data, target, parameters, statistics       loss, and what the model returns
    ``optimizer_model.onnx``  parameters, gradients, states, settings    the next values of parameters and states
    ``checkpoint.npz``                                                   first values of parameters, statistics and states
    ``artifacts.json``                                                   what belongs to what
    ========================  =========================================  ==================================================

    A value has one name throughout: what a model returns as a gradient is an input of that name of the optimizer, and the
    arrays of the checkpoint are called as the inputs that they go to. Parameters that are not trained stay in the models.
    The files are written all or none; other files of the folder stay as they are.

    Args:
        graph: the model, as it is for inference; it is left as it is.
        folder: where the files go; it is made where it does not exist.
        loss: a loss to add, by name, or as a pass, which can have other names for the target and the loss. Without one, the
            model has an output that is the loss.
        output: the output that the loss is of, or that is the loss; may be left out where there is only one of a
            floating-point dtype.
        wrt: what is trained: "parameters" (but for running statistics), or names of them.
        optimizer: one of `irgrad.passes.training.optimizers`, as a pass or as the text of a pipeline, in which clipping may
            come first: ``"clip_grad_norm{max_norm=1},adamw{weight_decay=0.1}"``.
        training: put the training model into training mode, see `irgrad.load`. The running statistics are remembered too
            then, and a model that draws random numbers has an input `key`. Otherwise it computes as in inference.
        opset: that of the models; by default for each the lowest in which its nodes mean the same.

    Returns:
        What ``artifacts.json`` says.

    Raises:
        UsageError: a name in `wrt` is no parameter's; the optimizer leaves parameters as they are; the folder cannot be
            written.
        AdjointError: there is nothing to train, a name is unknown, or what is to be the loss is no scalar.
        UnsupportedOpError: nodes on the path cannot be differentiated; all of them are named.
        PassError: the loss or the optimizer is unknown, or an option of it is out of range.
        ExportError: a node has no meaning in ONNX, or none in the opset.
    """
    made = _artifacts(graph, Loss(loss, output) if isinstance(loss, str) else loss, output, wrt, optimizer, training)
    index = made.index(graph)
    with filling(folder) as files:
        for model in (made.training, made.evaluation, made.optimizer):
            write_model(model, files / f"{model.name}.onnx", opset=opset)
        save_arrays(files / _CHECKPOINT, made.checkpoint)
        (files / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return index


@dataclass(frozen=True)
class _Artifacts:
    """The models, the names of the loss, the target, what is trained and the running statistics, and the first values."""

    training: Graph
    evaluation: Graph
    optimizer: Graph
    loss: str
    target: str | None
    parameters: Sequence[str]
    statistics: Sequence[str]
    checkpoint: Mapping[str, np.ndarray]

    def index(self, model: Graph) -> dict[str, Any]:
        """What ``artifacts.json`` says.

        Args:
            model: the model that they are the training of.
        """
        gradients = self.training.gradients
        states = [name for name in updates_of(self.optimizer) if name not in self.parameters]
        known = {*self.parameters, *gradients.values(), *states}
        added = [name for name in self.training.inputs if name not in {*model.inputs, *known, *self.statistics}]
        return {
            "training": _described(self.training),
            "eval": _described(self.evaluation),
            "optimizer": _described(self.optimizer),
            "checkpoint": _CHECKPOINT,
            "loss": self.loss,
            "data": list(model.inputs),
            "target": self.target,
            "key": next((name for name in added if name != self.target), None),
            "parameters": list(self.parameters),
            "statistics": list(self.statistics),
            "states": states,
            "settings": [name for name in self.optimizer.inputs if name not in known],
            "gradients": gradients,
        }


def _described(model: Graph) -> dict[str, Any]:
    return {
        "file": f"{model.name}.onnx",
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "updates": updates_of(model),
    }


def _artifacts(
    graph: Graph,
    head: Loss | None,
    output: str | None,
    wrt: Wrt,
    optimizer: str | Pass | Sequence[Any],
    training: bool,
) -> _Artifacts:
    trained = Pipeline("train_mode,explicit_keys").apply(graph) if training else graph.copy()
    parameters = _parameters(trained, wrt)
    statistics = [name for name in updates_of(trained) if trained.value(name).constant is not None]
    state = [*parameters, *statistics]
    arrays = {name: named_by(trained.value(name)).constant for name in state}
    evaluation, own = graph.copy(), list(graph.outputs)
    for model in (trained, evaluation):
        if head is not None:
            Pipeline([head]).run(model)
        make_inputs(model, state)
    loss = head.result if head is not None else _only_output(trained, output)
    Pipeline([Grad(parameters, loss)]).run(trained)
    outputs = trained.outputs
    wanted = [loss, *trained.gradients.values(), *updates_of(trained).values()]
    trained.set_outputs({name: outputs[name] for name in wanted})
    Simplify().run(trained)
    outputs = evaluation.outputs
    evaluation.set_outputs({name: outputs[name] for name in dict.fromkeys([loss, *own])})
    stepper = _optimizer(trained, parameters, optimizer)
    for model, name in ((trained, "training_model"), (evaluation, "eval_model"), (stepper, "optimizer_model")):
        model.name = name
    checkpoint = {**{name: array for name, array in arrays.items() if array is not None}, **initial_state(stepper)}
    return _Artifacts(
        trained, evaluation, stepper, loss, None if head is None else head.target, parameters, statistics, checkpoint
    )


def _parameters(graph: Graph, wrt: Wrt) -> list[str]:
    """The names of what is trained.

    Raises:
        UsageError: a name is no parameter's, or is that of one that cannot be changed.
    """
    moved, values = updates_of(graph), resolve_wrt(graph, wrt)
    if wrt == "parameters":
        values = {name: value for name, value in values.items() if not _is_statistic(value)}
    for name, value in values.items():
        why = None
        if named_by(value).constant is None:
            why = "it is an input of the model" if value.producer is None else "it is computed"
        elif value.name != name or name in moved:
            why = "it is a running statistic" if name in moved else "it is an output"
        elif decides_types(value):
            why = "it decides the shape of a result"
        if why is not None:
            raise UsageError(f"{name!r} cannot be trained: {why}; wrt= takes names of parameters")
    return list(values)


def _is_statistic(value: Value) -> bool:
    """Whether a value is read, and only as a running statistic of BatchNormalization, under this name or another one."""
    return bool(value.users) and all(
        _is_statistic(user.outputs[0])
        if user.op.qualified_name == "Identity"
        else user.op.qualified_name == "BatchNormalization" and value not in user.inputs[:3]
        for user in value.users
    )


def _only_output(graph: Graph, output: str | None) -> str:
    """The output that is the loss.

    Raises:
        UsageError: there are several that could be.
        AdjointError: there is none of that name.
    """
    names = list(resolve_outputs(graph, None if output is None else [output]))
    if len(names) != 1:
        raise UsageError(f"say which output is the loss (output=), or add one (loss=); there are {', '.join(names)}")
    return names[0]


def _optimizer(training: Graph, parameters: Sequence[str], optimizer: str | Pass | Sequence[Any]) -> Graph:
    """The graph of the optimizer: parameters and gradients are inputs, the next values outputs.

    Raises:
        UsageError: it leaves parameters as they are.
        PassError: there is no such pass.
    """
    graph = Graph()
    for name in parameters:
        graph.add_input(name, training.value(name).type)
    given: dict[str, Value] = {}
    for name in parameters:
        gradient = training.gradients[name]
        given[gradient] = graph.add_input(gradient, training.value(name).type)
    graph.set_outputs(given)
    graph.gradients.update(training.gradients)
    Pipeline(optimizer).run(graph)
    left = [name for name in parameters if name not in updates_of(graph)]
    if left:
        count = counted(len(left), "parameter")
        raise UsageError(f"the optimizer leaves {count} as is, such as {left[0]!r}; name in wrt= what is to be trained")
    graph.set_outputs({name: value for name, value in graph.outputs.items() if name not in given})
    Simplify().run(graph)
    return graph
