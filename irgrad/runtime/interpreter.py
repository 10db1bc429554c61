"""The numpy interpreter: node by node in program order, every value freed after its last use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import typed_call
from irgrad.errors import ExecutionError, FeedError
from irgrad.graph import Graph, Node, Value
from irgrad.op import Kernel
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.feeds import FeedChecker
from irgrad.runtime.kernels import bind, results_of
from irgrad.runtime.liveness import frees_after, needed_nodes
from irgrad.runtime.specialise import specialise
from irgrad.types import OptionalType, SequenceType, TensorType, Type, dtype_name

__all__ = ["NumpyExecutable", "Subprogram", "Watch"]

Signature: TypeAlias = "tuple[tuple[str, Any], ...]"
Watch: TypeAlias = "Callable[[Node, Sequence[Any]], None]"

_CACHED = 16  # specialised programs kept, one per signature of input shapes


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
    constants: dict[str, tuple[int, np.ndarray]]
    outputs: dict[str, int]
    steps: list[_Step]


class NumpyExecutable:
    """Runs a graph on numpy. See `irgrad.runtime.executor.Executable` for the contract.

    Args:
        graph: the graph; a copy of it is kept.
        threads: accepted so that every executor takes it; numpy's own BLAS threads are left as the environment sets them.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise FeedError(f"threads must be at least 1, not {threads}")
        self._graph = graph.copy()
        for value, array in list(self._graph.constants.items()):
            if any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True)):
                self._graph.set_constant(value, _written_out(value, array))
        self._programs: OrderedDict[Signature, _Program] = OrderedDict()
        self._lock = Lock()  # one executable may be called from several threads
        self._check = FeedChecker(self._graph)
        self._memory = MemoryReport()

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def memory(self) -> MemoryReport:
        return self._memory

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        program, arrays = self._prepared(feeds)
        results, self._memory = _run(program, arrays)
        return results

    def watched(self, feeds: Mapping[str, Any], watch: Watch) -> dict[str, np.ndarray]:
        """Run once like a call, and hand each node over with its results as soon as they are there.

        Nodes whose results are known ahead of the run, since they follow from shapes or constants, come in their places;
        those that no output depends on do not run.

        Args:
            feeds: see `Executable.__call__`.
            watch: called with a node of `graph` and its results, which it must neither change nor keep. What it raises ends
                the run.
        """
        program, arrays = self._prepared(feeds)
        waiting = iter(self._graph.nodes())

        def catch_up(until: str | None) -> Node | None:
            for node in waiting:
                if node.name == until:
                    return node
                known = [program.constants[v.name][1] for v in node.outputs if v.name in program.constants]
                if len(known) == len(node.outputs):
                    watch(node, known)
            return None

        def report(node: Node, results: Sequence[Any]) -> None:
            watch(catch_up(node.name) or node, results)

        results, self._memory = _run(program, arrays, report)
        catch_up(None)
        return results

    def _prepared(self, feeds: Mapping[str, Any]) -> tuple[_Program, dict[str, Any]]:
        arrays = self._check(feeds)
        inputs = self._graph.inputs
        signature = tuple((name, _signature_of(array)) for name, array in arrays.items() if name in inputs)
        with self._lock:
            program = self._programs.get(signature)
            if program is None:
                program = self._programs[signature] = _compile(self._graph, arrays)
                if len(self._programs) > _CACHED:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(signature)
        return program, arrays


def _signature_of(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return array.shape
    return len(array) if isinstance(array, list) else None


def _compile(graph: Graph, arrays: Mapping[str, Any]) -> _Program:
    static = all(isinstance(v.type, TensorType) and v.type.static_shape is not None for v in graph.inputs.values())
    if not static:
        graph = specialise(graph, {n: _type_of_feed(v.type, arrays[n]) for n, v in graph.inputs.items()})
    return _program_of(graph)


def _type_of_feed(declared: Type, feed: Any) -> Type:
    """The type of an input, as far as its signature (see `_signature_of`) decides it."""
    if isinstance(declared, OptionalType):
        return declared if feed is None else OptionalType(_type_of_feed(declared.element, feed))
    return declared if isinstance(declared, SequenceType) else TensorType.of(feed)


def _program_of(graph: Graph) -> _Program:
    slots: dict[Value, int] = {value: slot for slot, value in enumerate(graph.values())}
    nodes = needed_nodes(graph)
    steps = []
    for node, freed in zip(nodes, frees_after(nodes), strict=True):
        call = typed_call(node)
        try:
            kernel = bind(call)
        except Exception as error:  # a kernel that is planned ahead fails in as many ways as one that runs
            raise ExecutionError(f"the node {node.name!r}: {error}") from error
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
        constants={value.name: (slots[value], _read_only(array)) for value, array in graph.constants.items()},
        outputs={name: slots[value] for name, value in graph.outputs.items()},
        steps=steps,
    )


def _written_out(value: Value, array: np.ndarray) -> np.ndarray:
    """A copy of a constant that is one element seen many times: BLAS is slow on those."""
    try:
        return array.copy()
    except MemoryError:
        raise ExecutionError(f"the constant {value!r} does not fit into memory") from None


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _run(
    program: _Program, arrays: Mapping[str, Any], watch: Watch | None = None
) -> tuple[dict[str, np.ndarray], MemoryReport]:
    slots: list[Any] = [None] * program.size
    for slot, array in program.constants.values():
        slots[slot] = array
    for name, array in arrays.items():
        slots[program.inputs[name] if name in program.inputs else program.constants[name][0]] = array
    lent = [a for slot in slots for a in (slot if isinstance(slot, list) else (slot,))]
    borrowed = {id(_root(a)) for a in lent if isinstance(a, np.ndarray)}
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
    outputs = {name: _handed_out(slots[slot], borrowed, owned) for name, slot in program.outputs.items()}
    return outputs, MemoryReport(live.peak, tuple(timeline))


def _handed_out(result: Any, borrowed: set[int], owned: set[int]) -> Any:
    """A result as the caller's own: copied where it shares memory with a feed, a constant or what is handed out already."""
    if isinstance(result, list):
        return [_handed_out(item, borrowed, owned) for item in result]
    if not isinstance(result, np.ndarray):
        return result
    root = id(_root(result))
    if root in borrowed or root in owned or not result.flags.writeable:
        return result.copy()
    owned.add(root)
    return result


def _take(step: _Step, slots: list[Any]) -> None:
    """Run one step: from slots to slots."""
    operands = [None if slot is None else slots[slot] for slot in step.operands]
    try:
        results = results_of(step.kernel(*operands), len(step.results))
    except Exception as error:
        raise ExecutionError(_failure(step.node, operands, error)) from error
    for slot, dtype, result in zip(step.results, step.dtypes, results, strict=True):
        if isinstance(result, np.ndarray) and dtype is not None and result.dtype != dtype:
            raise ExecutionError(
                f"the kernel of the node {step.node.name!r} ({step.node.op.qualified_name}) returned "
                f"{dtype_name(result.dtype)} where its type says {dtype_name(dtype)}"
            )
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
        for slot, array in program.constants.values():
            slots[slot] = array
        for slot, operand in zip(program.inputs.values(), operands, strict=True):
            slots[slot] = operand
        for step in program.steps:
            _take(step, slots)
            for slot in step.frees:
                slots[slot] = None
        return [slots[slot] for slot in program.outputs.values()]


def _failure(node: Node, operands: list[Any], error: Exception) -> str:
    types = ", ".join("_" if a is None else str(TensorType.of(a)) if isinstance(a, np.ndarray) else "list" for a in operands)
    made_for = f", made for {node.origin!r}" if node.origin else ""
    return f"the node {node.name!r} ({node.op.qualified_name}({types}){made_for}) failed: {error}"


def _root(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


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
                root = _root(array)
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
                root = _root(array)
                count = self._counts.get(id(root), 0)
                if count == 1:
                    del self._counts[id(root)]
                    self.now -= root.nbytes
                elif count:
                    self._counts[id(root)] = count - 1
