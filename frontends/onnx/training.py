"""Training information in a model file: how its parameters are initialised, and what one step of training does to them.

Source: the text of TrainingInfoProto in onnx.proto. A step is executed on the graph that has the inputs, initializers, nodes
and outputs of the model's graph and, behind them, those of the field `algorithm`; its bindings say which results are
assigned to which initializers afterwards. Initializers that a binding names are the state of the training; they are inputs
of the graphs that are read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from irgrad.errors import DanglingNameError, DuplicateNameError, ModelError, ModelTypeError, UsageError
from irgrad.frontends.onnx.external import ExternalData
from irgrad.frontends.onnx.reader import read_model
from irgrad.frontends.onnx.tensors import sparse_to_array, tensor_to_array
from irgrad.graph import Graph
from irgrad.types import TensorType, type_to_proto, types_compatible

__all__ = ["TrainingInfo", "TrainingModel", "read_training"]


@dataclass(frozen=True)
class TrainingInfo:
    """One TrainingInfoProto.

    Attributes:
        initialization: a graph without inputs, or None.
        initialized: name in the state → the output of `initialization` that is its first value.
        step: the model's graph and the algorithm in one, or None where there is no algorithm. Its inputs are those of both,
            and the state.
        updates: name in the state → the output of `step` that is its next value.
    """

    initialization: Graph | None
    initialized: Mapping[str, str]
    step: Graph | None
    updates: Mapping[str, str]


@dataclass(frozen=True)
class TrainingModel:
    """A model with training information.

    Attributes:
        inference: the model's graph by itself.
        infos: what is executed, in order, for one iteration.
        state: name → array that the file has for it.
    """

    inference: Graph
    infos: tuple[TrainingInfo, ...]
    state: Mapping[str, np.ndarray]


def read_training(model: onnx.ModelProto, folder: Path | None = None) -> TrainingModel:
    """Read a model with its training information.

    Args:
        model: it is not changed.
        folder: where external data may lie.

    Raises:
        UsageError: the model has no training information.
        ModelError: the model is defective; the subclass says how.
    """
    if not model.training_info:
        raise UsageError(
            "the model has no training information (TrainingInfoProto); load it, and differentiate it with grad"
        )
    inference = read_model(model, folder)
    bindings = [_Bindings(model.graph, info, number) for number, info in enumerate(model.training_info)]
    shared = {name for b in bindings for name in b.keys if name in b.of_model}
    external = ExternalData(folder)
    infos: list[TrainingInfo] = []
    state: dict[str, np.ndarray] = {}
    owners: dict[str, str] = {}
    for b in bindings:
        names = dict.fromkeys([*(n for n in b.of_model if n in shared), *(n for n in b.of_algorithm if n in b.keys)])
        for name in names:
            if name in state and name not in b.of_model:
                raise DuplicateNameError(f"{b.where} has the state {name!r}, which another training info has too")
            if name not in state:
                state[name] = b.array(name, external)
        for name in b.updates:
            if name in owners:
                raise DuplicateNameError(f"{b.where} updates {name!r}, which {owners[name]} updates too")
            owners[name] = b.where
        step = None
        if _holds_something(b.info.algorithm):
            step = _read(
                _combined(model, b.info.algorithm, {n: state[n] for n in names}), f"the algorithm of {b.where}", folder
            )
            _check_types(f"{b.where} updates", b.updates, step, state)
        initialization = None
        if _holds_something(b.info.initialization):
            what = f"the initialization of {b.where}"
            initialization = _read(_alone(model, b.info.initialization), what, folder)
            if initialization.inputs:
                raise ModelTypeError(f"{what} has the input {next(iter(initialization.inputs))!r}, but it must not have any")
            _check_types(f"{b.where} initialises", b.initialized, initialization, state)
        infos.append(TrainingInfo(initialization, b.initialized, step, b.updates))
    return TrainingModel(inference, tuple(infos), state)


# --- bindings ---------------------------------------------------------------------------------------------------------

_Initializers = dict[str, "onnx.TensorProto | onnx.SparseTensorProto"]


@dataclass
class _Bindings:
    """What one TrainingInfoProto binds to what, with the checks that onnx.proto asks for."""

    graph: onnx.GraphProto
    info: onnx.TrainingInfoProto
    number: int
    of_model: _Initializers = field(init=False)
    of_algorithm: _Initializers = field(init=False)

    def __post_init__(self) -> None:
        self.where = f"training info {self.number}"
        self.of_model = _initializers(self.graph)
        self.of_algorithm = _initializers(self.info.algorithm)
        both = [name for name in self.of_algorithm if name in self.of_model]
        if both:
            raise DuplicateNameError(
                f"the algorithm of {self.where} has the initializer {both[0]!r}, which the model has too"
            )
        results = [o.name for o in self.info.initialization.output]
        self.initialized = self._read(self.info.initialization_binding, "initialises", results)
        results = [o.name for o in (*self.info.algorithm.output, *self.graph.output)]
        self.updates = self._read(self.info.update_binding, "updates", results)
        self.keys = {*self.initialized, *self.updates}

    def _read(self, entries: Iterable[onnx.StringStringEntryProto], verb: str, results: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in entries:
            if entry.key in found:
                raise DuplicateNameError(f"{self.where} {verb} {entry.key!r} twice")
            if entry.key not in self.of_model and entry.key not in self.of_algorithm:
                raise DanglingNameError(
                    f"{self.where} {verb} {entry.key!r}, which is no initializer of the model or the algorithm"
                )
            if entry.value not in results:
                raise DanglingNameError(f"{self.where} {verb} {entry.key!r} with {entry.value!r}, which is no output")
            found[entry.key] = entry.value
        return found

    def array(self, name: str, external: ExternalData) -> np.ndarray:
        """The array that the file has for an initializer."""
        proto = self.of_algorithm.get(name) or self.of_model[name]
        if isinstance(proto, onnx.SparseTensorProto):
            return sparse_to_array(proto, external, f"the initializer {name!r}")
        return tensor_to_array(proto, external, f"the initializer {name!r}")


def _initializers(graph: onnx.GraphProto) -> _Initializers:
    return {**{t.name: t for t in graph.initializer}, **{t.values.name: t for t in graph.sparse_initializer}}


def _check_types(what: str, bound: Mapping[str, str], graph: Graph, state: Mapping[str, np.ndarray]) -> None:
    outputs = graph.outputs
    for name, output in bound.items():
        type, new = TensorType.of(state[name]), outputs[output].type
        if not types_compatible(new, type):
            raise ModelTypeError(f"{what} {name!r}, which is {type}, with {output!r}, which is {new}")


# --- graphs -----------------------------------------------------------------------------------------------------------


def _holds_something(graph: onnx.GraphProto) -> bool:
    return bool(graph.node or graph.output or graph.initializer or graph.sparse_initializer or graph.input)


def _read(model: onnx.ModelProto, what: str, folder: Path | None) -> Graph:
    try:
        return read_model(model, folder)
    except ModelError as error:
        raise type(error)(f"in {what}: {error}") from error.__cause__


def _alone(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of another graph, in the same opsets and with the same functions."""
    other = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    other.graph.CopyFrom(graph)
    return other


def _combined(model: onnx.ModelProto, algorithm: onnx.GraphProto, state: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model whose graph is executed for a step, its state made inputs."""
    combined = _alone(model, model.graph)
    graph = combined.graph
    graph.name = algorithm.name or graph.name
    for part in ("input", "output", "node", "value_info"):
        getattr(graph, part).extend(getattr(algorithm, part))
    for part in ("initializer", "sparse_initializer"):
        kept = [
            t
            for t in (*getattr(graph, part), *getattr(algorithm, part))
            if (t.name if isinstance(t, onnx.TensorProto) else t.values.name) not in state
        ]
        del getattr(graph, part)[:]
        getattr(graph, part).extend(kept)
    declared = {info.name for info in graph.input}
    graph.input.extend(
        helper.make_value_info(name, type_to_proto(TensorType.of(array)))
        for name, array in state.items()
        if name not in declared
    )
    return combined
