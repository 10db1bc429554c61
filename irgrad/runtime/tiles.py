"""Running a small graph piece by piece, so that what is only needed in between never leaves the cache.

The pieces (tiles) are boxes of the space that the graph iterates over. Nothing depends on the number of threads: how the
space is cut, and in which order partial sums are added up, follows from the sizes alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.op import WorkspaceKernel
from irgrad.runtime.specialise import specialise
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.tile_program import TileProgram
from irgrad.runtime.workspace import Place, Workspace
from irgrad.types import TensorType, Type, dims_differ

__all__ = ["WHOLE", "Tiling", "tiled"]

WHOLE = 1 << 14  # elements: below, cutting costs more than it gains
_TILE = 1 << 16  # elements of a tile, twice as many where its rows stay whole: its temporaries fit into a second-level cache
_CHUNKS = 8  # partial sums of what is summed over tiles
_WORTH = 1 << 18  # elements times steps from which on a second thread is worth waking

Index: TypeAlias = "tuple[slice, ...] | None"
"""Which part of an array belongs to a tile; None for all of it."""


@dataclass(frozen=True)
class Tiling:
    """Along which axes a graph may be run piece by piece.

    As in the notation of Einstein sums, each axis of the space that the graph iterates over has a letter (in the order of
    the alphabet), and an operand or output has a letter for each of its axes: that of the axis of the space that it runs
    along, or ``.`` where it has the size 1. In ``ab,b,a.->ab,b`` the second operand is one row and the third one column of
    the space.

    Attributes:
        operands: the letters of each operand.
        outputs: the letters of each output. An output without one of the tiled axes is a sum over it.
        axes: the tiled axes: what the graph computes at one position along them depends on nothing else along them.
    """

    operands: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: str

    @classmethod
    def parse(cls, layout: str, axes: str) -> Tiling:
        """The tiling of a text such as ``ab,b->ab`` and the tiled axes.

        Raises:
            TypeInferenceError: it is not of that form.
        """
        left, arrow, right = layout.partition("->")
        letters = set(left + right) - set(",.")
        if not arrow or not all(c.isalpha() and c.isascii() for c in letters) or not set(axes) <= letters:
            raise TypeInferenceError(f"{layout!r} with the tiled axes {axes!r} is no layout; one is 'ab,b->ab' with 'a'")
        return cls(tuple(left.split(",")), tuple(right.split(",")), axes)

    def __str__(self) -> str:
        return f"{','.join(self.operands)}->{','.join(self.outputs)}"

    def check(self, operands: Sequence[Type | None], outputs: Sequence[Type]) -> dict[str, Any]:
        """Letter → dimension, for operands and outputs of these types.

        Raises:
            TypeInferenceError: they do not fit the layout.
        """
        found: dict[str, Any] = {}
        texts, types = (*self.operands, *self.outputs), (*operands, *outputs)
        if len(self.operands) != len(operands) or len(self.outputs) != len(outputs):
            raise TypeInferenceError(f"the layout {self} is not one of {len(operands)} operands and {len(outputs)} outputs")
        for text, type in zip(texts, types, strict=True):
            shape = type.shape if isinstance(type, TensorType) else None
            if shape is None:
                continue
            if len(shape) != len(text):
                raise TypeInferenceError(f"the layout {self} has {text!r} for {type}")
            for letter, dim in zip(text, shape, strict=True):
                known = found.get(letter)
                if dims_differ(dim, 1 if letter == "." else known):
                    raise TypeInferenceError(f"the layout {self} has {text!r} for {type}, but {letter!r} is {known or 1}")
                if letter != "." and not isinstance(known, int):
                    found[letter] = known if dim is None else dim
        return found


@dataclass(frozen=True)
class _Tile:
    """One piece: whether it is of the smaller kind (the last along the axis that is cut), and its part of each array."""

    rest: bool
    operands: tuple[Index, ...]
    outputs: tuple[Index, ...]


class _Grid:
    """How the space is cut.

    All axes before one tiled axis are gone through position by position, that one is cut into equal parts (the last one may
    be smaller), and those behind it stay whole.
    """

    def __init__(self, tiling: Tiling, sizes: Mapping[str, int]) -> None:
        self.tiling = tiling
        total = prod(sizes.values())
        axes = sorted(tiling.axes)
        inner, cut = total // max(1, prod(sizes[a] for a in axes)), 0
        target = max(WHOLE, min(_TILE if inner == 1 else 2 * _TILE, total // _CHUNKS))
        for cut in range(len(axes) - 1, -1, -1):
            if cut == 0 or inner * sizes[axes[cut]] > target:
                break
            inner *= sizes[axes[cut]]
        self.outer, self.cut = axes[:cut], axes[cut]
        size = sizes[self.cut]
        parts = -(-size // max(1, target // inner))
        self.part = -(-size // parts)
        self.rest = size % self.part
        self.sizes = dict(sizes)

    @property
    def in_order(self) -> bool:
        """Whether tiles of what runs along all axes are in C order. Kernels are slow on others: slower than on the whole."""
        every = "".join(sorted(self.sizes))
        return _is_contiguous(self.full(every), self.shape(every))

    def shape(self, text: str, *, rest: bool = False) -> tuple[int, ...]:
        """The shape of a tile of an array of some layout."""
        sizes = {**self.sizes, **dict.fromkeys(self.outer, 1), self.cut: self.rest if rest else self.part, ".": 1}
        return tuple(sizes[letter] for letter in text)

    def full(self, text: str) -> tuple[int, ...]:
        return tuple(1 if letter == "." else self.sizes[letter] for letter in text)

    def tiles(self) -> list[_Tile]:
        """All tiles in order."""
        found = []
        size = self.sizes[self.cut]
        for position in product(*(range(self.sizes[a]) for a in self.outer)):
            slices = {a: slice(k, k + 1) for a, k in zip(self.outer, position, strict=True)}
            for begin in range(0, size, self.part):
                slices[self.cut] = slice(begin, min(begin + self.part, size))
                found.append(
                    _Tile(
                        begin + self.part > size,
                        tuple(_index(text, slices) for text in self.tiling.operands),
                        tuple(_index(text, slices) for text in self.tiling.outputs),
                    )
                )
        return found


def _index(text: str, slices: Mapping[str, slice]) -> Index:
    if not any(letter in slices for letter in text):
        return None
    return tuple(slices.get(letter, slice(None)) for letter in text)


def tiled(graph: Graph, tiling: Tiling | None) -> WorkspaceKernel:
    """A kernel that runs a graph of static shapes: ``kernel(*operands)`` → the outputs, a tuple.

    Args:
        graph: the graph, which must not change any more.
        tiling: along which axes it may be run piece by piece; None where it has to be run as a whole.
    """
    inputs, outputs = list(graph.inputs.values()), list(graph.outputs.values())
    if tiling is not None:
        sizes = tiling.check([v.type for v in inputs], [v.type for v in outputs])
        if tiling.axes and prod(sizes.values()) > WHOLE:
            grid = _Grid(tiling, sizes)
            if grid.in_order:
                return _Tiled(graph, grid).kernel()
    space = Workspace()
    program = TileProgram(graph, space)
    results = [value.tensor_type for value in outputs]

    def run(*operands: Any, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, ...]:
        places = _places(out, results)
        registers = program.registers(work)
        program.run(registers, operands, places)
        return places

    return space.kernel(run)


def _places(out: Any, types: Sequence[TensorType]) -> tuple[np.ndarray, ...]:
    if out is None:
        return tuple(np.empty(type.static_shape or (), type.dtype) for type in types)
    return out if isinstance(out, tuple) else (out,)


class _Tiled:
    """Runs a graph tile by tile on several threads."""

    def __init__(self, graph: Graph, grid: _Grid) -> None:
        tiling = grid.tiling
        self._tiles = grid.tiles()
        self._types = [value.tensor_type for value in graph.outputs.values()]
        cut = {*grid.outer, grid.cut}
        self._summed = [bool({a for a in cut if grid.sizes[a] > 1} - set(text)) for text in tiling.outputs]
        ordered = [_is_contiguous(grid.full(text), grid.shape(text)) for text in tiling.outputs]
        count = len(self._tiles)
        chunks = min(count, _CHUNKS) if any(self._summed) else count
        self._chunks = [(count * k // chunks, count * (k + 1) // chunks) for k in range(chunks)]
        self._space = Workspace()
        self._partial: dict[int, Place] = {}
        for k, type in enumerate(self._types):
            if self._summed[k]:
                assert type.static_shape is not None
                self._partial[k] = self._space.array((chunks, *type.static_shape), type.dtype)
        kinds = [_of_tile(graph, grid, rest=rest) for rest in ([False, True] if grid.rest else [False])]
        inner = Workspace()
        self._programs = [TileProgram(kind, inner, self._summed, ordered) for kind in kinds]
        worth = prod(grid.sizes.values()) * len(graph) >= _WORTH
        count = min(threads(), chunks) if worth else 1
        self._workers = [self._space.array((inner.size,), np.uint8) for _ in range(count)]

    def kernel(self) -> WorkspaceKernel:
        return self._space.kernel(self)

    def __call__(self, *operands: Any, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, ...]:
        places = _places(out, self._types)
        partial = {k: place(work) for k, place in self._partial.items()}
        for array in partial.values():
            array.fill(0)
        waiting = deque(range(len(self._chunks)))

        def worker(place: Place) -> None:
            mine = place(work)
            registers = [program.registers(mine) for program in self._programs]
            with np.errstate(all="ignore"):
                while True:
                    try:
                        chunk = waiting.popleft()
                    except IndexError:
                        return
                    targets = [partial[k][chunk, ...] if k in partial else place for k, place in enumerate(places)]
                    for tile in self._tiles[slice(*self._chunks[chunk])]:
                        self._run(registers[tile.rest], tile, operands, targets)

        parallel(worker, self._workers[: max(1, threads())])
        for k, array in partial.items():
            np.add.reduce(array, 0, out=places[k])
        return places

    def _run(self, registers: list[Any], tile: _Tile, operands: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        given = [a if index is None else a[index] for a, index in zip(operands, tile.operands, strict=True)]
        places = [a if index is None else a[index] for a, index in zip(targets, tile.outputs, strict=True)]
        self._programs[tile.rest].run(registers, given, places)


def _of_tile(graph: Graph, grid: _Grid, *, rest: bool) -> Graph:
    """The graph for the operands of one tile."""
    types: dict[str, Type] = {}
    for (name, value), text in zip(graph.inputs.items(), grid.tiling.operands, strict=True):
        types[name] = TensorType(value.dtype, grid.shape(text, rest=rest))
    return specialise(graph, types)


def _is_contiguous(full: tuple[int, ...], part: tuple[int, ...]) -> bool:
    """Whether a part of an array in C order is in C order itself: only its first axis that is longer than 1 is cut."""
    axes = [k for k, size in enumerate(part) if size != 1]
    return all(full[k] == part[k] for k in range(axes[0] + 1, len(full))) if axes else True
