"""What a fused node computes, as a graph of scalar formulae: operations on single elements, and reductions.

An `Item` is one value. Where it lies does not matter here, nor what shape it had: only along which axes of the iteration
space it varies. Changes of shape and broadcasting have gone; equal items are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from irgrad.errors import IrgradError

__all__ = ["EXPENSIVE", "REDUCTIONS", "Item", "Maker", "Unsupported", "in_order"]

REDUCTIONS = ("sum", "prod", "max", "min")

EXPENSIVE = frozenset(
    (
        *("exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid", "softplus", "sin", "cos", "power"),
        *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
    )
)
"""Operations that cost more than loading a result that was stored."""

_TRUTH = frozenset(["equal", "greater", "greater_equal", "less", "less_equal", "and", "or", "xor", "not", "isnan"])


class Unsupported(IrgradError):
    """A body cannot be compiled; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Item:
    """One value of a formula.

    Attributes:
        op: "operand", "number", "index", "pick", an operation on elements, or one of `REDUCTIONS`.
        args: what it is computed from.
        dtype: of its elements.
        axes: the axes of the iteration space that it varies along.
        data: the position of an operand; a number; the axes, in order, that an index runs along; those that are reduced, or
            along which an element is picked.
        name: what the graph calls it, "" for an intermediate result of a composite operation.
    """

    op: str
    args: tuple[Item, ...]
    dtype: np.dtype
    axes: frozenset[int]
    data: Any = None
    name: str = ""

    @property
    def is_leaf(self) -> bool:
        return not self.args

    @property
    def is_reduction(self) -> bool:
        return self.op in REDUCTIONS

    def __repr__(self) -> str:
        return f"{self.op}{sorted(self.axes)}"


def in_order(
    items: Iterable[Item],
    args: Callable[[Item], Sequence[Item]] = lambda item: item.args,
    skip: Callable[[Item], bool] = lambda item: False,
) -> Iterator[Item]:
    """Items and all that they are computed from, each once, what comes first before what needs it.

    Args:
        items: where to begin.
        args: what an item is computed from, as far as that counts.
        skip: whether an item, and what only it needs, is left out; it is asked again when its turn has come.
    """
    done: set[Item] = set()
    stack = [(item, False) for item in reversed(list(items))]
    while stack:
        item, ready = stack.pop()
        if item in done or skip(item):
            continue
        if ready:
            done.add(item)
            yield item
        else:
            stack.append((item, True))
            stack += [(arg, False) for arg in reversed(args(item))]


class Maker:
    """Makes items over an iteration space.

    Args:
        sizes: of the axes of the space.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.name = ""
        """What the items that are made from now on are called."""
        self._made: dict[Any, Item] = {}

    def _make(self, op: str, args: tuple[Item, ...], dtype: np.dtype, axes: Iterable[int], data: Any = None) -> Item:
        key = (op, args, dtype, repr(data) if op == "number" else data)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Item(op, args, dtype, frozenset(axes), data, self.name)
        return found

    def operand(self, position: int, dtype: np.dtype, axes: Iterable[int]) -> Item:
        return self._make("operand", (), dtype, axes, position)

    def number(self, number: Any, dtype: np.dtype) -> Item:
        """A constant, rounded to a dtype."""
        return self._make("number", (), dtype, (), np.asarray(number).astype(dtype).item())

    def index(self, axes: Sequence[int]) -> Item:
        """The position along axes that together are one axis of a tensor."""
        return self._make("index", (), np.dtype(np.int64), axes, tuple(axes)) if axes else self.number(0, np.dtype(np.int64))

    def op(self, name: str, *operands: Item | float) -> Item:
        """An operation on elements; numbers take the dtype of the last operand that is an item."""
        like = next(x for x in reversed(operands) if isinstance(x, Item))
        args = tuple(x if isinstance(x, Item) else self.number(x, like.dtype) for x in operands)
        if name == "where" and args[1] is args[2]:
            return args[1]
        dtype = np.dtype(np.bool_) if name in _TRUTH else args[-1].dtype
        if len({arg.dtype for arg in args[name == "where" :]}) != 1:
            raise Unsupported("it combines values of different dtypes")
        return self._make(name, args, dtype, frozenset().union(*(arg.axes for arg in args)))

    def cast(self, x: Item, dtype: np.dtype) -> Item:
        if x.dtype == dtype:
            return x
        if dtype == np.bool_:
            return self.op("not", self.op("equal", x, 0))
        if x.op == "number":
            return self.number(x.data, dtype)
        return self._make("cast", (x,), dtype, x.axes)

    def reduce(self, name: str, x: Item, axes: Iterable[int]) -> Item:
        """A reduction over axes, along some of which x may be constant."""
        over = frozenset(axes)
        constant = prod(self.sizes[axis] for axis in over - x.axes)
        if constant != 1 and name == "prod":
            raise Unsupported("it multiplies up what is constant along an axis")
        over &= x.axes
        result = self._make(name, (x,), x.dtype, x.axes - over, over) if over else x
        return self.op("mul", result, constant) if name == "sum" and constant != 1 else result

    def pick(self, x: Item, position: Item, axes: Iterable[int]) -> Item:
        """The element of x at a position along axes; which one, where there is none, is not told."""
        along = frozenset(axes) & x.axes
        return self._make("pick", (x, position), x.dtype, (x.axes - along) | position.axes, along) if along else x

    def sum(self, x: Item, axes: Iterable[int]) -> Item:
        return self.reduce("sum", x, axes)

    def mean(self, x: Item, axes: Iterable[int]) -> Item:
        over = frozenset(axes)
        count = prod(self.sizes[axis] for axis in over & x.axes)
        total = self.reduce("sum", x, over & x.axes)
        return total if count == 1 else self.op("div", total, count)

    def rebuilt(
        self,
        items: Sequence[Item],
        rename: Callable[[Iterable[int]], tuple[int, ...]],
        reduce: Callable[[Maker, Item, Item], Item] | None = None,
    ) -> list[Item]:
        """Items of another maker, made once more by this one.

        Args:
            items: what to make.
            rename: old axes → new ones, in order.
            reduce: ``reduce(maker, reduction, operand)`` makes what takes the place of a reduction, given its new operand.
        """
        new: dict[Item, Item] = {}
        for item in in_order(items):
            args = tuple(new[arg] for arg in item.args)
            self.name = item.name
            if item.is_reduction:
                over = frozenset(rename(item.data))
                made = (
                    reduce(self, item, args[0])
                    if reduce
                    else self._make(item.op, args, item.dtype, args[0].axes - over, over)
                )
            elif item.is_leaf:
                data = rename(item.data) if item.op == "index" else item.data
                made = self._make(item.op, (), item.dtype, rename(item.axes), data)
            elif item.op == "pick":
                made = self.pick(args[0], args[1], rename(item.data))
            else:
                made = self._make(item.op, args, item.dtype, frozenset().union(*(a.axes for a in args)))
            new[item] = made
        return [new[item] for item in items]
