"""The source of one nest of loops: in each row, passes over the columns, and what is computed once between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from math import prod
from typing import Protocol

import numpy as np

from irgrad.codegen.expressions import expression, identity, literal, updated
from irgrad.codegen.items import EXPENSIVE, Item, in_order
from irgrad.codegen.plan import Array, Nest, Store

__all__ = ["NestWriter"]

_LONGEST_BUFFER = 1 << 15  # elements of a row that is worth keeping: more would leave the cache before it is read again


class _Scope(IntEnum):
    """Where a value is computed: once, in each row, or in each column of it."""

    ONCE = 0
    ROW = 1
    COLUMN = 2


class Surroundings(Protocol):
    """The function that a nest is a part of."""

    @property
    def sizes(self) -> tuple[int, ...]: ...

    def buffer(self, dtype: np.dtype, axes: tuple[int, ...], count: int) -> Array: ...
    def stride(self, array: Array, axis: int) -> int | str: ...
    def get(self, array: Array, index: str) -> str: ...
    def put(self, array: Array, index: str, value: str) -> str: ...
    def operand_of(self, position: int) -> Array: ...


class NestWriter:
    """Writes the loops of a nest.

    Args:
        function: what it is a part of.
        nest: what to write.
        mark: what tells its names from those of other nests in the function.
    """

    def __init__(self, function: Surroundings, nest: Nest, mark: str) -> None:
        self.function = function
        self.nest = nest
        self.mark = mark
        self.sizes = function.sizes
        self.names: dict[_Scope, dict[Item, str]] = {scope: {} for scope in _Scope}
        self.text: dict[_Scope, list[str]] = {scope: [] for scope in _Scope}
        self.between: list[str] = []  # offsets that the outer ones of several loops over columns decide
        self.sources = dict(nest.loadable)
        self._levels: dict[Item, int] = {}
        self._scopes: dict[Item, _Scope] = {}
        self._count = 0
        self._totals: dict[Item, str] = {}
        self._offsets: dict[tuple[str, object], str] = {}

    # --- analysis -----------------------------------------------------------------------------------------------------

    def _source(self, item: Item) -> Array | None:
        """The array that an item is loaded from."""
        if item.op == "operand":
            return self.function.operand_of(item.data)
        return self.sources.get(item)

    def _args(self, item: Item) -> tuple[Item, ...]:
        return () if self._source(item) else item.args

    def _level(self, item: Item) -> int:
        """In which pass an item can be computed: after so many that form reductions it depends on."""
        if item not in self._levels:
            for inner in self._walk([item]):
                below = max((self._levels[arg] for arg in self._args(inner)), default=0)
                self._levels[inner] = below + (bool(self._args(inner)) and self.nest.is_local(inner))
        return self._levels[item]

    def _scope(self, item: Item) -> _Scope:
        if item not in self._scopes:
            for inner in self._walk([item]):
                self._scopes[inner] = self._own_scope(inner)
        return self._scopes[item]

    def _own_scope(self, item: Item) -> _Scope:
        args = self._args(item)
        if args and (self.nest.is_local(item) or item.op == "pick"):
            return _Scope.ROW
        if args:
            return max(self._scopes[arg] for arg in args)
        if not item.axes:
            return _Scope.ONCE
        return _Scope.ROW if item.axes <= set(self.nest.rows) else _Scope.COLUMN

    def _walk(self, items: Iterable[Item], *, unnamed: bool = False) -> Iterator[Item]:
        """Items and what they are computed from in this nest, in order; if asked for, only what has no name yet."""
        if not unnamed:
            return in_order(items, self._args)
        # What an element is picked of is named where it is picked.
        return in_order(items, lambda i: self._args(i)[1:] if i.op == "pick" else self._args(i), self._is_named)

    def _terms(self, store: Store) -> Item:
        return store.item.args[0]

    def _plan_passes(self) -> list[tuple[list[Store], list[Store], list[Item]]]:
        """For each pass what it stores, what it adds to sums across rows, and the reductions that it forms."""
        nest = self.nest
        roots = [store.item for store in nest.stores] + [self._terms(store) for store in nest.sums]
        reductions = [item for item in self._walk(roots) if self._args(item) and nest.is_local(item)]
        count = 1 + max([self._level(item) for item in roots], default=0)
        passes: list[tuple[list[Store], list[Store], list[Item]]] = [([], [], []) for _ in range(count)]
        for store in nest.stores:
            passes[self._level(store.item)][0].append(store)
        for store in nest.sums:
            passes[self._level(self._terms(store))][1].append(store)
        for item in reductions:
            passes[self._level(item) - 1][2].append(item)
        self._keep_expensive(passes)
        return passes

    def _keep_expensive(self, passes: list[tuple[list[Store], list[Store], list[Item]]]) -> None:
        """Have what costs much and is needed in a later pass again stored by the first one.

        It goes into a row of an output that is written later, or else of the workspace.
        """
        free = [
            (store.array, level)
            for level, (stores, _, _) in enumerate(passes)
            for store in stores
            if set(store.array.axes) == {*self.nest.rows, *self.nest.columns}
        ]
        width = prod(self.sizes[axis] for axis in self.nest.columns)
        self.kept: dict[Item, Array] = {}
        for level in range(len(passes) - 1, 0, -1):
            stores, sums, reductions = passes[level]
            waiting = [s.item for s in stores] + [self._terms(s) for s in sums] + [r.args[0] for r in reductions]
            seen: set[Item] = set()
            while waiting:
                item = waiting.pop()
                if item in seen or item in self.kept or not self._args(item) or self._scope(item) < _Scope.COLUMN:
                    continue
                seen.add(item)
                if item.op in EXPENSIVE and self._level(item) < level:
                    place = next((a for a, last in free if last >= level and a.dtype == item.dtype), None)
                    if place is not None:
                        free = [(a, last) for a, last in free if a is not place]
                    elif width <= _LONGEST_BUFFER:
                        place = self.function.buffer(item.dtype, self.nest.columns, width)
                    if place is not None:
                        self.kept[item] = place
                        passes[self._level(item)][0].append(Store(item, place))
                        continue
                waiting += self._args(item)

    # --- writing ------------------------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """The loops."""
        nest, row = self.nest, self.text[_Scope.ROW]
        passes = self._plan_passes()
        ends: list[str] = []
        begins = [line for store in nest.sums for line in self._begin(store, ends)]
        for level, (stores, sums, reductions) in enumerate(passes):
            if level and nest.columns:
                for item in [i for i in self.kept if self._level(i) < level]:
                    self.sources[item] = self.kept[item]
            inner = [s for s in stores if self._in_columns(s)]
            inner_sums = [s for s in sums if self._scope(self._terms(s)) is _Scope.COLUMN]
            self._finish(row, [s for s in stores if s not in inner], [s for s in sums if s not in inner_sums])
            if inner or inner_sums or reductions:
                self._pass(inner, inner_sums, reductions)
        return [*self.text[_Scope.ONCE], *self._row_loops(begins, ends)]

    def _in_columns(self, store: Store) -> bool:
        return self._scope(store.item) is _Scope.COLUMN or bool(set(store.array.axes) & set(self.nest.columns))

    def _row_loops(self, begins: list[str], ends: list[str]) -> list[str]:
        nest, row = self.nest, self.text[_Scope.ROW]
        if not nest.rows:
            return [*begins, *row, *ends]
        count = prod(self.sizes[axis] for axis in nest.rows)
        heads = [f"i{axis} = {self._position(axis)}" for axis in nest.rows if f"i{axis}" in self._used_positions()]
        loop = [f"for r in range({'c * ' + str(nest.chunk) if nest.chunks > 1 else 0}, {self._end(count)}):"]
        body = [*begins, *loop, *_indented([*heads, *row]), *ends]
        if nest.chunks == 1:
            return body
        return ["for c in range(first, last):", *_indented(body)]

    def _end(self, count: int) -> str:
        nest = self.nest
        if nest.chunks == 1:
            return str(count)
        return f"min(c * {nest.chunk} + {nest.chunk}, {count})"

    def _pass(self, stores: list[Store], sums: list[Store], reductions: list[Item]) -> None:
        """Write the loops over the columns of one pass, after what of the row they need."""
        self.names[_Scope.COLUMN], self.text[_Scope.COLUMN], self.between = {}, [], []
        self._offsets = {key: text for key, text in self._offsets.items() if key[0] != "between"}
        columns, row = self.text[_Scope.COLUMN], self.text[_Scope.ROW]
        starts = []
        for item in reductions:
            total = self._fresh("t")
            starts.append(f"{total} = {identity(item)}{self._comment(item)}")
            columns.append(f"{total} = {updated(item, total, self._name(item.args[0]))}")
            self.names[_Scope.ROW][item] = total
        self._finish(columns, stores, sums)
        row += starts
        *outer, last = self.nest.columns
        lines = [f"for j{last} in range({self.sizes[last]}):", *_indented(columns)]
        lines = [*self.between, *lines]
        for axis in reversed(outer):
            lines = [f"for j{axis} in range({self.sizes[axis]}):", *_indented(lines)]
        row += lines

    def _finish(self, text: list[str], stores: list[Store], sums: list[Store]) -> None:
        """Compute what is stored or summed up, and only then write: what is read may lie where results go."""
        values = [self._name(store.item) for store in stores]
        for store in sums:
            text += self._added(store)
        text += [self._written(store, value) for store, value in zip(stores, values, strict=True)]

    # --- values -------------------------------------------------------------------------------------------------------

    def _fresh(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self.mark}{'_' if self.mark else ''}{self._count}"

    def _comment(self, item: Item) -> str:
        return f"  # %{item.name}" if item.name else ""

    def _name(self, item: Item) -> str:
        """What an item is called where it is used; it is computed there, or before, if it has not been yet."""
        if item.op == "number":
            return literal(item.data, item.dtype)
        for inner in self._walk([item], unnamed=True):
            scope = self._scope(inner)
            source = self._source(inner)
            if inner.op == "pick" and source is None:
                self._pick(inner)
                continue
            if source is not None:
                text = self.function.get(source, self._index(source, scope))
            elif inner.op == "index":
                text = self._index_text(inner.data)
            else:
                args = [self._known(arg) for arg in inner.args]
                text = expression(inner, args)
            name = self._fresh("v")
            self.text[scope].append(f"{name} = {text}{self._comment(inner)}")
            self.names[scope][inner] = name
        return self._known(item)

    def _pick(self, item: Item) -> None:
        """Compute an element of one column, outside of the loops over columns."""
        (axis,) = item.data
        outside = self.names[_Scope.COLUMN], self.text[_Scope.COLUMN]
        self.names[_Scope.COLUMN], self.text[_Scope.COLUMN] = {}, []
        position = f"j{axis} = min(max(int64({self._known(item.args[1])}), 0), {self.sizes[axis] - 1})"
        self.names[_Scope.ROW][item] = self._name(item.args[0])
        self.text[_Scope.ROW] += [position, *self.text[_Scope.COLUMN]]
        self.names[_Scope.COLUMN], self.text[_Scope.COLUMN] = outside

    def _is_named(self, item: Item) -> bool:
        return item.op == "number" or any(item in names for names in self.names.values())

    def _known(self, item: Item) -> str:
        if item.op == "number":
            return literal(item.data, item.dtype)
        return next(names[item] for names in self.names.values() if item in names)

    def _written(self, store: Store, value: str) -> str:
        scope = _Scope.COLUMN if self._in_columns(store) else _Scope.ROW
        return self.function.put(store.array, self._index(store.array, scope), value)

    # --- sums across rows ---------------------------------------------------------------------------------------------

    def _begin(self, store: Store, ends: list[str]) -> Iterator[str]:
        """What comes before the rows of a chunk; what comes after them is put into a list."""
        item, array = store.item, store.array
        chunk = "c" if self.nest.chunks > 1 else "0"
        start = identity(item)
        if not array.axes:
            total = self._totals[item] = self._fresh("q")
            yield f"{total} = {start}{self._comment(item)}"
            ends.append(self.function.put(array, chunk, total))
            return
        yield f"for k in range({array.count}):"
        yield f"    {self.function.put(array, self._in_chunk(array, 'k'), start)}"

    def _in_chunk(self, array: Array, index: str) -> str:
        return _sum([f"c * {array.count}", index]) if self.nest.chunks > 1 else index

    def _added(self, store: Store) -> list[str]:
        """Add a term to a sum."""
        item, array = store.item, store.array
        term = self._name(item.args[0])
        if not array.axes:
            total = self._totals[item]
            return [f"{total} = {updated(item, total, term)}"]
        scope = self._scope(item.args[0])
        index = self._index(array, scope, self._in_chunk)
        return [self.function.put(array, index, updated(item, self.function.get(array, index), term))]

    # --- indices ------------------------------------------------------------------------------------------------------

    def _index(self, array: Array, scope: _Scope, wrap: Callable[[Array, str], str] | None = None) -> str:
        """The index of the element of an array that belongs to the present row and column."""
        columns = [axis for axis in self.nest.columns if axis in array.axes] if scope is _Scope.COLUMN else []
        start = self._row_offset(array, wrap)
        outer = [axis for axis in columns if axis != self.nest.columns[-1]]
        if outer:
            key = ("between", array)
            if key not in self._offsets:
                name = self._offsets[key] = self._fresh("p")
                self.between.append(f"{name} = {_sum([start, *(self._term(array, f'j{a}', a) for a in outer)])}")
            start = self._offsets[key]
        inner = [self._term(array, f"j{a}", a) for a in columns if a not in outer]
        return _sum([start, *inner])

    def _term(self, array: Array, position: str, axis: int) -> str:
        stride = self.function.stride(array, axis)
        return position if stride == 1 else f"{position} * {stride}"

    def _row_offset(self, array: Array, wrap: Callable[[Array, str], str] | None) -> str:
        rows = [axis for axis in self.nest.rows if axis in array.axes]
        if array.buffer:
            return f"slot * {array.count}"
        if not rows:
            return wrap(array, "0") if wrap else "0"
        key = ("row", array)
        if key not in self._offsets:
            text = self._row_terms(array, rows)
            text = wrap(array, text) if wrap else text
            if not self.nest.columns or text.isidentifier():
                return text
            name = self._offsets[key] = self._fresh("o")
            self.text[_Scope.ROW].append(f"{name} = {text}")
        return self._offsets[key]

    def _row_terms(self, array: Array, rows: Sequence[int]) -> str:
        if tuple(rows) == self.nest.rows and (len(rows) == 1 or not array.strided):
            strides = [self.function.stride(array, axis) for axis in rows]
            nested = all(
                isinstance(inner, int) and outer == inner * self.sizes[axis]
                for outer, inner, axis in zip(strides, strides[1:], rows[1:], strict=False)
            )
            if nested:
                return self._term(array, "r", rows[-1])
        return _sum([self._term(array, self._row_position(axis), axis) for axis in rows])

    def _row_position(self, axis: int) -> str:
        if len(self.nest.rows) == 1:
            return "r"
        self._offsets["position", axis] = f"i{axis}"
        return f"i{axis}"

    def _used_positions(self) -> set[str]:
        return {text for key, text in self._offsets.items() if key[0] == "position"}

    def _position(self, axis: int) -> str:
        """The position along one of several axes of rows."""
        rows = self.nest.rows
        inside = prod(self.sizes[a] for a in rows if a > axis)
        text = "r" if inside == 1 else f"r // {inside}"
        return text if axis == rows[0] else f"{text} % {self.sizes[axis]}"

    def _index_text(self, axes: Sequence[int]) -> str:
        """The position along axes that were one axis of a tensor."""
        parts = []
        for axis in axes:
            inside = prod(self.sizes[a] for a in axes if a > axis)
            position = f"j{axis}" if axis in self.nest.columns else self._row_position(axis)
            parts.append(position if inside == 1 else f"{position} * {inside}")
        return _sum(parts)


def _sum(terms: Iterable[str]) -> str:
    given = [term for term in terms if term != "0"]
    return " + ".join(given) or "0"


def _indented(lines: Iterable[str]) -> list[str]:
    return ["    " + line for line in lines]
