"""The numpy interpreter: node by node in program order, every value freed after its last use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import call_of, typed_call
from irgrad.errors import ExecutionError, FeedError, IrgradError
from irgrad.graph import Graph, Node, Value
from irgrad.infer import infer_types
from irgrad.op import Kernel
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.kernels import bind, results_of
from irgrad.runtime.specialise import specialise
from irgrad.types import TensorType, dtype_name

__all__ = ["NumpyExecutable", "Subprogram"]

Signature: TypeAlias = "tuple[tuple[str, Any], ...]"

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
        self._decides: dict[str, bool] = {}
        self._memory = MemoryReport()

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def memory(self) -> MemoryReport:
        return self._memory

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays = check_feeds(self._graph, feeds)
        inputs = self._graph.inputs
        signature = tuple((name, _signature_of(array)) for name, array in arrays.items() if name in inputs)
        with self._lock:
            for name in arrays:
                if name not in inputs:
                    self._check_parameter(name)
            program = self._programs.get(signature)
            if program is None:
                program = self._programs[signature] = _compile(self._graph, arrays)
                if len(self._programs) > _CACHED:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(signature)
        results, self._memory = _run(program, arrays)
        return results

    def _check_parameter(self, name: str) -> None:
        if name not in self._decides:
            self._decides[name] = _decides_types(self._graph.value(name))
        if self._decides[name]:
            raise FeedError(
                f"the parameter {name!r} decides the shape of a result, so that no other array can be fed in its place; "
                "make it an input of the model"
            )


def _decides_types(value: Value) -> bool:
    """Whether the type of some result follows from the elements of a constant: a Resize's scales, a Range's end."""
    for node in value.users:
        call = call_of(node.op, node.attrs, node.inputs, len(node.outputs))
        others = [k for k, operand in enumerate(node.inputs) if operand is not value]
        blind = replace(
            call,
            constants={k: array for k, array in call.constants.items() if k in others},
            contents={k: known for k, known in call.contents.items() if k in others},
        )
        if infer_types(call) != infer_types(blind):
            return True
    return False


def check_feeds(graph: Graph, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds as read-only arrays, checked against the inputs (and parameters) of the graph.

    Numbers and lists take the dtype of the input; an array of another dtype is an error, since a silent cast would hide
    a mistake.

    Raises:
        FeedError: see `Executable.__call__`.
    """
    inputs = graph.inputs
    missing = [name for name in inputs if name not in feeds]
    if missing:
        raise FeedError(
            f"no array was fed for {', '.join(repr(m) for m in missing)}; the inputs are {_signature_text(graph)}"
        )
    sizes: dict[str, tuple[int, str]] = {}
    checked: dict[str, Any] = {}
    for name in [*inputs, *(n for n in feeds if n not in inputs)]:
        value = inputs.get(name)
        if value is None:
            value = graph.value(name) if graph.has_value(name) else None
            if value is None or not value.is_parameter:
                raise FeedError(f"{name!r} is neither an input nor a parameter; the inputs are {_signature_text(graph)}")
        checked[name] = _check_feed(value, feeds[name], sizes)
    return checked


def _check_feed(value: Value, feed: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    if not isinstance(value.type, TensorType):
        return feed
    try:
        array = feed if isinstance(feed, np.ndarray) else np.asarray(feed, value.dtype)
    except (TypeError, ValueError) as error:
        raise FeedError(f"the feed for {value.name!r} is no {value.type}: {error}") from None
    if value.dtype == object and array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype != value.dtype:
        raise FeedError(
            f"the feed for {value.name!r} has dtype {dtype_name(array.dtype)}, the input is {value.type}; "
            f"convert it with .astype({value.dtype.name!r})"
        )
    shape = value.shape
    if shape is not None:
        if len(shape) != array.ndim:
            raise FeedError(f"the feed for {value.name!r} has shape {array.shape}, the input is {value.type}")
        for axis, (dim, size) in enumerate(zip(shape, array.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                raise FeedError(f"the feed for {value.name!r} has shape {array.shape}, the input is {value.type}")
            if isinstance(dim, str) and "*" not in dim:
                known, where = sizes.setdefault(dim, (size, value.name))
                if known != size:
                    raise FeedError(
                        f"the dimension {dim!r} is {known} in the feed for {where!r} but {size} in axis {axis} of the feed "
                        f"for {value.name!r}"
                    )
    view = array.view()
    view.flags.writeable = False
    return view


def _signature_text(graph: Graph) -> str:
    return ", ".join(f"{name}: {value.type}" for name, value in graph.inputs.items()) or "none"


def _signature_of(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return array.shape
    return len(array) if isinstance(array, list) else None


def _compile(graph: Graph, arrays: Mapping[str, Any]) -> _Program:
    static = all(isinstance(v.type, TensorType) and v.type.static_shape is not None for v in graph.inputs.values())
    if not static:
        types = {n: TensorType.of(a) for n, a in arrays.items() if isinstance(a, np.ndarray)}
        graph = specialise(graph, types)
    return _program_of(graph)


def _program_of(graph: Graph) -> _Program:
    slots: dict[Value, int] = {value: slot for slot, value in enumerate(graph.values())}
    nodes = _needed(graph)
    last: dict[int, int] = {}
    for position, node in enumerate(nodes):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.producer is not None:
                last[slots[value]] = position
    for value in graph.outputs.values():
        last.pop(slots[value], None)
    frees: dict[int, list[int]] = {}
    for slot, position in last.items():
        frees.setdefault(position, []).append(slot)
    steps = []
    for position, node in enumerate(nodes):
        call = typed_call(node)
        try:
            kernel = bind(call)
        except IrgradError as error:
            raise ExecutionError(f"the node {node.name!r}: {error}") from None
        steps.append(
            _Step(
                node,
                kernel,
                tuple(None if v is None else slots[v] for v in node.inputs),
                tuple(slots[v] for v in node.outputs),
                tuple(v.type.dtype if isinstance(v.type, TensorType) else None for v in node.outputs),
                tuple(frees.get(position, ())),
            )
        )
    return _Program(
        size=len(slots),
        inputs={name: slots[value] for name, value in graph.inputs.items()},
        constants={value.name: (slots[value], _read_only(array)) for value, array in graph.constants.items()},
        outputs={name: slots[value] for name, value in graph.outputs.items()},
        steps=steps,
    )


def _needed(graph: Graph) -> list[Node]:
    """The nodes that some output depends on, in program order."""
    wanted = set(graph.outputs.values())
    kept = []
    for node in reversed(graph.nodes()):
        if any(value in wanted for value in node.outputs):
            kept.append(node)
            wanted.update(v for v in node.inputs if v is not None)
    return kept[::-1]


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


def _run(program: _Program, arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], MemoryReport]:
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
