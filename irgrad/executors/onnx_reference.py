"""The executor `reference`: the graph as an ONNX model in onnx's reference implementation, to check other runtimes by."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from irgrad.executors.exported import checked, export
from irgrad.frontends.onnx.writer import graph_to_model
from irgrad.graph import Graph
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.feeds import FeedChecker

__all__ = ["ReferenceExecutable"]

_RUNTIME = "onnx.reference"


class ReferenceExecutable:
    """Runs a graph on onnx.reference, slowly. See `irgrad.runtime.executor.Executable` for the contract.

    Args:
        graph: the graph; a copy of it is kept.
        threads: accepted so that every executor takes it, and ignored.

    Raises:
        ExportError: the graph has no form in standard operations.
        ExecutionError: onnx.reference lacks an operation.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        self._graph = graph.copy()
        self._check = FeedChecker(self._graph)
        self._model = export(self._graph, list(self._graph.parameters))
        try:
            self._evaluator = ReferenceEvaluator(graph_to_model(self._model.graph))
        except Exception as error:  # the reference raises NotImplementedError, RuntimeContextError and others here
            raise self._model.failure(_RUNTIME, error) from error

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def memory(self) -> MemoryReport:
        """Nothing is known: onnx.reference does not tell what it needed."""
        return MemoryReport(None)

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        arrays = self._model.feeds(self._check(feeds))
        try:
            with np.errstate(all="ignore"):
                # Results may be, or be views of, feeds, constants and each other.
                results = deepcopy(self._evaluator.run(None, arrays))
        except Exception as error:  # whatever a kernel of the reference happens to raise
            raise self._model.failure(_RUNTIME, error) from error
        types = {name: value.type for name, value in self._graph.outputs.items()}
        return {
            name: checked(result, type, name, _RUNTIME) for (name, type), result in zip(types.items(), results, strict=True)
        }
