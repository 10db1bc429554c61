"""Einstein summation: reading equations, and running them as matrix products.

An ellipsis is written out as letters at once, aligned at the right, so that everything behind `parse` sees plain terms. An
axis of size 1 broadcasts against the other axes of its letter, as in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.kernels.products import multiply
from irgrad.op import Kernel
from irgrad.runtime.workspace import Workspace
from irgrad.types import Dim

__all__ = ["Equation", "contraction", "operations", "output_dims", "parse", "spare_letters"]

_DOTS = "..."


@dataclass(frozen=True)
class Equation:
    """An equation without ellipses, spaces and defaults.

    Attributes:
        terms: one letter for each axis, for each operand.
        output: the letters of the result.
    """

    terms: tuple[str, ...]
    output: str


@lru_cache(maxsize=4096)
def parse(equation: str, ranks: tuple[int, ...]) -> Equation:
    """The equation of an Einsum over operands of these ranks.

    Raises:
        TypeInferenceError: it is malformed, or does not fit the ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise TypeInferenceError(f"the equation {equation!r} has {len(terms)} terms for {len(ranks)} operands")
    for term in (*terms, right):
        plain = term.replace(_DOTS, "", 1)
        if not (plain == "" or (plain.isascii() and plain.isalpha())):
            raise TypeInferenceError(
                f"the equation {equation!r} has the term {term!r}, which is not letters and one ellipsis"
            )
    hidden = [rank - len(term.replace(_DOTS, "")) for term, rank in zip(terms, ranks, strict=True)]
    for term, rank, more in zip(terms, ranks, hidden, strict=True):
        if more < 0 or (more and _DOTS not in term):
            raise TypeInferenceError(
                f"the term {term!r} of the equation {equation!r} does not fit an operand of rank {rank}"
            )
    dots = spare_letters(equation, max(hidden, default=0))
    written = tuple(term.replace(_DOTS, dots[len(dots) - more :]) for term, more in zip(terms, hidden, strict=True))
    if not arrow:
        letters = left.replace(_DOTS, "").replace(",", "")
        right = _DOTS + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    output = right.replace(_DOTS, dots)
    if len(set(output)) != len(output) or not set(output) <= set("".join(written)):
        raise TypeInferenceError(f"the result of the equation {equation!r} repeats a letter, or has one that no term has")
    if dots and _DOTS not in right:
        raise TypeInferenceError(f"the terms of the equation {equation!r} have an ellipsis, its result has none")
    return Equation(written, output)


def spare_letters(taken: str, count: int) -> str:
    """Letters that are not in `taken`.

    Raises:
        TypeInferenceError: the alphabet has too few.
    """
    free = "".join(letter for letter in ascii_letters if letter not in taken)
    if len(free) < count:
        raise TypeInferenceError(f"an Einsum has at most {len(ascii_letters)} letters for its axes, and this one needs more")
    return free[:count]


def output_dims(equation: Equation, shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The dimensions of the result.

    Raises:
        TypeInferenceError: the axes of a letter have different sizes, neither of them 1.
    """
    found: dict[str, set[Dim]] = {}
    for term, shape in zip(equation.terms, shapes, strict=True):
        for letter, dim in zip(term, shape, strict=True):
            found.setdefault(letter, set()).add(dim)
    dims: dict[str, Dim] = {}
    for letter, options in found.items():
        wide = {dim for dim in options if isinstance(dim, int) and dim != 1}
        if len(wide) > 1:
            raise TypeInferenceError(f"the axes of the letter {letter!r} have the sizes {sorted(wide)}")
        rest = options - {1}
        dims[letter] = next(iter(wide)) if wide else (1 if not rest else next(iter(rest)) if len(rest) == 1 else None)
    return tuple(dims[letter] for letter in equation.output)


# --- running ----------------------------------------------------------------------------------------------------------


def contraction(equation: Equation, shapes: Sequence[tuple[int, ...]], dtype: np.dtype) -> Kernel:
    """A kernel for an equation over operands of some shapes."""
    result = tuple(int(dim) for dim in output_dims(equation, shapes) if isinstance(dim, int))
    measured = _Memory(None)
    contract(equation, [np.empty(shape, dtype) for shape in shapes], np.empty(result, dtype), measured)
    space = Workspace()
    pool = space.array((measured.used,), dtype)

    def kernel(*arrays: np.ndarray, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        return contract(equation, arrays, np.empty(result, dtype) if out is None else out, _Memory(pool(work)))

    return space.kernel(kernel)


class _Memory:
    """Arrays one behind the other in a pool, and outside where that ends.

    Args:
        pool: a one-dimensional array. With None nothing is computed, and memory that is never touched is handed out, so that
            `used` tells how large a pool has to be where the operands are contiguous.
    """

    def __init__(self, pool: np.ndarray | None) -> None:
        self._pool = pool
        self.used = 0

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An array of any contents."""
        start, self.used = self.used, self.used + prod(shape)
        if self._pool is None or self.used > self._pool.size:
            return np.empty(shape, dtype)
        return self._pool[start : self.used].reshape(shape)

    def run(self, function: Callable[..., Any], *operands: Any, out: np.ndarray) -> np.ndarray:
        """Call a function of numpy that writes into `out`."""
        if self._pool is not None:
            function(*operands, out=out)
        return out

    def copy(self, target: np.ndarray, source: np.ndarray) -> np.ndarray:
        return self.run(np.positive, source, out=target)

    def reshaped(self, x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The elements of x in another shape: a view where there is one, else a copy."""
        view = _view(x, shape)
        return self.copy(self.array(x.shape, x.dtype), x).reshape(shape) if view is None else view


def _view(x: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """The elements of x in another shape without a copy, or None: axes may be joined where one steps through them evenly."""
    if x.flags.c_contiguous:
        return x.reshape(shape)
    strides = []
    axis = 0
    sizes = [(size, stride) for size, stride in zip(x.shape, x.strides, strict=True) if size != 1]
    for wanted in shape:
        if wanted == 1:
            strides.append(0)
            continue
        size, stride = 1, 0
        while size < wanted:
            if axis == len(sizes) or (size > 1 and stride != sizes[axis][0] * sizes[axis][1]):
                return None
            size, stride, axis = size * sizes[axis][0], sizes[axis][1], axis + 1
        if size != wanted:
            return None
        strides.append(stride)
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def contract(equation: Equation, arrays: Sequence[np.ndarray], out: np.ndarray, memory: _Memory) -> np.ndarray:
    """The result of an equation into `out`.

    Two operands at a time, in the order that is cheapest by numpy's greedy search.
    """
    terms = list(equation.terms)
    operands = list(arrays)
    for chosen in _path(equation, tuple(a.shape for a in arrays)):
        # Positions count in what is left; what is made goes to the end.
        pair = [(operands.pop(k), terms.pop(k)) for k in sorted(chosen, reverse=True)]
        while len(pair) > 1:
            (b, tb), (a, ta) = pair.pop(), pair.pop()
            rest = "".join((equation.output, *terms, *(term for _, term in pair)))
            last = not operands and not pair
            pair.append(_product(a, ta, b, tb, rest, (out, equation.output) if last else None, memory))
        (result, term) = pair[0]
        operands.append(result)
        terms.append(term)
    (result,), (term,) = operands, terms
    return out if result is out else _reduced(result, term, equation.output, memory, out)


def operations(equation: Equation, shapes: Sequence[tuple[int, ...]]) -> int:
    """How many multiplications and additions `contract` takes, two operands at a time in the same order."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, size)) if size else 0
    if len(shapes) == 1:
        (term,) = equation.terms
        return prod(sizes[letter] for letter in set(term)) if set(term) - set(equation.output) else 0
    terms, total = list(equation.terms), 0
    for chosen in _path(equation, tuple(shapes)):
        pair = [terms.pop(k) for k in sorted(chosen, reverse=True)]
        while len(pair) > 1:
            tb, ta = pair.pop(), pair.pop()
            letters = set(ta + tb)
            kept = letters & set("".join((equation.output, *terms, *pair)))
            total += prod(sizes[letter] for letter in letters) * (1 if kept == letters else 2)
            pair.append("".join(sorted(kept)))
        terms.append(pair[0])
    return total


@lru_cache(maxsize=1024)
def _path(equation: Equation, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Which operands to multiply together, step by step; their results are put at the end."""
    if len(shapes) < 3:
        return (tuple(range(len(shapes))),)
    text = ",".join(equation.terms) + "->" + equation.output
    shells = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    path: list[Any] = np.einsum_path(text, *shells, optimize="greedy")[0]
    return tuple(tuple(step) for step in path[1:])


def _product(
    a: np.ndarray, ta: str, b: np.ndarray, tb: str, rest: str, end: tuple[np.ndarray, str] | None, memory: _Memory
) -> tuple[np.ndarray, str]:
    """Two operands multiplied, and summed over the letters that nothing else needs.

    Args:
        a: an operand.
        ta: its term.
        b: the other operand.
        tb: its term.
        rest: the letters that are needed after this.
        end: where this is the last product, the array to write to and its term.
        memory: where other arrays come from.

    Returns:
        The product and its term, whose letters are those of `rest` that the operands have.
    """
    (a, ta), (b, tb) = _alone(a, ta, tb + rest, memory), _alone(b, tb, ta + rest, memory)
    for letter in [letter for letter in ta if letter in tb and letter not in rest]:
        if a.shape[ta.index(letter)] != b.shape[tb.index(letter)]:
            # One of the two has size 1: the sum over the letter is over the other one.
            (a, ta), (b, tb) = _alone(a, ta, ta.replace(letter, ""), memory), _alone(b, tb, tb.replace(letter, ""), memory)
    batch = "".join(letter for letter in ta if letter in tb and letter in rest)
    summed = "".join(letter for letter in ta if letter in tb and letter not in rest)
    mine = "".join(letter for letter in ta if letter not in tb)
    its = "".join(letter for letter in tb if letter not in ta)
    if end is not None and mine and its and end[1].index(its[0]) < end[1].index(mine[0]):
        a, ta, mine, b, tb, its = b, tb, its, a, ta, mine
    term = batch + mine + its
    a = a.transpose([ta.index(letter) for letter in batch + mine + summed])
    b = b.transpose([tb.index(letter) for letter in batch + summed + its])
    n, m, k = len(batch), len(mine), len(summed)
    common = np.broadcast_shapes(a.shape[:n], b.shape[:n])
    heights, depths, widths = a.shape[n : n + m], a.shape[n + m :], b.shape[n + k :]
    shape = (*common, *heights, *widths)
    target = memory.array(shape, a.dtype) if end is None else end[0].transpose([end[1].index(letter) for letter in term])
    result = (target, term) if end is None else end
    if not summed:
        a = a.reshape((*a.shape, *(1,) * len(its)))
        b = b.reshape((*b.shape[:n], *(1,) * m, *b.shape[n:]))
        memory.run(np.multiply, a, b, out=target)
    elif not mine and not its:
        memory.run(partial(np.einsum, f"{batch + summed},{batch + summed}->{batch}"), a, b, out=target)
    else:
        flat = (*common, prod(heights), prod(widths))
        place = _view(target, flat)
        product = memory.run(
            multiply,
            memory.reshaped(a, (*a.shape[:n], prod(heights), prod(depths))),
            memory.reshaped(b, (*b.shape[:n], prod(depths), prod(widths))),
            out=memory.array(flat, a.dtype) if place is None else place,
        )
        if place is None:
            memory.copy(target, product.reshape(shape))
    return result


def _alone(x: np.ndarray, term: str, needed: str, memory: _Memory) -> tuple[np.ndarray, str]:
    """An operand on the diagonal of its repeated letters, summed over those that are not needed."""
    kept = "".join(letter for letter in dict.fromkeys(term) if letter in needed)
    return _reduced(x, term, kept, memory), kept


def _reduced(x: np.ndarray, term: str, kept: str, memory: _Memory, out: np.ndarray | None = None) -> np.ndarray:
    """An operand on the diagonal of its repeated letters, summed over those that are not kept, its axes in their order."""
    if term == kept:
        return x if out is None else memory.copy(out, x)
    single = "".join(dict.fromkeys(term))
    if single != term:
        x, term = np.einsum(f"{term}->{single}", x), single  # a view
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in kept)
    left = "".join(letter for letter in term if letter in kept)
    order = [left.index(letter) for letter in kept]
    if not axes:
        view = x.transpose(order)
        return view if out is None else memory.copy(out, view)
    if out is None:
        out = memory.array([x.shape[term.index(letter)] for letter in kept], x.dtype)
    memory.run(partial(np.add.reduce, x, axes, x.dtype), out=out.transpose(np.argsort(order)))
    return out
