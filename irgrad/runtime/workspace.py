"""Kernels that know before they run how much memory they need meanwhile, and how their work is shared among threads.

A kernel's plan is made once for the shapes of its operands: it says where in one block of memory each temporary array lies,
so that whoever plans the memory of a run can provide the block. `planned` and `widened` are for what `Op.prepare` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias, TypeVar

import numpy as np

from irgrad.op import Call, Kernel, WorkspaceKernel
from irgrad.runtime import fast, precision
from irgrad.runtime.arena import aligned
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.threads import threads
from irgrad.types import TensorType

__all__ = ["Place", "Plan", "Workspace", "planned", "ranges", "shared_ranges", "shares", "widened"]

T = TypeVar("T")

Plan: TypeAlias = "Callable[[Call], Kernel]"
"""What `Op.prepare` takes."""

_WORTH = 1 << 17  # elements of a large operand from which on a second thread is worth waking


@dataclass(frozen=True)
class Place:
    """An array of some shape and dtype in a block of memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def __call__(self, work: np.ndarray) -> np.ndarray:
        """The array in a block; it holds whatever was there."""
        return np.ndarray(self.shape, self.dtype, work.data, self.offset)


class Workspace:
    """Lays out temporary arrays side by side.

    Attributes:
        size: bytes that they take together.
    """

    def __init__(self) -> None:
        self.size = 0

    def array(self, shape: Sequence[int], dtype: Any) -> Place:
        """Room for an array."""
        place = Place(self.size, tuple(shape), np.dtype(dtype))
        self._grow(prod(place.shape) * place.dtype.itemsize)
        return place

    def part(self, kernel: Kernel) -> Kernel:
        """Room for what another kernel needs; that kernel, to be called with the whole block as `work`."""
        if not isinstance(kernel, WorkspaceKernel):

            def plain(*operands: Any, out: Any = None, work: np.ndarray) -> Any:
                return kernel(*operands, out=out)

            return plain
        inner, start = kernel, self.size
        self._grow(kernel.workspace)

        def run(*operands: Any, out: Any = None, work: np.ndarray) -> Any:
            return inner.function(*operands, out=out, work=work[start : start + inner.workspace])

        return run

    def kernel(self, function: Callable[..., Any]) -> WorkspaceKernel:
        """A kernel that works in what was laid out; see `WorkspaceKernel`."""
        return WorkspaceKernel(function, self.size)

    def _grow(self, nbytes: int) -> None:
        self.size += aligned(nbytes)


def shares(items: Sequence[T], elements: int) -> list[Sequence[T]]:
    """Items shared out among as many threads as are worth it for work on so many elements; at least one share."""
    count = max(1, min(threads(), len(items), elements // _WORTH))
    return [items[k::count] for k in range(count)]


def ranges(count: int, most: int = 8) -> list[tuple[int, int]]:
    """The numbers below `count` as at most so many ranges (first, end) of about the same length, for threads to share."""
    pieces = min(count, most)
    return [(count * k // pieces, count * (k + 1) // pieces) for k in range(pieces)]


def shared_ranges(count: int, elements: int) -> list[Sequence[tuple[int, int]]]:
    """The numbers below `count` as `ranges` that are shared out as by `shares`; as one where that makes one share."""
    found = shares(ranges(count), elements)
    return found if len(found) > 1 else [ranges(count, 1)]


def planned(*settled: int) -> Callable[[Plan], Plan]:
    """Decorator: a plan that is made for operands of static shapes, and for known arrays of some.

    Where they are not known before the kernel runs, the plan is made anew in each run: then every operand counts as known.
    How exact kernels have to be, and whether they may be compiled, counts as when the kernel was prepared.

    Args:
        settled: positions of the operands (absent ones allowed) whose arrays the plan looks up in ``call.constants``.
    """

    def decorate(plan: Plan) -> Plan:
        def prepare(call: Call) -> Kernel:
            operands = [type for type in call.inputs if type is not None]
            static = all(isinstance(type, TensorType) and type.static_shape is not None for type in operands)
            if static and all(k in call.constants for k in settled if call.has(k)):
                return plan(call)

            strict, compiles = precision.exact(), fast.enabled()

            def late(*operands: Any, out: Any = None) -> Any:
                types = tuple(None if a is None else TensorType.of(a) for a in operands)
                constants = {k: a for k, a in enumerate(operands) if a is not None}
                with precision.using(strict), fast.using(compiles):
                    kernel = plan(replace(call, inputs=types, constants=constants, contents={}))
                return kernel(*operands, out=out)

            return late

        return prepare

    return decorate


def widened(plan: Plan) -> Plan:
    """The same plan, which does its work in float32 where its first operand is float16 or bfloat16.

    BLAS knows neither of these, and sums of many products need the range and the digits. The operation has one output.
    """

    def wide_plan(call: Call) -> Kernel:
        narrow = call.tensor(0).dtype
        wide = accumulation_dtype(narrow)
        if wide == narrow:
            return plan(call)
        space = Workspace()
        types, copies = list(call.inputs), dict[int, Place]()
        for k, type in enumerate(call.inputs):
            if isinstance(type, TensorType) and type.dtype == narrow and type.static_shape is not None:
                types[k] = TensorType(wide, type.shape)
                copies[k] = space.array(type.static_shape, wide)
        constants = {k: a.astype(wide) if k in copies else a for k, a in call.constants.items()}
        inner = space.part(plan(replace(call, inputs=tuple(types), constants=constants)))
        output = call.outputs[0] if call.outputs else None
        shape = output.static_shape if isinstance(output, TensorType) else None
        result = None if shape is None else space.array(shape, wide)

        def run(*operands: Any, out: Any = None, work: np.ndarray) -> Any:
            wider = list(operands)
            for k, place in copies.items():
                wider[k] = place(work)
                np.copyto(wider[k], operands[k])
            found = inner(*wider, out=None if result is None else result(work), work=work)
            if out is None:
                return np.asarray(found).astype(narrow)
            np.copyto(out, found, casting="same_kind")
            return out

        return space.kernel(run)

    return wide_plan
