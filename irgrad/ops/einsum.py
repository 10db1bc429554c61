"""Einstein summation: reading equations, and running them as matrix products.

An ellipsis is written out as letters at once, aligned at the right, so that everything behind `parse` sees plain terms. An
axis of size 1 broadcasts against the other axes of its letter, as in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.types import Dim

__all__ = ["Equation", "contract", "operations", "output_dims", "parse", "spare_letters"]

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


def contract(equation: Equation, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The result of an equation; it may be a view of an operand.

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
            pair.append(_product(a, ta, b, tb, rest, equation.output if last else ""))
        (result, term) = pair[0]
        operands.append(result)
        terms.append(term)
    (result,), (term,) = operands, terms
    return _reduced(result, term, equation.output)


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


def _product(a: np.ndarray, ta: str, b: np.ndarray, tb: str, rest: str, output: str) -> tuple[np.ndarray, str]:
    """Two operands multiplied, and summed over the letters that nothing else needs.

    Args:
        a: an operand.
        ta: its term.
        b: the other operand.
        tb: its term.
        rest: the letters that are needed after this.
        output: where this is the last product, the order of letters that is asked for.

    Returns:
        The product and its term, whose letters are those of `rest` that the operands have.
    """
    (a, ta), (b, tb) = _alone(a, ta, tb + rest), _alone(b, tb, ta + rest)
    for letter in [letter for letter in ta if letter in tb and letter not in rest]:
        if a.shape[ta.index(letter)] != b.shape[tb.index(letter)]:
            # One of the two has size 1: the sum over the letter is over the other one.
            a, ta = a.sum(ta.index(letter), dtype=a.dtype), ta.replace(letter, "")
            b, tb = b.sum(tb.index(letter), dtype=b.dtype), tb.replace(letter, "")
    batch = "".join(letter for letter in ta if letter in tb and letter in rest)
    summed = "".join(letter for letter in ta if letter in tb and letter not in rest)
    mine = "".join(letter for letter in ta if letter not in tb)
    its = "".join(letter for letter in tb if letter not in ta)
    if output and mine and its and output.index(its[0]) < output.index(mine[0]):
        a, ta, mine, b, tb, its = b, tb, its, a, ta, mine
    if not summed:
        a = a.transpose([ta.index(letter) for letter in batch + mine])
        b = b.transpose([tb.index(letter) for letter in batch + its])
        a = a.reshape((*a.shape, *(1,) * len(its)))
        b = b.reshape((*b.shape[: len(batch)], *(1,) * len(mine), *b.shape[len(batch) :]))
        return np.asarray(a * b), batch + mine + its
    if not mine and not its:
        return np.asarray(np.einsum(f"{ta},{tb}->{batch}", a, b)), batch
    a = a.transpose([ta.index(letter) for letter in batch + mine + summed])
    b = b.transpose([tb.index(letter) for letter in batch + summed + its])
    depth, n = prod(b.shape[len(batch) : len(batch) + len(summed)]), len(batch)
    heights, widths = a.shape[n : n + len(mine)], b.shape[n + len(summed) :]
    product = np.matmul(
        a.reshape(*a.shape[:n], prod(heights), depth),
        b.reshape(*b.shape[:n], depth, prod(widths)),
    )
    return product.reshape(*product.shape[:n], *heights, *widths), batch + mine + its


def _alone(x: np.ndarray, term: str, needed: str) -> tuple[np.ndarray, str]:
    """An operand on the diagonal of its repeated letters, summed over those that are not needed."""
    kept = "".join(letter for letter in dict.fromkeys(term) if letter in needed)
    return _reduced(x, term, kept), kept


def _reduced(x: np.ndarray, term: str, kept: str) -> np.ndarray:
    """An operand on the diagonal of its repeated letters, summed over those that are not kept, its axes in their order."""
    if term == kept:
        return x
    single = "".join(dict.fromkeys(term))
    if single != term:
        x, term = np.einsum(f"{term}->{single}", x), single
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in kept)
    if axes:
        x, term = np.add.reduce(x, axes, x.dtype), "".join(letter for letter in term if letter in kept)
    return np.asarray(x).transpose([term.index(letter) for letter in kept])
