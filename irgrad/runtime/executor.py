"""What every executor offers, and the call that makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from irgrad.graph import Graph
from irgrad.plugin import registry

__all__ = ["Executable", "MemoryReport", "compile"]


@dataclass(frozen=True)
class MemoryReport:
    """What a run needed.

    Attributes:
        measured_peak: the most bytes that results of nodes took at one time during the last run (feeds and constants not
            counted, two views of one buffer counted once): where the run was planned, the memory that holds all of them;
            None where the executor cannot tell.
        timeline: (node name, live bytes after it ran) for each node of the last run, as far as the executor can tell.
        predicted_peak: the bytes that the plan of the run takes; None where there was no plan.
        lower_bound: what no arrangement of the same results in the same order takes less than; None where there was no plan.
    """

    measured_peak: int | None = 0
    timeline: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    predicted_peak: int | None = None
    lower_bound: int | None = None


@runtime_checkable
class Executable(Protocol):
    """A graph that is ready to run."""

    @property
    def graph(self) -> Graph:
        """The graph, as it was compiled."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """What the last run needed (of several at the same time, the one that ended last)."""
        ...

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run once. Several threads may do so at the same time.

        Args:
            feeds: input name → array (never written to). A parameter may be fed too, which then replaces the model's own
                array in this run, unless that decides the shape of something.

        Returns:
            Output name → array. The arrays belong to the caller and stay as they are whatever runs later.

        Raises:
            FeedError: a feed is missing, unknown, or has another dtype or shape than the input.
            ExecutionError: a node failed; the message names it.
        """
        ...


def compile(graph: Graph, executor: str = "numpy", **options: Any) -> Executable:
    """Prepare a graph for running.

    Args:
        graph: any graph; it is copied, so that later changes of it do not matter.
        executor: the name of an executor: "numpy", "onnxruntime" (with the extra of that name), "reference" (onnx.reference,
            for checking), or one that a plugin provides.
        options: what the executor takes; each takes `threads`.

    Raises:
        PluginError: there is no such executor.
        UsageError: the executor needs something that is not installed, or an option is out of range.
    """
    made = registry.get("executors", executor)(graph, **options)
    assert isinstance(made, Executable)
    return made
