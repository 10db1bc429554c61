"""The numpy executor: a graph is planned once for each signature of its feeds, and then runs as a flat list of calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from threading import Lock
from typing import Any, TypeAlias, TypeVar

import numpy as np

from irgrad.errors import ExecutionError, UsageError
from irgrad.graph import Graph, Node, Value
from irgrad.parameters import make_inputs
from irgrad.plugin import registry
from irgrad.runtime import fast as compiled_kernels
from irgrad.runtime import precision as rounding
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.feeds import FeedChecker
from irgrad.runtime.interpreter import Interpreter, Watch
from irgrad.runtime.plan import Plan, plan
from irgrad.runtime.program import Program
from irgrad.runtime.specialise import specialise
from irgrad.runtime.threads import limited
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["NumpyExecutable"]

T = TypeVar("T")
Signature: TypeAlias = "tuple[Any, ...]"

_CACHED = 16  # planned programs kept, one per signature of input shapes
_IDLE = 4  # memories kept for one of them: as many threads may run it without new memory


class NumpyExecutable:
    """Runs a graph on numpy. See `irgrad.runtime.executor.Executable` for the contract.

    Args:
        graph: the graph; a copy of it is kept.
        threads: how many threads a run uses, BLAS's and irgrad's own; by default what the machine and the environment allow.
        plan: decide ahead of the run where every result lies, and fuse. Without, the graph runs node by node as it stands,
            and every result is allocated when it is computed.
        fuse: join nodes that run over the same elements, so that what lies between them stays in the cache: by the pass
            `fuse`, on the graph as it is specialised.
        precision: "fast" allows algorithms whose rounding errors in float32 are some times larger than need be (Winograd
            convolutions: 1e-5 of the largest element); "exact" does not.
        fast: let numba compile kernels while numpy's serve; by default where it is installed (the extra ``irgrad[fast]``).
        copy_outputs: the arrays that a run returns are the caller's and stay as they are. The memory of those that he has
            let go of is used again, so that this costs next to nothing. With False they lie in the executable's own memory,
            and its next run writes over them, which saves the memory of results that are kept while others are computed.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        threads: int | None = None,
        plan: bool = True,
        fuse: bool = True,
        precision: str = "fast",
        fast: bool | None = None,
        copy_outputs: bool = True,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        if precision not in ("fast", "exact"):
            raise UsageError(f'precision must be "fast" or "exact", not {precision!r}')
        self._graph = graph.copy()
        for value, array in list(self._graph.constants.items()):
            if any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True)):
                self._graph.set_constant(value, _written_out(value, array))
        self._threads = threads
        self._plans = plan
        self._fuses = fuse
        self._exact = precision == "exact"
        self._fast = fast
        self._copies = copy_outputs
        self._inputs = [(name, v.type.dtype if isinstance(v.type, TensorType) else None) for name, v in graph.inputs.items()]
        self._parameters = {v.name: (a.dtype, a.shape) for v, a in self._graph.constants.items() if v.is_parameter}
        self._programs: OrderedDict[Signature, _Planned] = OrderedDict()
        self._interpreters: OrderedDict[Signature, Interpreter] = OrderedDict()
        self._lock = Lock()  # one executable may be called from several threads
        self._check = FeedChecker(self._graph)
        self._last: MemoryReport | Plan = MemoryReport()

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def memory(self) -> MemoryReport:
        return _report(self._last) if isinstance(self._last, Plan) else self._last

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with nullcontext() if self._threads is None else limited(self._threads):
            if not self._plans:
                results, self._last = self._interpreted(feeds)
                return results
            outputs: dict[str, np.ndarray] = self._run(feeds, Program.__call__)
            return outputs

    def timed(self, feeds: Mapping[str, Any], clock: Callable[[], float]) -> tuple[dict[str, Any], list[tuple[Node, float]]]:
        """Run once like a call, and tell how long each step took.

        Args:
            feeds: see `Executable.__call__`.
            clock: gives the time, such as `time.perf_counter`.

        Returns:
            The results, and for each step its node, which is one of the graph as it is run for these feeds, and the
            difference of the clock. Nodes that follow from shapes and constants, or are mere views, take no step.
        """
        with nullcontext() if self._threads is None else limited(self._threads):
            results: tuple[dict[str, Any], list[tuple[Node, float]]] = self._run(feeds, Program.timed, clock)
            return results

    def watched(self, feeds: Mapping[str, Any], watch: Watch) -> dict[str, np.ndarray]:
        """Run once, unplanned, and hand each node over with its results as soon as they are there.

        Nodes whose results are known ahead of the run, since they follow from shapes or constants, come in their places;
        those that no output depends on do not run.

        Args:
            feeds: see `Executable.__call__`.
            watch: called with a node of `graph` and its results, which it must neither change nor keep. What it raises ends
                the run.
        """
        waiting = iter(self._graph.nodes())
        known: dict[str, np.ndarray] = {}

        def catch_up(until: str | None) -> Node | None:
            for node in waiting:
                if node.name == until:
                    return node
                found = [known[v.name] for v in node.outputs if v.name in known]
                if len(found) == len(node.outputs):
                    watch(node, found)
            return None

        def report(node: Node, results: Any) -> None:
            watch(catch_up(node.name) or node, results)

        results, self._last = self._interpreted(feeds, report, known)
        catch_up(None)
        return results

    # --- internals ----------------------------------------------------------------------------------------------------

    def _run(self, feeds: Mapping[str, Any], run: Callable[..., Any], *options: Any) -> Any:
        planned, arrays = self._prepared(feeds)
        program = planned.take()
        self._last = planned.plan
        try:
            return run(program, arrays, *options)
        finally:
            planned.give_back(program)

    def _prepared(self, feeds: Mapping[str, Any]) -> tuple[_Planned, Mapping[str, Any]]:
        """The program for some feeds, and the arrays that it takes."""
        signature = self._signature_at_sight(feeds)
        arrays = feeds
        if signature is None or signature not in self._programs:
            arrays = {name: _in_order(array) for name, array in self._check(feeds).items()}
            signature = self._signature(arrays)
        return self._kept(self._programs, signature, lambda: self._plan(arrays)), arrays

    def _signature_at_sight(self, feeds: Mapping[str, Any]) -> Signature | None:
        """The signature of feeds that need no check but that they have been seen before, otherwise None."""
        shapes = []
        for name, dtype in self._inputs:
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
                return None
            shapes.append(array.shape)
        if len(feeds) == len(shapes):
            return tuple(shapes)
        inputs, parameters = self._graph.inputs, self._parameters
        overridden = sorted(name for name in feeds if name not in inputs)
        for name in overridden:
            array = feeds[name]
            if type(array) is not np.ndarray or not array.flags.c_contiguous:
                return None
            if (array.dtype, array.shape) != parameters.get(name):
                return None
        return (*shapes, tuple(overridden))

    def _signature(self, arrays: Mapping[str, Any]) -> Signature:
        signature = tuple(_signature_of(arrays[name]) for name, _ in self._inputs)
        overridden = tuple(sorted(name for name in arrays if name not in self._graph.inputs))
        return (*signature, overridden) if overridden else signature

    def _plan(self, arrays: Mapping[str, Any]) -> _Planned:
        graph = _specialised(self._graph, arrays)
        if self._fuses:
            registry.get("passes", "fuse")().run(graph)
        return _Planned(plan(graph), self._copies)

    def _kept(self, cache: OrderedDict[Signature, T], signature: Signature, make: Callable[[], T]) -> T:
        """What a cache has for a signature; made where it has nothing, for which the one used longest ago may go."""
        with self._lock:
            found = cache.get(signature)
            if found is None:
                with compiled_kernels.using(self._fast), rounding.using(self._exact):
                    found = cache[signature] = make()
                if len(cache) > _CACHED:
                    cache.popitem(last=False)
            cache.move_to_end(signature)
            return found

    def _interpreted(
        self, feeds: Mapping[str, Any], watch: Watch | None = None, known: dict[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Any], MemoryReport]:
        """Run without a plan; `known` is filled with the constants of the specialised graph."""
        arrays = self._check(feeds)
        interpreter = self._kept(
            self._interpreters, self._signature(arrays), lambda: Interpreter(_specialised(self._graph, arrays))
        )
        if known is not None:
            known.update({value.name: array for value, array in interpreter.graph.constants.items()})
        return interpreter(arrays, watch)


class _Planned:
    """A plan, and programs on it that wait for the next run: one for each thread that runs it at the same time."""

    def __init__(self, plan: Plan, copies: bool) -> None:
        self.plan = plan
        self._copies = copies
        self._idle: list[Program] = [Program(plan, copy_outputs=copies)]

    def take(self) -> Program:
        try:
            return self._idle.pop()  # atomic
        except IndexError:
            return Program(self.plan, copy_outputs=self._copies)

    def give_back(self, program: Program) -> None:
        if len(self._idle) < _IDLE:
            self._idle.append(program)


def _specialised(graph: Graph, arrays: Mapping[str, Any]) -> Graph:
    """The graph for some feeds. Parameters that are fed are inputs: no kernel may count on the array of the model."""
    overridden = [name for name in arrays if name not in graph.inputs]
    if overridden:
        graph = graph.copy()
        make_inputs(graph, overridden)
    return specialise(graph, {name: _type_of_feed(value.type, arrays[name]) for name, value in graph.inputs.items()})


def _report(plan: Plan) -> MemoryReport:
    timeline = tuple((node.name, size) for node, size in zip(plan.liveness.nodes, plan.liveness.timeline(), strict=True))
    return MemoryReport(None if plan.liveness.unknown else plan.peak, timeline, plan.peak, plan.bound)


def _in_order(array: Any) -> Any:
    """A feed in C order, as plans take them."""
    if isinstance(array, list):
        return [_in_order(item) for item in array]
    return array if array is None or array.flags.c_contiguous else array.copy()


def _signature_of(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return array.shape
    return len(array) if isinstance(array, list) else None


def _type_of_feed(declared: Type, feed: Any) -> Type:
    """The type of an input, as far as its signature (see `_signature_of`) decides it."""
    if isinstance(declared, OptionalType):
        return declared if feed is None else OptionalType(_type_of_feed(declared.element, feed))
    return declared if isinstance(declared, SequenceType) else TensorType.of(feed)


def _written_out(value: Value, array: np.ndarray) -> np.ndarray:
    """A copy of a constant that is one element seen many times: BLAS is slow on those."""
    try:
        return array.copy()
    except MemoryError:
        raise ExecutionError(f"the constant {value!r} does not fit into memory") from None
