"""Sums over axes, of an array or of the products of two, without temporaries of the operands' size.

numpy's own reductions are slow over short rows and over several axes; `np.einsum` is not, but adds up one term after
another. So long sums are taken in stages: of at most 256 terms that lie side by side (four at a time, hence 64 one after
another), or at most 64 that lie apart; then of their results, and so on. The rounding error grows with the logarithm of the
number of terms, as with pairwise summation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from string import ascii_lowercase
from typing import TypeAlias

import numpy as np

from irgrad.kernels.elementwise import cuts
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Place, Workspace

__all__ = ["Sum", "grouped"]

_SIDE_BY_SIDE = 256
_APART = 64
_WORTH = 1 << 21
"""Elements from which on a second thread is worth waking for a sum; about 300 µs."""
_FEW = 4096
"""Elements up to which numpy's own reduction is as good."""

Group: TypeAlias = "tuple[bool, int]"
"""Neighbouring axes as one: whether they are summed over, and their size."""

_Stage: TypeAlias = "Callable[[Sequence[np.ndarray], np.ndarray], None]"


def grouped(shape: Sequence[int], axes: Sequence[int]) -> list[Group]:
    """The axes of a shape, neighbours that are treated alike made one, those of size 1 left out."""
    over = {axis % len(shape) for axis in axes} if shape else set()
    groups: list[Group] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        summed = axis in over
        if groups and groups[-1][0] == summed:
            groups[-1] = (summed, groups[-1][1] * size)
        else:
            groups.append((summed, size))
    return groups


class Sum:
    """Sums of arrays of one shape over some axes.

    Args:
        space: where temporary arrays get their places.
        shape: that of the operands.
        axes: the axes to sum over.
        dtype: the operands' dtype, in which the sums are formed too.
    """

    def __init__(self, space: Workspace, shape: Sequence[int], axes: Sequence[int], dtype: np.dtype) -> None:
        self._axes = tuple(axes)
        self._dtype = dtype
        self._stages: list[tuple[_Stage, Place | None]] = []
        self._kept = tuple(size for axis, size in enumerate(shape) if axis not in {a % len(shape) for a in axes})
        groups = grouped(shape, axes)
        if dtype.kind != "f" or dtype.itemsize < 4 or prod(shape) <= _FEW or not any(summed for summed, _ in groups):
            return
        self._shape = tuple(size for _, size in groups)
        while True:
            stage, groups = _stage(groups)
            last = not any(summed for summed, _ in groups)
            self._stages.append((stage, None if last else space.array([size for _, size in groups], dtype)))
            if last:
                break
        self._result = tuple(size for _, size in groups)

    def __call__(self, *operands: np.ndarray, out: np.ndarray, work: np.ndarray) -> np.ndarray:
        """The sums of an operand, or of the products of two, into `out`, which is contiguous and may have axes of size 1."""
        if not self._stages or not all(a.flags.c_contiguous for a in operands):
            self._plainly(operands, out)
            return out
        arrays: Sequence[np.ndarray] = [a.reshape(self._shape) for a in operands]
        for stage, place in self._stages:
            target = out.reshape(self._result) if place is None else place(work)
            stage(arrays, target)
            arrays = [target]
        return out

    def _plainly(self, operands: Sequence[np.ndarray], out: np.ndarray) -> None:
        target = out.reshape(self._kept)
        if not self._axes:  # numpy would add each element to 0, which turns −0 into 0
            np.copyto(target, operands[0])
            for other in operands[1:]:
                np.multiply(target, other, out=target)
        elif len(operands) == 1:
            np.add.reduce(operands[0], self._axes, self._dtype, out=target)
        else:
            letters = ascii_lowercase[: operands[0].ndim]
            over = {axis % len(letters) for axis in self._axes}
            kept = "".join(letter for axis, letter in enumerate(letters) if axis not in over)
            np.einsum(f"{letters},{letters}->{kept}", *operands, out=target)


def _stage(groups: list[Group]) -> tuple[_Stage, list[Group]]:
    """A step of the summation, and the axes that are left; all have been summed over when no group says so."""
    position = max(k for k, (summed, _) in enumerate(groups) if summed)
    size, limit = groups[position][1], _SIDE_BY_SIDE if position == len(groups) - 1 else _APART
    others = [k for k, (summed, _) in enumerate(groups) if summed and k != position]
    if size <= limit and prod(groups[k][1] for k in others) <= _APART:
        over = [position, *others]
        left = _merged([group for k, group in enumerate(groups) if k not in over])
        return _whole(len(groups), over, [size for _, size in left]), left
    if size <= limit:
        left = [group for k, group in enumerate(groups) if k != position]
        return _whole(len(groups), [position], [size for _, size in left]), left
    count, rest = divmod(size, limit)
    left = [*groups[:position], (True, count + bool(rest)), *groups[position + 1 :]]
    return _in_parts(len(groups), position, count, limit, rest), left


def _merged(groups: list[Group]) -> list[Group]:
    return grouped([size for _, size in groups], [])


def _whole(rank: int, over: Sequence[int], left: Sequence[int]) -> _Stage:
    """Sum over some axes at once."""
    letters = ascii_lowercase[:rank]
    kept = "".join(letter for k, letter in enumerate(letters) if k not in over)

    def stage(arrays: Sequence[np.ndarray], target: np.ndarray) -> None:
        terms = ",".join([letters] * len(arrays))
        target = target.reshape([arrays[0].shape[letters.index(letter)] for letter in kept])
        _einsum(terms, kept, arrays, target)

    return stage


def _in_parts(rank: int, position: int, count: int, length: int, rest: int) -> _Stage:
    """Sum along an axis in so many parts of a length, and what is left over."""
    letters = ascii_lowercase[:rank]
    before, own, after = letters[:position], letters[position], letters[position + 1 :]
    front: tuple[slice, ...] = (slice(None),) * position

    def stage(arrays: Sequence[np.ndarray], target: np.ndarray) -> None:
        shape = arrays[0].shape
        ahead = [a[(*front, slice(count * length))] for a in arrays]
        parts = [a.reshape(*shape[:position], count, length, *shape[position + 1 :]) for a in ahead]
        term = f"{before}{own}z{after}"
        _einsum(",".join([term] * len(parts)), letters, parts, target[(*front, slice(count))])
        if rest:
            behind = [a[(*front, slice(count * length, None))] for a in arrays]
            _einsum(",".join([letters] * len(behind)), before + after, behind, _at(target, position, count))

    return stage


def _at(x: np.ndarray, axis: int, index: int) -> np.ndarray:
    """What lies at an index of an axis; a view even where that is one number."""
    cut = x[(*(slice(None),) * axis, slice(index, index + 1))]
    return cut.reshape((*x.shape[:axis], *x.shape[axis + 1 :]))


def _einsum(terms: str, result: str, arrays: Sequence[np.ndarray], target: np.ndarray) -> None:
    """``np.einsum`` on several threads where that pays: along an axis that is kept."""
    if arrays[0].size < _WORTH or not result or threads() < 2:
        np.einsum(f"{terms}->{result}", *arrays, out=target)
        return
    axis = next((k for k, size in enumerate(target.shape) if size >= 2 * threads()), int(np.argmax(target.shape)))
    source = terms.split(",")[0].index(result[axis])

    def part(cut: tuple[int, int]) -> None:
        pieces = [a[(*(slice(None),) * source, slice(*cut))] for a in arrays]
        np.einsum(f"{terms}->{result}", *pieces, out=target[(*(slice(None),) * axis, slice(*cut))])

    parallel(part, cuts(target.shape[axis]))
