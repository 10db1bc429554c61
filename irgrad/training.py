"""Training a model that says itself how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError, FeedError, UsageError
from irgrad.frontends.onnx.training import TrainingModel
from irgrad.graph import Graph, Node, Role
from irgrad.parameters import with_parameters
from irgrad.passes.autodiff.gradient_op import GRADIENT_OP, LowerGradientOp
from irgrad.passes.training.updates import note_update
from irgrad.plugin import registry
from irgrad.runtime import Executable, compile

__all__ = ["Training"]


class Training:
    """A model with its training information (ONNX's TrainingInfoProto), and the state of its training.

    The state is what a step changes: parameters, and what an optimizer remembers. It starts as the file has it.

    Attributes:
        inference: the model's graph by itself, as the file has it.
        initializations: the graphs that compute first values of the state; they have no inputs.
        steps: the graphs of one training step, of which most models have one. Their inputs are the data and the state, and
            the new values of the state are among their outputs. The gradients that the file asks for are nodes of them.
        initialized: name in the state → the output of an initialization that is its first value.
        updates: name in the state → the output of a step that is its next value.
        state: name → array, as it is now.
    """

    def __init__(self, model: TrainingModel) -> None:
        self.inference = model.inference
        self.initialized: dict[str, str] = {}
        self.updates: dict[str, str] = {}
        self._initial = [(i.initialization, i.initialized) for i in model.infos if i.initialization is not None]
        self._stepped = [(_lowered(i.step, i.updates), i.updates) for i in model.infos if i.step is not None]
        for _, bound in self._initial:
            self.initialized.update(bound)
        for _, bound in self._stepped:
            self.updates.update(bound)
        self.initializations = tuple(graph for graph, _ in self._initial)
        self.steps = tuple(graph for graph, _ in self._stepped)
        self._file_state = dict(model.state)
        self.state: dict[str, np.ndarray] = dict(model.state)
        self._seed, self._iteration = 0, 1  # 0 is the initialization

    @property
    def initialization(self) -> Graph | None:
        """The graph that computes the first values of the state; None where the file has none.

        Raises:
            UsageError: there are several, see `initializations`.
        """
        return _only(self.initializations, "initializations") if self.initializations else None

    @property
    def step(self) -> Graph:
        """The graph of one training step.

        Raises:
            UsageError: there are several, see `steps`, or there is none.
        """
        return _only(self.steps, "steps")

    def start(self, seed: int = 0) -> None:
        """Start the training anew: the state becomes what the file has, and then what its initialization says.

        Args:
            seed: all random numbers of the initialization and of the steps that follow come from it.
        """
        self.state = dict(self._file_state)
        self._seed, self._iteration = seed % 2**64, 0
        for position, (run, (_, bound)) in enumerate(zip(self._initializers, self._initial, strict=True)):
            self._assign(bound, run({}, self._key(position)))
        self._iteration = 1

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Do one training step.

        Args:
            feeds: input name → array: the data. The state is not fed.

        Returns:
            Output name → array: what the model and the algorithm return. The state has its new values afterwards.

        Raises:
            FeedError: a feed is missing, unknown, or has another dtype or shape than the input.
            ExecutionError: a node failed, or a new value has another shape than the old one. The state stays as it was.
        """
        wanted = {name for graph in self.steps for name in graph.inputs if name not in self.state}
        unknown = [name for name in feeds if name not in wanted]
        if unknown:
            raise FeedError(
                f"{unknown[0]!r} is no input of the training; the inputs are {', '.join(sorted(wanted)) or 'none'}"
            )
        before, results = self.state, dict[str, np.ndarray]()
        try:
            for position, (run, (graph, bound)) in enumerate(zip(self._steppers, self._stepped, strict=True)):
                given = {name: array for name, array in {**feeds, **self.state}.items() if name in graph.inputs}
                found = run(given, self._key(position))
                self._assign(bound, found)
                results.update(found)
        except Exception:
            self.state = before
            raise
        self._iteration += 1
        return results

    def trained(self) -> Graph:
        """The inference graph with the parameters as they are now.

        Raises:
            UsageError: the training has changed a constant that decides the shape of a result.
        """
        names = [value.name for value in self.inference.constants if value.name in self.state]
        return with_parameters(self.inference, {name: self.state[name] for name in names})

    # --- internals ----------------------------------------------------------------------------------------------------

    @cached_property
    def _initializers(self) -> list[_Keyed]:
        return [_Keyed(graph) for graph in self.initializations]

    @cached_property
    def _steppers(self) -> list[_Keyed]:
        return [_Keyed(graph) for graph in self.steps]

    def _key(self, position: int) -> int:
        """The key of the random numbers of one graph in this iteration."""
        return int(
            np.random.SeedSequence([self._seed, self._iteration, position]).generate_state(1, np.uint64).view(np.int64)[0]
        )

    def _assign(self, bound: Mapping[str, str], results: Mapping[str, np.ndarray]) -> None:
        fresh = {name: results[output].copy() for name, output in bound.items()}  # the results are the caller's
        for name, array in fresh.items():
            new, old = list(array.shape), list(self.state[name].shape)
            if new != old:
                raise ExecutionError(f"the new value of {name!r} has the shape {new}, the old one {old}")
        self.state = {**self.state, **fresh}


class _Keyed:
    """A graph that runs on explicit keys, if it draws random numbers."""

    def __init__(self, graph: Graph) -> None:
        graph = graph.copy()
        self._name = graph.fresh_name("key")
        self._draws = registry.get("passes", "explicit_keys")(self._name).run(graph)
        self._run: Executable = compile(graph)

    def __call__(self, feeds: Mapping[str, Any], key: int) -> dict[str, np.ndarray]:
        return self._run({**feeds, self._name: key} if self._draws else feeds)


def _only(graphs: tuple[Graph, ...], what: str) -> Graph:
    if len(graphs) != 1:
        raise UsageError(f"the model has {len(graphs) or 'no'} {what}; they are in the attribute {what!r}")
    return graphs[0]


def _lowered(graph: Graph, updates: Mapping[str, str]) -> Graph:
    """A step with its gradients as nodes; what uses them has the role "update"."""
    behind: set[Node] = set()
    for node in graph.nodes():
        makers = [v.producer for v in node.inputs if v is not None]
        if any(m is not None and (m in behind or m.op.qualified_name == GRADIENT_OP) for m in makers):
            behind.add(node)
            node.role = Role.UPDATE
    LowerGradientOp().run(graph)
    for name, output in updates.items():
        note_update(graph, name, output)
    return graph
