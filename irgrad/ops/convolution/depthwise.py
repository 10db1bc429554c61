"""The adjoints of depthwise convolution, a filter for each channel, by shifted runs of planes laid out flat (see `flat`).

The convolution itself, and its adjoint in the images for stride 1, are faster by im2col: products of matrices with vectors.
"""

from __future__ import annotations

from math import prod

import numpy as np

from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution.flat import flat_of
from irgrad.ops.convolution.problem import Problem, crews, result
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Workspace

__all__ = ["image_adjoint", "serves", "weight_adjoint"]

_BLOCK = 1 << 18  # bytes of planes laid out at a time: they and two arrays of the same size stay in the second-level cache


def serves(problem: Problem) -> bool:
    """Whether a problem is a depthwise convolution with one filter for each channel."""
    return problem.groups == problem.channels == problem.filters > 1


class _Plan:
    """The planes of a problem, some channels at a time, shared out.

    Args:
        problem: a depthwise convolution.
        space: where to lay out.
        by_channel: whether all images of a channel go to the same thread.
    """

    def __init__(self, problem: Problem, space: Workspace, by_channel: bool) -> None:
        self.problem = problem
        self.flat = flat = flat_of(problem.windows)
        most = max(1, _BLOCK // (flat.length * problem.dtype.itemsize))
        step = min(most, -(-problem.channels // threads()))
        channels = [slice(c, min(c + step, problem.channels)) for c in range(0, problem.channels, step)]
        images = [range(problem.images)] if by_channel else [range(n, n + 1) for n in range(problem.images)]
        items = [(some, c) for some in images for c in channels]
        self.crews: list[list[tuple[range, slice]]] = [list(crew) for crew in crews(items, 8 * problem.products)]
        self._planes = [space.array((step, *flat.shape), problem.dtype) for _ in self.crews]
        self._sums = [space.array((step, prod(flat.pitch)), problem.dtype) for _ in self.crews]
        self._terms = [space.array((step, flat.span), problem.dtype) for _ in self.crews]

    def arrays(self, share: int, work: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Room for one share: planes [channels, residues, *shape], sums and terms [channels, windows with the surplus]."""
        return self._planes[share](work), self._sums[share](work), self._terms[share](work)

    def lay_out(self, planes: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Planes [channels, *size], without the padding, as runs [channels, length]."""
        for written, read in self.flat.copies:
            np.copyto(planes[(slice(None), *written)][:, 0], x[(slice(None), *read)])
        return planes.reshape(len(planes), -1)

    def clear(self, planes: np.ndarray) -> None:
        """Set the padding to zero."""
        for box in self.flat.zeros:
            planes[(slice(None), *box)] = 0

    def windows_of(self, sums: np.ndarray) -> np.ndarray:
        """The windows [channels, *counts] in an array that has the surplus too."""
        inside = tuple(slice(0, count) for count in self.problem.windows.counts)
        return sums.reshape(len(sums), *self.flat.pitch)[(slice(None), *inside)]


def image_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images."""
    space = Workspace()
    plan = _Plan(problem, space, by_channel=False)
    starts, span = plan.flat.starts.tolist(), plan.flat.span
    partial = sum(prod(len(range(*s.indices(n))) for s, n in zip(read, problem.windows.size, strict=True))
                  for _, read in plan.flat.copies) < prod(problem.windows.size)  # fmt: skip

    def run(dy: np.ndarray, w: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dx = result(problem.x_shape, problem.dtype, out)
        weights = w.reshape(problem.filters, -1)

        def some(share: int) -> None:
            planes, sums, terms = plan.arrays(share, work)
            sums.fill(0)
            for images, channels in plan.crews[share]:
                count = channels.stop - channels.start
                cotangents, term = sums[:count], terms[:count]
                runs = planes[:count].reshape(count, -1)
                for n in images:
                    np.copyto(plan.windows_of(cotangents), dy[n, channels])
                    runs.fill(0)
                    for k, start in enumerate(starts):
                        view = runs[:, start : start + span]
                        np.multiply(cotangents[:, :span], weights[channels, k : k + 1], out=term)
                        np.add(view, term, out=view)
                    target = dx[n, channels]
                    if partial:
                        target.fill(0)
                    for written, read in plan.flat.copies:
                        np.copyto(target[(slice(None), *read)], planes[:count][(slice(None), *written)][:, 0])

        parallel(some, range(len(plan.crews)))
        return dx

    return space.kernel(run)


def weight_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights."""
    space = Workspace()
    plan = _Plan(problem, space, by_channel=True)
    starts, span = plan.flat.starts.tolist(), plan.flat.span

    def run(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dw = result(problem.w_shape, problem.dtype, out)
        weights = dw.reshape(problem.filters, -1)

        def some(share: int) -> None:
            planes, sums, terms = plan.arrays(share, work)
            plan.clear(planes)
            sums.fill(0)
            for images, channels in plan.crews[share]:
                count = channels.stop - channels.start
                cotangents = sums[:count]
                found = _Dots(cotangents[:, :span], terms[:count])
                for n in images:
                    np.copyto(plan.windows_of(cotangents), dy[n, channels])
                    runs = plan.lay_out(planes[:count], x[n, channels])
                    for k, start in enumerate(starts):
                        found.add(runs[:, start : start + span], weights[channels, k], first=n == images.start)

        parallel(some, range(len(plan.crews)))
        return dw

    return space.kernel(run)


class _Dots:
    """Products of rows with those of another array [rows, length], summed.

    Args:
        left: the rows.
        room: of the same shape; the first column is used.
    """

    def __init__(self, left: np.ndarray, room: np.ndarray) -> None:
        self._left = left[:, None]
        self._found = room[:, :1, None]

    def add(self, right: np.ndarray, total: np.ndarray, first: bool) -> None:
        np.matmul(self._left, right[:, :, None], out=self._found)
        if first:
            np.copyto(total, self._found[:, 0, 0])
        else:
            np.add(total, self._found[:, 0, 0], out=total)
