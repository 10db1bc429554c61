"""A small graph of static shapes as a list of calls that write into memory that is there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.graph import Graph, Value
from irgrad.op import WorkspaceKernel
from irgrad.runtime.arena import Item, pack
from irgrad.runtime.kernels import put, results_of
from irgrad.runtime.liveness import Liveness
from irgrad.runtime.plan import kernels_of, lives_of
from irgrad.runtime.workspace import Place, Workspace

__all__ = ["TileProgram"]


class _Step(NamedTuple):
    """A call.

    Attributes:
        function: the kernel.
        operands: the registers of its operands; None for an absent one.
        results: the registers of its results.
        writes: whether it is given the places of its results; otherwise they are what it returns.
        work: the register of its workspace, if it needs one.
    """

    function: Callable[..., Any]
    operands: tuple[int | None, ...]
    results: tuple[int, ...]
    writes: bool
    work: int | None


class TileProgram:
    """Runs a graph on arrays that it is given, and writes into arrays that it is given.

    Args:
        graph: of static shapes.
        space: gets room for what is needed in between.
        summed: of each output whether it is added to what is in its place; none of them by default.
        ordered: of each output whether its place is in C order, so that any kernel may write there; all of them by default.
    """

    def __init__(
        self, graph: Graph, space: Workspace, summed: Sequence[bool] | None = None, ordered: Sequence[bool] | None = None
    ) -> None:
        outputs = list(graph.outputs.values())
        self._summed = summed or [False] * len(outputs)
        self._constants: list[tuple[int, np.ndarray]] = []
        self._places: list[tuple[int, Place]] = []
        self._work: list[tuple[int, int, int]] = []
        self._numbers: dict[Value, int] = {}
        self._count = 0
        self._inputs = [self._register(value) for value in graph.inputs.values()]
        for value, array in graph.constants.items():
            self._constants.append((self._register(value), array))
        kernels = kernels_of(graph)
        lives = lives_of(graph, kernels)
        careless = {v for node, kernel in kernels.items() if not isinstance(kernel, np.ufunc) for v in node.outputs}
        self._direct = self._chosen(lives, outputs, careless, ordered)
        self._workspaces = {
            k: self._register(None) for k, kernel in enumerate(kernels.values()) if isinstance(kernel, WorkspaceKernel)
        }
        self._lay_out(lives, space)
        self._steps = []
        for position, (node, kernel) in enumerate(kernels.items()):
            views = any(value in lives.views for value in node.outputs)
            function = kernel.function if isinstance(kernel, WorkspaceKernel) else kernel
            work = self._workspaces.get(position)
            operands = tuple(None if v is None else self._register(v) for v in node.inputs)
            self._steps.append(_Step(function, operands, tuple(map(self._register, node.outputs)), not views, work))
        self._outputs = [self._register(value) for value in outputs]

    def registers(self, work: np.ndarray) -> list[Any]:
        """The arrays of a run in some memory, those that come with each tile left open."""
        registers: list[Any] = [None] * self._count
        for register, array in self._constants:
            registers[register] = array
        for register, place in self._places:
            registers[register] = place(work)
        for register, begin, end in self._work:
            registers[register] = work[begin:end]
        return registers

    def run(self, registers: list[Any], operands: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> None:
        """Run once.

        Args:
            registers: what `registers` returned, or left behind by an earlier run.
            operands: the inputs.
            places: where the outputs belong.
        """
        for register, array in zip(self._inputs, operands, strict=True):
            registers[register] = array
        for register, output in self._direct:
            registers[register] = places[output]
        for function, inputs, results, writes, work in self._steps:
            given = [None if k is None else registers[k] for k in inputs]
            options = {} if work is None else {"work": registers[work]}
            if not writes:
                for register, result in zip(results, results_of(function(*given, **options), len(results)), strict=True):
                    registers[register] = result
            elif len(results) == 1:
                out = registers[results[0]]
                result = function(*given, out=out, **options)
                if result is not out:
                    put(result[0] if isinstance(result, tuple) else result, out)
            else:
                outs = tuple(registers[k] for k in results)
                found = results_of(function(*given, out=outs, **options), len(outs))
                for out, result in zip(outs, found, strict=True):
                    if result is not out:
                        put(result, out)
        for output, register in enumerate(self._outputs):
            result, place = registers[register], places[output]
            if self._summed[output]:
                np.add(place, result, out=place)
            elif result is not place:
                np.copyto(place, result)

    # --- laying it out ------------------------------------------------------------------------------------------------

    def _register(self, value: Value | None) -> int:
        """The register of a value; a new one for None."""
        if value is None or value not in self._numbers:
            number = self._count
            self._count += 1
            if value is None:
                return number
            self._numbers[value] = number
        return self._numbers[value]

    def _chosen(
        self, lives: Liveness, outputs: Sequence[Value], careless: set[Value], ordered: Sequence[bool] | None
    ) -> list[tuple[int, int]]:
        """The values that are written where they belong at once: pairs of a register and an output.

        Args:
            lives: what lives when.
            outputs: the outputs.
            careless: values that kernels make which want to write in C order.
            ordered: see above.
        """
        chosen = []
        self._settled: set[int] = set()
        for position, value in enumerate(outputs):
            buffer = lives.of.get(value)
            if buffer is None or value in lives.views or self._summed[position] or id(buffer) in self._settled:
                continue
            members = [v for v in buffer.values if v not in lives.views]
            if any(v.type != value.type for v in members):
                continue  # a view in between has another shape
            if (ordered is None or ordered[position]) or not careless.intersection(members):
                self._settled.add(id(buffer))
                chosen += [(self._register(v), position) for v in members]
        return chosen

    def _lay_out(self, lives: Liveness, space: Workspace) -> None:
        placed = [buffer for buffer in lives.buffers if id(buffer) not in self._settled]
        items = [Item(buffer.size, buffer.begin, buffer.end) for buffer in placed]
        items += [Item(size, step, step) for step, size in lives.workspaces.items()]
        packing = pack(items)
        start = space.array((packing.size,), np.uint8).offset
        for buffer, offset in zip(placed, packing.offsets, strict=False):
            for value in buffer.values:
                if value not in lives.views:
                    shape = value.tensor_type.static_shape
                    if shape is None:
                        raise ExecutionError(f"%{value.name} of a tile has no static shape")
                    self._places.append((self._register(value), Place(start + offset, shape, value.dtype)))
        needed = dict(zip(lives.workspaces, packing.offsets[len(placed) :], strict=True))
        for step, register in self._workspaces.items():
            begin = start + needed.get(step, 0)  # a kernel may turn out to need nothing
            self._work.append((register, begin, begin + lives.workspaces.get(step, 0)))
