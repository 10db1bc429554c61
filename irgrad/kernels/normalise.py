"""Standardising the rows of an array, and the adjoint of that, block by block.

The formulas are those of irgrad/ops/standardise.py. A row's mean is taken first, then the mean of the squared differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.kernels.rows import Block, RowDots, Rows
from irgrad.op import Kernel
from irgrad.runtime.workspace import Workspace

__all__ = ["grouped_grad", "normalise", "normalise_grad"]


def normalise(
    shape: Sequence[int], first: int, dtype: np.dtype, epsilon: float, *, centred: bool = True, per_row: int = 0
) -> Kernel:
    """A kernel ``(x, scale, bias, mean, inverse) → y`` for scale · (x − mean) · inverse + bias.

    Args:
        shape: that of x.
        first: the axis from which on x is standardised.
        dtype: of all arrays.
        epsilon: what is added to the variance.
        centred: whether the mean is subtracted.
        per_row: 0 where scale and bias are broadcast to x's axes from `first` on; otherwise how many numbers of theirs a row
            takes, each for an equal part of it: row r the numbers from r · per_row on, counted round.

    The arrays `mean` and `inverse`, one element for each row, are written to where they are not None. The result may be x.
    """
    rows, space = Rows.over(shape, first), Workspace()
    numbers = rows.statistics(space, dtype, 2)
    statistics = _Statistics(rows, space, dtype, epsilon, centred)

    def kernel(
        x: np.ndarray,
        scale: np.ndarray | None,
        bias: np.ndarray | None,
        mean: np.ndarray | None,
        inverse: np.ndarray | None,
        *,
        out: np.ndarray,
        work: np.ndarray,
    ) -> np.ndarray:
        operand, target = rows.of(x)[:, :, 0], rows.of(out)[:, :, 0]
        factor, shift = (None if a is None else a if per_row else _flat(a, shape[first:]) for a in (scale, bias))

        def block(at: Block) -> None:
            v, y = operand[at.outer], target[at.outer]
            average, root = numbers[at.share](work)[:, : len(v)]
            v = statistics(at, v, average, root, y, work)
            np.multiply(v, root[:, None], out=y)
            if per_row:
                _by_part(y, at.outer, per_row, factor, shift)
            else:
                if factor is not None:
                    np.multiply(y, factor, out=y)
                if shift is not None:
                    np.add(y, shift, out=y)
            if mean is not None:
                mean.reshape(-1)[at.outer] = average
            if inverse is not None:
                inverse.reshape(-1)[at.outer] = root

        rows.run(block)
        return out

    return space.kernel(kernel)


def _flat(a: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A factor for the elements of a row, as an array of one axis (of size 1 where it is one number)."""
    return a.reshape(-1) if a.size in (1, int(np.prod(shape))) else np.broadcast_to(a, shape).reshape(-1)


def _by_part(y: np.ndarray, rows: slice, per_row: int, scale: np.ndarray | None, bias: np.ndarray | None) -> None:
    """Scale and shift the parts of some rows; `per_row` numbers for each row, counted round."""
    parts = y.reshape(len(y), per_row, -1)
    for factors, function in ((scale, np.multiply), (bias, np.add)):
        if factors is None:
            continue
        kinds = len(factors) // per_row  # of rows that follow each other, before the numbers begin again
        start = rows.start
        while start < rows.stop:
            kind = start % kinds
            stop = min(start - kind + kinds, rows.stop)
            some = parts[start - rows.start : stop - rows.start]
            function(some, factors[kind * per_row : (kind + stop - start) * per_row].reshape(-1, per_row, 1), out=some)
            start = stop


class _Statistics:
    """The means of rows and the inverses of their standard deviations."""

    def __init__(self, rows: Rows, space: Workspace, dtype: np.dtype, epsilon: float, centred: bool) -> None:
        along = rows.shape[1]
        self._dots = [RowDots(space, rows.columns[0], along, dtype) for _ in range(rows.shares)]
        self._count, self._epsilon, self._centred = dtype.type(max(along, 1)), dtype.type(epsilon), centred

    def __call__(
        self, at: Block, x: np.ndarray, mean: np.ndarray, inverse: np.ndarray, difference: np.ndarray, work: np.ndarray
    ) -> np.ndarray:
        """Both into the arrays given for them, one number for each row; the rows minus their means, or as they are."""
        if self._centred:
            np.divide(np.add.reduce(x, 1, out=mean), self._count, out=mean)
            x = np.subtract(x, mean[:, None], out=difference)
        self._dots[at.share](x, x, out=inverse, work=work)
        np.divide(inverse, self._count, out=inverse)
        np.add(inverse, self._epsilon, out=inverse)
        np.sqrt(inverse, out=inverse)
        np.reciprocal(inverse, out=inverse)
        return x


def normalise_grad(shape: Sequence[int], first: int, dtype: np.dtype, epsilon: float, *, centred: bool = True) -> Kernel:
    """A kernel ``(dy, x, scale, out=(dx, dscale, dbias))`` for the adjoint of `normalise`.

    Scale and bias have the axes of x from `first` on. What of `out` is None is not computed.
    """
    rows, space = Rows.over(shape, first), Workspace()
    along = rows.shape[1]
    spare = rows.temporaries(space, dtype, 2)
    numbers = rows.statistics(space, dtype, 3)
    statistics = _Statistics(rows, space, dtype, epsilon, centred)
    dots = [RowDots(space, rows.columns[0], along, dtype) for _ in range(rows.shares)]
    partial = space.array((2, len(rows.blocks), along), dtype)
    count = dtype.type(max(along, 1))

    def kernel(
        dy: np.ndarray,
        x: np.ndarray,
        scale: np.ndarray,
        *,
        out: tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None],
        work: np.ndarray,
    ) -> None:
        dx, dscale, dbias = out
        cotangents, operand = rows.of(dy)[:, :, 0], rows.of(x)[:, :, 0]
        target = None if dx is None else rows.of(dx)[:, :, 0]
        by_scale, by_bias = partial(work)
        factor = scale.reshape(-1)

        def block(at: Block) -> None:
            g, v = cotangents[at.outer], operand[at.outer]
            if dbias is not None:
                np.add.reduce(g, 0, out=by_bias[at.number])
            normalised, product = (t[: g.size].reshape(g.shape) for t in spare[at.share](work))
            average, root, common = numbers[at.share](work)[:, : len(g)]
            v = statistics(at, v, average, root, normalised, work)
            np.multiply(v, root[:, None], out=normalised)
            if dscale is not None:
                np.einsum("ij,ij->j", g, normalised, out=by_scale[at.number])
            if target is None:
                return
            np.multiply(g, factor, out=product)
            np.divide(dots[at.share](product, normalised, out=common, work=work), count, out=common)
            np.multiply(normalised, common[:, None], out=normalised)
            if centred:
                np.divide(np.add.reduce(product, 1, out=average), count, out=average)
                np.subtract(product, average[:, None], out=product)
            np.subtract(product, normalised, out=product)
            np.multiply(product, root[:, None], out=target[at.outer])

        rows.run(block)
        for result, parts in ((dscale, by_scale), (dbias, by_bias)):
            if result is not None:
                np.add.reduce(parts, 0, out=result.reshape(-1))

    return space.kernel(kernel)


def grouped_grad(batch: int, groups: int, each: int, length: int, dtype: np.dtype, epsilon: float) -> Kernel:
    """A kernel ``(dy, x, scale, out=(dx, dscale, dbias))`` for the adjoint of `normalise` with numbers for parts of rows.

    A row is a group of `each` channels of so many positions; there are `batch` times `groups` of them. What of `out` is None
    is not computed.
    """
    rows, space = Rows(batch * groups, each * length), Workspace()
    spare, numbers = rows.temporaries(space, dtype, 2), rows.statistics(space, dtype, 4)
    statistics = _Statistics(rows, space, dtype, epsilon, centred=True)
    most = rows.columns[0]
    dots = [RowDots(space, most * each, length, dtype) for _ in range(rows.shares)]
    factors = [space.array((most, each), dtype) for _ in range(rows.shares)]
    sums = space.array((2, batch * groups, each), dtype)
    kinds, count = np.arange(batch * groups) % max(groups, 1), dtype.type(max(each * length, 1))

    def kernel(
        dy: np.ndarray,
        x: np.ndarray,
        scale: np.ndarray,
        *,
        out: tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None],
        work: np.ndarray,
    ) -> None:
        dx, dscale, dbias = out
        cotangents, operand = rows.of(dy)[:, :, 0], rows.of(x)[:, :, 0]
        target = None if dx is None else rows.of(dx)[:, :, 0]
        by_scale, by_bias = sums(work)

        def block(at: Block) -> None:
            g, v = cotangents[at.outer], operand[at.outer]
            parts = (len(g) * each, length)
            share, s, t = dots[at.share], by_scale[at.outer], by_bias[at.outer]
            normalised, product = (room[: g.size].reshape(g.shape) for room in spare[at.share](work))
            average, root, first, second = numbers[at.share](work)[:, : len(g)]
            v = statistics(at, v, average, root, normalised, work)
            np.multiply(v, root[:, None], out=normalised)
            share(g.reshape(parts), normalised.reshape(parts), out=s.reshape(-1), work=work)
            share(g.reshape(parts), out=t.reshape(-1), work=work)
            if target is None:
                return
            factor = factors[at.share](work)[: len(g)]
            np.take(scale.reshape(groups, each), kinds[at.outer], 0, out=factor, mode="wrap")
            np.divide(np.einsum("rc,rc->r", factor, s, out=first), count, out=first)
            np.divide(np.einsum("rc,rc->r", factor, t, out=second), count, out=second)
            by_part = (len(g), each, length)
            np.multiply(g.reshape(by_part), factor[:, :, None], out=product.reshape(by_part))
            np.multiply(normalised, first[:, None], out=normalised)
            np.subtract(product, normalised, out=product)
            np.subtract(product, second[:, None], out=product)
            np.multiply(product, root[:, None], out=target[at.outer])

        rows.run(block)
        for result, total in ((dscale, by_scale), (dbias, by_bias)):
            if result is not None:
                np.add.reduce(total.reshape(batch, groups * each), 0, out=result)

    return space.kernel(kernel)
