"""The plain interpreter: node by node in program order, every value freed after its last use, memory as numpy gives it.

It decides nothing ahead of a run, so that what it computes and needs can be watched node by node. It runs the bodies of
loops and branches, and is what planned programs are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.graph import Graph, Node, Value
from irgrad.op import Kernel
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.failure import failure, wrong_dtype
from irgrad.runtime.kernels import results_of
from irgrad.runtime.liveness import frees_after
from irgrad.runtime.owned import handed_out, read_only, root_of
from irgrad.runtime.plan import kernels_of
from irgrad.types import TensorType

__all__ = ["Interpreter", "Subprogram", "Watch"]

Watch: TypeAlias = "Callable[[Node, Sequence[Any]], None]"


@dataclass(frozen=True)
class _Step:
    node: Node
    kernel: Kernel
    operands: tuple[int | None, ...]
    results: tuple[int, ...]
    dtypes: tuple[np.dtype | None, ...]
    frees: tuple[int, ...]


@dataclass(frozen=True)
class _Program:
    """A specialised graph as a flat list of steps over numbered slots."""

    size: int
    inputs: dict[str, int]
    constants: list[tuple[int, np.ndarray]]
    outputs: dict[str, int]
    steps: list[_Step]


def _program_of(graph: Graph) -> _Program:
    slots: dict[Value, int] = {value: slot for slot, value in enumerate(graph.values())}
    kernels = kernels_of(graph)
    steps = []
    for (node, kernel), freed in zip(kernels.items(), frees_after(list(kernels)), strict=True):
        steps.append(
            _Step(
                node,
                kernel,
                tuple(None if v is None else slots[v] for v in node.inputs),
                tuple(slots[v] for v in node.outputs),
                tuple(v.type.dtype if isinstance(v.type, TensorType) else None for v in node.outputs),
                tuple(slots[v] for v in freed),
            )
        )
    return _Program(
        size=len(slots),
        inputs={name: slots[value] for name, value in graph.inputs.items()},
        constants=[(slots[value], read_only(array)) for value, array in graph.constants.items()],
        outputs={name: slots[value] for name, value in graph.outputs.items()},
        steps=steps,
    )


class Interpreter:
    """Runs a graph node by node.

    Args:
        graph: a specialised graph, which must not change any more.

    Raises:
        ExecutionError: a kernel cannot be prepared; the message names the node.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._program = _program_of(graph)

    def __call__(self, arrays: Mapping[str, Any], watch: Watch | None = None) -> tuple[dict[str, Any], MemoryReport]:
        """Run once.

        Args:
            arrays: an array for each input.
            watch: called with each node and its results as soon as they are there.

        Returns:
            Output name → array, which is the caller's own; and the memory that was needed.

        Raises:
            ExecutionError: a node failed; the message names it.
        """
        return _run(self._program, arrays, watch)


def _run(program: _Program, arrays: Mapping[str, Any], watch: Watch | None) -> tuple[dict[str, Any], MemoryReport]:
    slots: list[Any] = [None] * program.size
    for slot, array in program.constants:
        slots[slot] = array
    for name, array in arrays.items():
        slots[program.inputs[name]] = array
    lent = [a for slot in slots for a in (slot if isinstance(slot, list) else (slot,))]
    borrowed = {id(root_of(a)) for a in lent if isinstance(a, np.ndarray)}
    live = _LiveBytes(borrowed)
    timeline = []
    with np.errstate(all="ignore"):
        for step in program.steps:
            _take(step, slots)
            for slot in step.results:
                live.add(slots[slot])
            timeline.append((step.node.name, live.now))
            if watch is not None:
                watch(step.node, [slots[slot] for slot in step.results])
            for slot in step.frees:
                live.remove(slots[slot])
                slots[slot] = None
    owned: set[int] = set()
    outputs = {name: handed_out(slots[slot], borrowed, owned) for name, slot in program.outputs.items()}
    return outputs, MemoryReport(measured_peak=live.peak, timeline=tuple(timeline))


def _take(step: _Step, slots: list[Any]) -> None:
    """Run one step: from slots to slots."""
    operands = [None if slot is None else slots[slot] for slot in step.operands]
    try:
        results = results_of(step.kernel(*operands), len(step.results))
    except Exception as error:
        raise ExecutionError(failure(step.node, operands, error)) from error
    for slot, dtype, result in zip(step.results, step.dtypes, results, strict=True):
        if isinstance(result, np.ndarray) and dtype is not None and result.dtype != dtype:
            raise ExecutionError(failure(step.node, operands, TypeError(wrong_dtype(result.dtype, dtype))))
        slots[slot] = result


class Subprogram:
    """A subgraph, compiled once and run many times: what the kernels of control flow are made of.

    Args:
        graph: the subgraph, its inputs of the types that they have in every run. Dimensions may be unknown.
    """

    def __init__(self, graph: Graph) -> None:
        self._program = _program_of(graph)

    def __call__(self, *operands: Any) -> list[Any]:
        """The results in order. They may be, or be views of, operands and constants: neither must be written to."""
        program = self._program
        slots: list[Any] = [None] * program.size
        for slot, array in program.constants:
            slots[slot] = array
        for slot, operand in zip(program.inputs.values(), operands, strict=True):
            slots[slot] = operand
        for step in program.steps:
            _take(step, slots)
            for slot in step.frees:
                slots[slot] = None
        return [slots[slot] for slot in program.outputs.values()]


class _LiveBytes:
    """Counts the bytes of the buffers that results of nodes hold; a buffer with two views is one buffer."""

    def __init__(self, borrowed: set[int]) -> None:
        self._borrowed = borrowed
        self._counts: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def add(self, result: Any) -> None:
        for array in result if isinstance(result, list) else (result,):
            if isinstance(array, np.ndarray):
                root = root_of(array)
                if id(root) in self._borrowed:
                    continue
                count = self._counts.get(id(root), 0)
                self._counts[id(root)] = count + 1
                if not count:
                    self.now += root.nbytes
        self.peak = max(self.peak, self.now)

    def remove(self, result: Any) -> None:
        for array in result if isinstance(result, list) else (result,):
            if isinstance(array, np.ndarray):
                root = root_of(array)
                count = self._counts.get(id(root), 0)
                if count == 1:
                    del self._counts[id(root)]
                    self.now -= root.nbytes
                elif count:
                    self._counts[id(root)] = count - 1
