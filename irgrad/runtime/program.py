"""A plan bound to memory: a flat list of calls whose operands and results are arrays that are there already.

Running it is ``for function, operands in steps: function(*operands)``. Arrays that come with a run (feeds) or that only the
run makes (what has no size before) are put into the lists of operands that want them, at places that are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import length_hint
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.graph import Node, Value
from irgrad.op import Kernel, WorkspaceKernel
from irgrad.runtime.failure import failure, wrong_dtype
from irgrad.runtime.kernels import put, results_of
from irgrad.runtime.liveness import Buffer, frees_after
from irgrad.runtime.owned import handed_out, read_only, root_of
from irgrad.runtime.plan import Plan, is_planned
from irgrad.runtime.returned import Place, Returned, What, memory_of
from irgrad.types import TensorType

__all__ = ["Program"]

Times: TypeAlias = "list[tuple[Node, float]]"
"""Node of a step, seconds (or whatever the clock counts)."""


class _Step(NamedTuple):
    function: Callable[..., Any]
    operands: list[Any]


class Program:
    """Runs a plan, by one thread at a time.

    Args:
        plan: the plan.
        copy_outputs: hand out results that stay as they are. Otherwise they lie in the program's own memory, and the next
            run writes over them.
    """

    def __init__(self, plan: Plan, *, copy_outputs: bool = True) -> None:
        self.plan = plan
        self._copies = copy_outputs
        self._arena = memory_of(plan.arena)
        self._places: dict[What, list[Place]] = {}
        self._lying: dict[What, Returned] = {}
        self._arrays: dict[What, np.ndarray] = {v: read_only(a) for v, a in plan.graph.constants.items()}
        self._roots = {b: Returned(b) for b in plan.liveness.buffers if b.returned and is_planned(b.value)}
        self._steps: list[_Step] = []
        self._nodes: list[Node] = []
        with np.errstate(all="ignore"):
            nodes = plan.liveness.nodes
            for position, (node, freed) in enumerate(zip(nodes, frees_after(nodes), strict=True)):
                self._bind(position, node)
                self._forget(node, [v for v in freed if v not in self._arrays])
        self._results: list[Any] = [None] * len(plan.graph.outputs)
        for index, value in enumerate(plan.graph.outputs.values()):
            self._put(value, self._results, index)
        self._fed = {name: self._places.get(value, []) for name, value in plan.graph.inputs.items()}
        self._loose = [place for v, places in self._places.items() if v not in self._arrays for place in places]
        self._outputs = self._ways_out()
        on: dict[Returned, dict[What, np.ndarray]] = {returned: {} for returned in self._roots.values()}
        for what, returned in self._lying.items():
            on[returned][what] = self._arrays[what]
        for returned, arrays in on.items():
            returned.settle(arrays, self._places)

    def __call__(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Args:
            arrays: an array, in C order, for each input.

        Returns:
            Output name → array.

        Raises:
            ExecutionError: a node failed; the message names it.
        """
        self._begin(arrays)
        steps = iter(self._steps)
        try:
            with np.errstate(all="ignore"):
                for function, operands in steps:
                    function(*operands)
        except Exception as error:
            self._fail(len(self._steps) - length_hint(steps) - 1, error)
        return self._end(arrays)

    def timed(self, arrays: Mapping[str, Any], clock: Callable[[], float]) -> tuple[dict[str, Any], Times]:
        """Run once, and tell how long each step took by a clock. Mere views take no step."""
        self._begin(arrays)
        times = []
        with np.errstate(all="ignore"):
            for position, (function, operands) in enumerate(self._steps):
                before = clock()
                try:
                    function(*operands)
                except Exception as error:
                    self._fail(position, error)
                times.append((self._nodes[position], clock() - before))
        return self._end(arrays), times

    # --- before and after a run ---------------------------------------------------------------------------------------

    def _begin(self, arrays: Mapping[str, Any]) -> None:
        for name, places in self._fed.items():
            array = arrays[name]
            for operands, index in places:
                operands[index] = array
        if self._copies:
            for returned in self._roots.values():
                returned.renew()

    def _end(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        outputs = {}
        borrowed: set[int] | None = None
        owned: set[int] = set()
        for (name, way), result in zip(self._outputs, self._results, strict=True):
            if way is _Way.OWN:
                outputs[name] = result.view()
            elif way is _Way.COPY:
                outputs[name] = result.copy()
            else:
                if borrowed is None:
                    borrowed = self._lent(arrays)
                outputs[name] = handed_out(result, borrowed, owned)
        self._release()
        return outputs

    def _lent(self, arrays: Mapping[str, Any]) -> set[int]:
        """The memory that no result may share: that of feeds, constants, the arena and what is returned anyway."""
        roots = [returned.memory for returned in self._roots.values()]
        lent = [*arrays.values(), *self.plan.graph.constants.values(), self._arena, *roots]
        flat = [a for item in lent for a in (item if isinstance(item, list) else (item,))]
        return {id(root_of(a)) for a in flat if isinstance(a, np.ndarray)}

    def _fail(self, position: int, error: Exception) -> None:
        node = self._nodes[position]
        message = failure(node, self._steps[position].operands[: len(node.inputs)], error)
        self._release()
        raise ExecutionError(message) from error

    def _release(self) -> None:
        """Let go of the arrays of this run that are not ours."""
        for operands, index in self._loose:
            operands[index] = None

    # --- binding ------------------------------------------------------------------------------------------------------

    def _bind(self, position: int, node: Node) -> None:
        if self._bind_views(node):
            return
        kernel = self.plan.kernels[node]
        of = self.plan.liveness.of
        operands: list[Any] = []
        for index, value in enumerate(node.inputs):
            operands.append(None)
            if value is not None:
                self._put(value, operands, index)
        fixed = all(is_planned(v) and v in of and v not in self.plan.liveness.views for v in node.outputs)
        if not fixed:
            places = [self._places.setdefault(value, []) for value in node.outputs]
            views = [value in self.plan.liveness.views for value in node.outputs]
            self._add(node, _publishing(kernel, node, places, views, self._kept), operands)
            return
        for value in node.outputs:
            type, buffer = value.tensor_type, of[value]
            self._lay(value, buffer, type.static_shape or (), type.dtype, self.plan.offsets.get(buffer, 0))
        options: dict[str, Any] = {}
        if isinstance(kernel, WorkspaceKernel):
            self._lay(node, position, (kernel.workspace,), np.dtype(np.uint8), self.plan.workspaces.get(position, 0))
            options["work"] = self._arrays[node]
            self._places[node] = [(options, "work")]
            kernel = kernel.function
        outs: list[Any] = [None] * len(node.outputs)
        function, target = _writing(kernel, len(node.inputs), outs, options)
        if target is None:
            operands.append(None)
        for index, value in enumerate(node.outputs):
            self._put(value, *((operands, len(operands) - 1) if target is None else (target, index)))
        self._add(node, function, operands)

    def _kept(self, result: Any) -> Any:
        """A result that no plan knows: copied where it lies in planned memory, which has other uses later."""
        if isinstance(result, list):
            return [self._kept(item) for item in result]
        if not isinstance(result, np.ndarray):
            return result
        root = root_of(result)
        ours = root is self._arena.base or any(root is returned.memory.base for returned in self._roots.values())
        return result.copy() if ours else result

    def _add(self, node: Node, function: Callable[..., Any], operands: list[Any]) -> None:
        self._steps.append(_Step(function, operands))
        self._nodes.append(node)

    def _put(self, value: Value, operands: list[Any], index: int) -> None:
        """Have the array of a value put into a list, now or as soon as there is one."""
        array = self._arrays.get(value)
        if array is not None:
            operands[index] = array
            if value not in self._lying:
                return
        self._places.setdefault(value, []).append((operands, index))

    def _bind_views(self, node: Node) -> bool:
        """Make the views that a node consists of, once and for all; False where it has work to do in every run."""
        views = self.plan.liveness.views
        if not all(value in views for value in node.outputs):
            return False
        operands = [None if v is None else self._arrays.get(v) for v in node.inputs]
        constants = self.plan.graph.constants
        known = [
            v is None or (a is not None and (k == 0 or v in constants))
            for k, (v, a) in enumerate(zip(node.inputs, operands, strict=True))
        ]
        if not all(known):
            return False  # what the view is of, or what says which, is only there in the run
        source = operands[0]
        try:
            results = results_of(self.plan.kernels[node](*operands), len(node.outputs))
        except Exception as error:
            raise ExecutionError(failure(node, operands, error)) from error
        assert source is not None
        if not all(isinstance(r, np.ndarray) and root_of(r) is root_of(source) for r in results):
            return False
        self._arrays.update(zip(node.outputs, results, strict=True))
        if node.inputs[0] in self._lying:
            self._lying.update(dict.fromkeys(node.outputs, self._lying[node.inputs[0]]))
        return True

    def _lay(self, what: What, home: Buffer | int, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> None:
        """Make the array of a result or workspace: in the arena at an offset, or in memory that is returned."""
        host, begin = self.plan.guests.get(home, (home, 0))
        returned = self._roots.get(host) if isinstance(host, Buffer) else None
        if returned is None:
            self._arrays[what] = np.ndarray(shape, dtype, self._arena, offset)
        else:
            self._arrays[what] = np.ndarray(shape, dtype, returned.memory, begin)
            self._lying[what] = returned

    def _forget(self, node: Node, values: Sequence[Value]) -> None:
        """Let go of what no plan holds, once nothing needs it any more."""
        places = [place for value in values for place in self._places.get(value, ())]
        if places:

            def forget() -> None:
                for operands, index in places:
                    operands[index] = None

            self._add(node, forget, [])

    # --- what is returned ---------------------------------------------------------------------------------------------

    def _ways_out(self) -> list[tuple[str, int]]:
        ways, taken = [], set[Buffer]()
        for name, value in self.plan.graph.outputs.items():
            buffer = self.plan.liveness.of.get(value)
            if value not in self._arrays:
                way = _Way.JUDGED
            elif buffer in self._roots and (buffer not in taken or not self._copies):
                way = _Way.OWN
                taken.add(buffer)
            else:
                way = _Way.COPY
            ways.append((name, way))
        return ways


class _Way:
    """How a result goes out."""

    OWN, COPY, JUDGED = range(3)


# --- functions of steps -----------------------------------------------------------------------------------------------


_BY_NAME = (np.maximum, np.minimum)  # ufuncs that want `out` by name, not as their last operand


def _writing(
    kernel: Kernel, n_operands: int, outs: list[Any], options: Mapping[str, Any]
) -> tuple[Callable[..., Any], list[Any] | None]:
    """The function of a step whose results have their places; the list of those, None where they come as last operand."""
    if isinstance(kernel, np.ufunc) and kernel.nout == 1 and kernel.nin == n_operands and kernel not in _BY_NAME:
        return kernel, None
    if len(outs) == 1:

        def one(*operands: Any) -> None:
            *given, out = operands
            result = kernel(*given, out=out, **options)
            if isinstance(result, tuple):
                result = result[0]
            if result is not out:
                put(result, out)

        return one, None

    def several(*operands: Any) -> None:
        places = tuple(outs)
        for result, out in zip(results_of(kernel(*operands, out=places, **options), len(places)), places, strict=True):
            if result is not out:
                put(result, out)

    return several, outs


def _publishing(
    kernel: Kernel, node: Node, places: Sequence[list[Place]], views: Sequence[bool], kept: Callable[[Any], Any]
) -> Callable[..., None]:
    """The function of a step whose results are put wherever they are wanted.

    A view keeps the memory of its operand alive by plan. Whatever else a kernel hands on of its operands (what it puts into
    a sequence, what a branch returns) is made safe by `kept`.
    """
    dtypes = [value.type.dtype if isinstance(value.type, TensorType) else None for value in node.outputs]

    def publish(*operands: Any) -> None:
        results = results_of(kernel(*operands), len(places))
        for result, dtype, wanted, is_view in zip(results, dtypes, places, views, strict=True):
            if isinstance(result, np.ndarray) and dtype is not None and result.dtype != dtype:
                raise TypeError(wrong_dtype(result.dtype, dtype))
            safe = result if is_view else kept(result)
            for target, index in wanted:
                target[index] = safe

    return publish
