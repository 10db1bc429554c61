"""A body as a kernel: memory is provided, operands are checked, chunks of rows are spread over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from irgrad.codegen.emit import Function, Generated, generate
from irgrad.codegen.formula import Formula, formulas_of
from irgrad.codegen.items import Unsupported
from irgrad.codegen.module import load
from irgrad.codegen.plan import Array, Program, program_of
from irgrad.errors import ExecutionError, UsageError
from irgrad.graph import Graph
from irgrad.op import Kernel, WorkspaceKernel
from irgrad.runtime import fast
from irgrad.runtime.arena import aligned
from irgrad.runtime.threads import available_threads, parallel, threads

__all__ = ["CompiledBody", "build_kernel", "source", "unsupported"]

_WORTH = 100_000.0  # nanoseconds of work from which on further threads are woken
_PIECE = 100_000.0  # and of what a thread takes at a time


def unsupported(body: Graph) -> str | None:
    """Why a body cannot be compiled, or None where it can. Nothing is compiled, and numba need not be installed."""
    try:
        _programs(formulas_of(body))
    except Unsupported as error:
        return str(error)
    return None


def source(body: Graph) -> str:
    """The Python source of a body's kernel, with the names of the graph's values in comments.

    Raises:
        UsageError: the body cannot be compiled.
    """
    return _generated(body)[2].text


def build_kernel(body: Graph) -> Kernel:
    """Compile a body; what was compiled before, in this process or another, is read from a cache on disk.

    Returns:
        ``kernel(*operands, out=None)``, a `WorkspaceKernel` where it needs memory beside its results. The operands are the
        body's inputs in order, `out` an array or, for several outputs, a tuple of arrays in their order; where an array is
        None or `out` is absent, it is allocated. Operands may have any strides: one of which only rows lie apart costs
        nothing, others are copied. Results must not lie in the memory of
        operands. Several threads may call it at the same time.

    Raises:
        UsageError: the body cannot be compiled, or numba is not installed.
    """
    formulas, programs, generated = _generated(body)
    if not fast.available():
        raise UsageError("compiled kernels need the extra irgrad[fast]: pip install 'irgrad[fast]'")
    compiled = CompiledBody(body, formulas, programs, generated)
    return WorkspaceKernel(compiled, compiled.workspace) if compiled.workspace else compiled


def _generated(body: Graph) -> tuple[list[Formula], list[Program], Generated]:
    try:
        formulas = formulas_of(body)
        programs = _programs(formulas)
    except Unsupported as error:
        raise UsageError(f"the body {body.name!r} cannot be compiled: {error}") from None
    return formulas, programs, generate(programs)


def _programs(formulas: Sequence[Formula]) -> list[Program]:
    found: list[Program] = []
    for formula in formulas:
        found.append(program_of(formula, sum(len(program.work) for program in found)))
    return found


@dataclass(frozen=True)
class _Step:
    """A compiled function, and where its arrays come from: their positions among all arrays of a call."""

    function: Callable[..., None]
    arrays: tuple[int, ...]
    chunks: int
    parallel: bool
    piece: int


class CompiledBody:
    """A kernel; see `build_kernel`.

    Attributes:
        source: what was compiled.
        workspace: bytes that it needs for each call.
        functions: the compiled functions, in the order in which they run.
    """

    def __init__(self, body: Graph, formulas: Sequence[Formula], programs: Sequence[Program], generated: Generated) -> None:
        self.source = generated.text
        n_inputs, columns = len(body.inputs), list(zip(*(formula.operands for formula in formulas), strict=True))
        operands = [next((o for o in column if o is not None), None) for column in columns]
        self._operands = operands[:n_inputs]
        self._shapes = [None if o is None else o.shape for o in self._operands]
        self._constants = [None if o is None else o.constant for o in operands[n_inputs:]]
        outputs = sorted((o for formula in formulas for o in formula.outputs), key=lambda output: output.position)
        self._outputs = [(output.shape, output.item.dtype) for output in outputs]
        self._slots = available_threads()
        self._cost = sum(program.cost for program in programs)
        self._strided = generated.strides
        self._strides = np.array([stride.usual for stride in generated.strides], np.int64)
        self._views: list[tuple[int, int, np.dtype]] = []
        self.workspace = 0
        positions = {("x", k): k for k in range(len(operands))}
        positions |= {("y", k): len(operands) + k for k in range(len(outputs))}
        for array in (*(array for program in programs for array in program.work), *generated.buffers):
            positions["w", array.position] = len(operands) + len(outputs) + len(self._views)
            self._lay_out(array)
        checks = [check for program in programs for check in program.checks]
        self._checks = [(positions[array.kind, array.position], message) for array, message in checks]
        module = load(generated.text)
        self.functions = [getattr(module, function.name) for function in generated.functions]
        self._steps = [
            self._step(function, compiled, positions)
            for function, compiled in zip(generated.functions, self.functions, strict=True)
        ]

    def _lay_out(self, array: Array) -> None:
        copies = self._slots if array.buffer else array.copies
        size = copies * array.count * array.dtype.itemsize
        self._views.append((self.workspace, size, array.dtype))
        self.workspace += aligned(size)

    def _step(self, function: Function, compiled: Callable[..., None], positions: dict[tuple[str, int], int]) -> _Step:
        arrays = tuple(positions[a.kind, a.position] for a in (*function.reads, *function.writes))
        chunks = function.chunks
        piece = max(1, round(chunks * _PIECE / self._cost)) if self._cost else chunks
        shared = function.parallel and chunks > piece and self._cost > _WORTH
        return _Step(compiled, arrays, chunks, shared, piece)

    def __call__(self, *operands: Any, out: Any = None, work: np.ndarray | None = None) -> Any:
        """Run it.

        Raises:
            ExecutionError: an operand or a place for a result has another shape or dtype than the body says, or a label is
                out of range.
        """
        if [x.shape for x in operands] != self._shapes:
            self._check_shapes(operands)
        results = self._places(out)
        if work is None and self.workspace:
            work = np.empty(self.workspace, np.uint8)
        views = [] if work is None else [work[at : at + size].view(dtype) for at, size, dtype in self._views]
        arrays = [*operands, *self._constants, *results, *views]
        try:
            self._run(arrays, self._strides)
        except TypeError:  # numba's, before it runs anything: an array is of another type than it was compiled for
            arrays, strides = self._seen_as_contiguous(arrays)
            self._run(arrays, strides)
        for position, message in self._checks:
            if arrays[position][0]:
                raise ExecutionError(message)
        return results[0] if len(results) == 1 else tuple(results)

    # --- memory -------------------------------------------------------------------------------------------------------

    def _check_shapes(self, operands: Sequence[np.ndarray]) -> None:
        if len(operands) != len(self._shapes):
            raise ExecutionError(f"a compiled body takes {len(self._shapes)} operands, not {len(operands)}")
        for k, (x, operand) in enumerate(zip(operands, self._operands, strict=False)):
            if operand is not None and x.shape != operand.shape:
                raise ExecutionError(f"operand {k} of a compiled body has the shape {x.shape}, not {operand.shape}")

    def _places(self, out: Any) -> list[np.ndarray]:
        """Where the results go."""
        given = out if isinstance(out, tuple) else (out,) * len(self._outputs)
        places = []
        for place, (shape, dtype) in zip(given, self._outputs, strict=True):
            if place is None:
                places.append(np.empty(shape, dtype))
            elif place.shape != shape or place.dtype != dtype or not place.flags.c_contiguous:
                raise ExecutionError(f"a result of a compiled body needs a contiguous place of {dtype} {shape}")
            else:
                places.append(place)
        return places

    def _seen_as_contiguous(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """The arrays with operands that are not contiguous seen as such, or copied, and the strides of all."""
        seen, strides = list(arrays), self._strides
        for k, operand in enumerate(self._operands):
            x = arrays[k]
            if operand is None or (x.dtype == operand.dtype and x.flags.c_contiguous and x.flags.aligned):
                continue
            if x.dtype != operand.dtype:
                raise ExecutionError(f"operand {k} of a compiled body is of {x.dtype}, not {operand.dtype}")
            own = [(j, stride) for j, stride in enumerate(self._strided) if stride.array.position == k]
            rows = x.reshape(own[0][1].sizes) if own and x.flags.aligned else None
            if rows is None or rows.strides[-1] != x.itemsize or any(step % x.itemsize for step in rows.strides):
                seen[k] = np.array(x, order="C")
                continue
            # The kernel looks at nothing but the address, so an array of one element stands for all.
            seen[k] = as_strided(rows, (1,) * x.ndim, (x.itemsize,) * x.ndim)
            strides = strides.copy() if strides is self._strides else strides
            for j, stride in own:
                strides[j] = rows.strides[stride.axis] // x.itemsize
        return seen, strides

    # --- running ------------------------------------------------------------------------------------------------------

    def _run(self, arrays: Sequence[np.ndarray], strides: np.ndarray) -> None:
        for step in self._steps:
            taken = [arrays[k] for k in step.arrays]
            workers = min(threads(), self._slots) if step.parallel else 1
            if workers == 1:
                step.function(0, step.chunks, 0, strides, *taken)
            else:
                _share(step, workers, (strides, *taken))


def _share(step: _Step, workers: int, arrays: Sequence[np.ndarray]) -> None:
    """Let several threads take the chunks of a function piece by piece."""
    pieces = iter(range(0, step.chunks, step.piece))
    guard = Lock()

    def work(slot: int) -> None:
        while True:
            with guard:
                first = next(pieces, None)
            if first is None:
                return
            step.function(first, min(first + step.piece, step.chunks), slot, *arrays)

    parallel(work, range(workers))
