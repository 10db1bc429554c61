"""The order of the loops: which axes are rows, which are columns, and what is computed in which pass.

The iteration space is split into rows, over which threads share the work, and columns, over which the inner loops run. A
nest of loops goes through all rows, and in each of them through the columns as often as reductions along them require. A
reduction across rows is formed for fixed chunks of rows, whatever the number of threads, and these are combined in order
before the next nest begins. What varies along some axes only (a scale per channel) has small nests of its own in between.

So there is an alternation: small nests at time 0, the main nest at time 1, small nests at 2 (with what the main nest has
summed up), a main nest at 3, and so on. An item has the earliest time at which it can be there. A later nest computes what
it needs once more, but for results of reductions, and what an output holds already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

import numpy as np

from irgrad.codegen.formula import Formula, Operand, Output, remade
from irgrad.codegen.items import EXPENSIVE, Item, Maker, Unsupported, in_order

__all__ = ["Array", "Nest", "Program", "Stage", "Store", "program_of"]

_CHUNK = 1 << 15  # elements of a chunk of rows
_FLAT_CHUNK = 1 << 14  # the same where rows are single elements
_MOST_CHUNKS = 64  # where sums across rows are arrays
_SMALL = 1 << 15  # a space of so many elements is not worth sharing
_SUMS_SHARE = 4  # the sums of all chunks may have this fraction of the elements of the space
_SLOW = ("div", "reciprocal", "sqrt")  # operations that are worth doing once where their operands repeat


@dataclass(frozen=True, eq=False)
class Array:
    """An array in memory, contiguous along its axes in order.

    Attributes:
        kind: "x" an operand, "y" an output, "w" in the workspace.
        position: which one.
        dtype: of its elements.
        axes: of the space.
        count: elements of one copy.
        copies: one for each chunk of rows, or for each thread ("buffer"), else 1.
        buffer: it holds a row while that is worked on.
        strided: an operand of which rows may lie apart in memory.
        rank: the number of axes of the array itself.
        title: what it is.
    """

    kind: str
    position: int
    dtype: np.dtype
    axes: tuple[int, ...]
    count: int
    copies: int = 1
    buffer: bool = False
    strided: bool = False
    rank: int = 1
    title: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind}{self.position}"


@dataclass(frozen=True)
class Store:
    """An item that is written to an array, or, if it is a reduction across rows, added up there for each chunk."""

    item: Item
    array: Array


@dataclass(eq=False)
class Nest:
    """Loops over rows and columns.

    Attributes:
        rows, columns: axes, outermost first.
        time: when it runs.
        chunk: rows in a chunk.
        chunks: how many there are.
        stores: what is written; `sums`: what is added up across rows.
        loadable: items that arrays hold when the nest begins.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    time: int
    chunk: int
    chunks: int
    stores: list[Store] = field(default_factory=list)
    sums: list[Store] = field(default_factory=list)
    loadable: dict[Item, Array] = field(default_factory=dict)

    def is_local(self, item: Item) -> bool:
        """Whether a reduction is formed within each row."""
        return item.is_reduction and bool(self.columns) and item.data == frozenset(self.columns)


@dataclass(eq=False)
class Stage:
    """Nests that run one after another in one compiled function: a main nest, or small ones after sums are combined."""

    nests: list[Nest]
    combined: list[Store]
    parallel: bool


@dataclass(eq=False)
class Program:
    """Everything that a kernel does over one iteration space, in order."""

    sizes: tuple[int, ...]
    operands: tuple[Array | None, ...]
    stages: list[Stage]
    work: list[Array]
    checks: list[tuple[Array, str]]
    cost: float
    """Nanoseconds on one thread, roughly."""


def program_of(formula: Formula, first: int = 0) -> Program:
    """The best way to run a formula.

    Args:
        formula: what to run.
        first: the number of its first array of the workspace.

    Raises:
        Unsupported: there is none.
    """
    axes = range(len(formula.sizes))
    best: tuple[tuple[float, ...], Program] | None = None
    reason = Unsupported("it has no loops")
    for columns in _candidates(len(formula.sizes)):
        rows = tuple(axis for axis in axes if axis not in columns)
        try:
            program = _Planner(formula, rows, columns, first).program()
        except Unsupported as error:
            reason = error
            continue
        score = _score(program, rows, columns)
        if best is None or score < best[0]:
            best = score, program
    if best is None:
        raise reason
    return best[1]


def _candidates(count: int) -> list[tuple[int, ...]]:
    """Choices of columns: with the last axis, along which memory is contiguous, or, of a single axis, none."""
    if count == 0:
        return [()]
    if count == 1:
        return [(), (0,)]
    others = range(count - 1)
    return [(*some, count - 1) for size in range(count) for some in combinations(others, size)]


def _score(program: Program, rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[float, ...]:
    """What makes one choice better than another: work that is shared, few main nests, long inner loops."""
    sizes = program.sizes
    mains = [stage.nests[0] for stage in program.stages if stage.parallel]
    total = prod(sizes)
    alone = sum(nest.chunks < 2 for nest in mains) if total > _SMALL else 0
    short = 0 if not columns else max(0.0, 16 - sizes[columns[-1]])
    return (alone, len(program.stages) if total > _SMALL else len(mains), short, len(columns))


class _Planner:
    """Plans one choice of rows and columns."""

    def __init__(self, formula: Formula, rows: tuple[int, ...], columns: tuple[int, ...], first: int) -> None:
        self.first = first
        self.rows, self.columns = frozenset(rows), frozenset(columns)
        self.row_order, self.column_order = rows, columns
        maker = Maker(formula.sizes)
        self.formula = remade(formula, maker, maker.rebuilt(formula.roots, lambda axes: tuple(axes), self._in_two_steps))
        self.everything = self.rows | self.columns
        self.work: list[Array] = []
        self.main: dict[Item, bool] = {}
        self.time: dict[Item, int] = {}
        for item in in_order(self.formula.roots):
            self._classify(item)

    def _in_two_steps(self, maker: Maker, item: Item, operand: Item) -> Item:
        """A reduction of whole rows and across them: first in each row."""
        if self.columns and self.columns < item.data and self.columns <= operand.axes:
            operand = maker.reduce(item.op, operand, self.columns)
        return maker.reduce(item.op, operand, item.data & operand.axes)

    def _is_local(self, item: Item) -> bool:
        return bool(self.columns) and item.data == self.columns and self.main[item.args[0]]

    def _classify(self, item: Item) -> None:
        """Decide whether an item belongs to main nests, and from which time on it can be there."""
        axes = item.axes
        whole = bool(axes) and (axes == self.everything or (axes == self.rows))
        if item.is_leaf:
            main, time = whole, 0
        elif item.is_reduction:
            (arg,) = item.args
            main = self._is_local(item)
            time = _odd(self.time[arg]) + (not main) if self.main[arg] else _even(self.time[arg])
        elif item.op == "pick":
            if item.data != self.columns or len(self.columns) > 1 or not item.axes <= self.rows:
                raise Unsupported("it looks up elements along an axis that is not the innermost one")
            main, time = True, _odd(max(self.time[arg] for arg in item.args))
        else:
            main = whole or any(self.main[arg] and not arg.is_leaf for arg in item.args)
            time = max(self.time[arg] for arg in item.args)
            time = _odd(time) if main else _even(time)
        self.main[item], self.time[item] = main, time

    # --- what is kept -----------------------------------------------------------------------------------------------------

    def program(self) -> Program:
        """Lay out nests, stores and workspace."""
        outputs = [(output.item, self._output(output)) for output in self.formula.outputs]
        small: list[tuple[int, Item, Array]] = []
        mains: dict[int, Nest] = {}
        held: dict[Item, tuple[int, Array]] = {}  # when an array holds an item that is not a leaf
        for item, array in outputs:
            kind, time = self._time_of_store(item, array)
            if kind:
                self._main_at(mains, time).stores.append(Store(item, array))
            else:
                small.append((time, item, array))
            if not item.is_leaf and item.axes == frozenset(array.axes) and item not in held:
                held[item] = time, array
        flags = [self._counted(item, message) for item, message in self.formula.checks]
        for item in in_order([*self.formula.roots, *(flag for flag, _ in flags)]):
            if item not in self.main:
                self._classify(item)
            if self.main[item] or not (item.is_reduction or self._worth_keeping(item)):
                continue
            (arg, *_) = item.args
            if item.is_reduction and self.main[arg]:
                nest = self._main_at(mains, self.time[item] - 1)
                array = self._array(item, copies=nest.chunks)
                self._check_size(array)
                nest.sums.append(Store(item, array))
                held[item] = self.time[item], array
            elif item not in held:
                array = self._array(item)
                small.append((self.time[item], item, array))
                held[item] = self.time[item], array
        checks = [(held[flag][1], message) for flag, message in flags]
        self._keep_rows(mains, held)
        stages = self._stages(mains, small, held)
        operands = tuple(self._operand(k, operand) for k, operand in enumerate(self.formula.operands))
        return Program(self.formula.sizes, operands, stages, self.work, checks, self._cost(mains))

    def _output(self, output: Output) -> Array:
        title, rank = f"the output %{output.name} {list(output.shape)}", len(output.shape)
        return Array("y", output.position, output.item.dtype, output.axes, self._count(output.axes), rank=rank, title=title)

    def _operand(self, position: int, operand: Operand | None) -> Array | None:
        if operand is None:
            return None
        count = self._count(operand.axes)
        # Along all axes, of which the last one is among the columns.
        apart = bool(self.rows) and bool(self.columns) and count == self._count(self.everything) and operand.constant is None
        title, rank = f"%{operand.name} {list(operand.shape)}", len(operand.shape)
        return Array("x", position, operand.dtype, operand.axes, count, strided=apart, rank=rank, title=title)

    def _counted(self, item: Item, message: str) -> tuple[Item, str]:
        """The number of places where a check fails."""
        maker = Maker(self.formula.sizes)
        failed = maker.cast(maker.op("not", item), np.dtype(np.int64))
        total = maker.reduce("sum", failed, item.axes)
        if not total.is_reduction:
            raise Unsupported("it checks a single label")
        return total, message

    def _time_of_store(self, item: Item, array: Array) -> tuple[bool, int]:
        """Whether a main nest writes an output, and at which time."""
        axes, time = frozenset(array.axes), self.time[item]
        if axes and axes in (self.everything, self.rows):
            return True, _odd(time)
        if self.main[item] and not item.is_leaf:
            if axes or self.rows:
                raise Unsupported("an output varies along a part of the axes of what it is computed with")
            return True, _odd(time)
        return False, _even(time)

    def _worth_keeping(self, item: Item) -> bool:
        """Whether an item of a small nest has an array of its own: not single numbers, nor what each row has one of."""
        return (item.op in EXPENSIVE or item.op in _SLOW) and not item.axes <= self.rows

    def _check_size(self, array: Array) -> None:
        total = self._count(self.everything)
        if total > _SMALL and (not self.rows or array.copies * array.count > max(total // _SUMS_SHARE, _SMALL)):
            raise Unsupported("it reduces along an axis between others, which makes sums as large as the operand")

    def _keep_rows(self, mains: dict[int, Nest], held: dict[Item, tuple[int, Array]]) -> None:
        """Give arrays to what a reduction finds in each row and a later main nest needs too."""
        for time in sorted(mains, reverse=True):
            nest = mains[time]
            waiting = [store.item for store in nest.stores] + [store.item.args[0] for store in nest.sums]
            seen: set[Item] = set()
            while waiting:
                item = waiting.pop()
                if item in seen or (item in held and held[item][0] < time):
                    continue
                seen.add(item)
                if item.is_reduction and self.time[item] < time:
                    array = self._array(item)
                    held[item] = self.time[item], array
                    self._main_at(mains, self.time[item]).stores.append(Store(item, array))
                else:
                    waiting += item.args

    # --- nests ------------------------------------------------------------------------------------------------------------

    def _stages(
        self, mains: dict[int, Nest], small: list[tuple[int, Item, Array]], held: dict[Item, tuple[int, Array]]
    ) -> list[Stage]:
        stages: list[Stage] = []
        order = {item: k for k, item in enumerate(in_order(self.main))}
        times = {*mains, *(time for time, *_ in small), *(time + 1 for time, nest in mains.items() if nest.sums)}
        for time in sorted(times):
            if time in mains:
                nest = mains[time]
                nest.loadable = self._loadable(held, time)
                stages.append(Stage([nest], [], parallel=True))
                continue
            stage = Stage([], mains[time - 1].sums if time - 1 in mains else [], parallel=False)
            known = self._loadable(held, time)
            combined = {store.item for store in stage.combined}
            known |= {store.item: store.array for store in stage.combined}
            for _, item, array in sorted((s for s in small if s[0] == time), key=lambda s: order[s[1]]):
                rows, columns = self._small_axes(item, array, item in combined)
                last = stage.nests[-1] if stage.nests else None
                if last is None or (last.rows, last.columns) != (rows, columns):
                    last = Nest(rows, columns, time, self._count(rows), 1, loadable=dict(known))
                    stage.nests.append(last)
                last.stores.append(Store(item, array))
                if item in held and held[item][1] is array:
                    known[item] = array
            stages.append(stage)
        return stages

    def _small_axes(self, item: Item, array: Array, there: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if item.is_reduction and not there:
            return tuple(sorted(item.axes)), tuple(sorted(item.data))
        return (), array.axes

    def _loadable(self, held: dict[Item, tuple[int, Array]], time: int) -> dict[Item, Array]:
        return {item: array for item, (since, array) in held.items() if since < time}

    def _main_at(self, mains: dict[int, Nest], time: int) -> Nest:
        if time not in mains:
            count, width = self._count(self.rows), self._count(self.columns)
            if not self.columns:
                chunk = _FLAT_CHUNK
            else:
                chunk = max(1, _CHUNK // width, -(-count // _MOST_CHUNKS) if self._sums_arrays() else 1)
            mains[time] = Nest(self.row_order, self.column_order, time, min(chunk, count), -(-count // min(chunk, count)))
        return mains[time]

    def _sums_arrays(self) -> bool:
        return any(item.is_reduction and item.axes and not self._is_local(item) for item in self.main)

    def _array(self, item: Item, copies: int = 1) -> Array:
        count = self._count(item.axes)
        title = f"workspace {copies} x {count}"
        number = self.first + len(self.work)
        array = Array("w", number, item.dtype, tuple(sorted(item.axes)), count, copies, title=title)
        self.work.append(array)
        return array

    def _count(self, axes: Iterable[int]) -> int:
        return prod(self.formula.sizes[axis] for axis in axes)

    def _cost(self, mains: dict[int, Nest]) -> float:
        total = 0.0
        for nest in mains.values():
            roots = [store.item for store in (*nest.stores, *nest.sums)]
            for item in in_order(roots):
                if item not in nest.loadable:
                    total += self._count(item.axes) * (1.0 if item.op in EXPENSIVE else 0.15)
        return total


def _odd(time: int) -> int:
    return time if time % 2 else time + 1


def _even(time: int) -> int:
    return time + 1 if time % 2 else time
