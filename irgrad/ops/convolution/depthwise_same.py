"""Depthwise convolution of stride 1 that keeps the width of its images, the forms that numba compiles.

A row of the result is then as long as a row of the image, and planes need no room between their rows: what all windows read
at one offset is one contiguous run of a plane that is shifted by the offset, once its elements that came from the other end
of a neighbouring row are set to zero. That is done once for each column of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irgrad.op import Kernel, WorkspaceKernel
from irgrad.ops.convolution.problem import Problem, crews, result
from irgrad.ops.windows import Windows
from irgrad.runtime.jit import jit, read, write
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Place, Workspace, ranges

__all__ = ["Same", "forward", "weight_adjoint"]

_PIECES = 16  # ranges of planes, for threads to share
_LANES = 32  # loops run over multiples of so many elements where that does no harm: no rest is left to scalar code


def _rounded(count: int) -> int:
    return -(-count // _LANES) * _LANES


@dataclass(frozen=True)
class Same:
    """The layout of the copies of a plane, one for each column of the kernel.

    Attributes:
        area: elements of a plane of the image.
        span: elements of a plane of the result.
        pitch: from one copy to the next.
        top: zeros before a copy.
        starts: for each offset of a window (that of the columns the fastest), the first element that is read.
        shifts: of each copy.
        inside: [copies, elements]: 1 where a copy has an element of its plane, 0 where the padding is.
    """

    area: int
    span: int
    pitch: int
    top: int
    starts: np.ndarray
    shifts: np.ndarray
    inside: np.ndarray

    @staticmethod
    def of(windows: Windows, dtype: np.dtype) -> Same | None:
        """The layout for windows with two axes; None where they have another stride or change the width."""
        (height, width), (down, across) = windows.size, windows.counts
        if set(windows.strides) != {1} or width != across:
            return None
        rows = [a * windows.dilations[0] - windows.begins[0] for a in range(windows.kernel[0])]
        columns = [b * windows.dilations[1] - windows.begins[1] for b in range(windows.kernel[1])]
        area, span, top = height * width, down * width, max(0, -min(rows)) * width
        pitch = top + max(_rounded(area), max(rows) * width + _rounded(span)) + _LANES
        starts = [b * pitch + top + row * width for row in rows for b in range(len(columns))]
        inside = np.zeros((len(columns), _rounded(area)), dtype)
        for copy, shift in zip(inside, columns, strict=True):
            copy[:area].reshape(height, width)[:, max(0, -shift) : max(0, width - max(0, shift))] = 1
        return Same(area, span, pitch, top, np.array(starts, np.int64), np.array(columns, np.int64), inside)

    def room(self, space: Workspace, dtype: np.dtype) -> Place:
        return space.array((len(self.shifts) * self.pitch,), dtype)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.pitch, self.top, self.area, self.span


def forward(problem: Problem, same: Same, plain: WorkspaceKernel, reverse: bool = False) -> tuple[Callable[[], Kernel], int]:
    """What builds ``kernel(x, w, bias=None)``, the convolution, and the bytes that the kernel works in.

    Args:
        problem: a depthwise convolution.
        same: its layout.
        plain: for operands that are not contiguous.
        reverse: whether to convolve with reversed weights.
    """
    planes, taps, dtype = problem.images * problem.channels, len(same.starts), problem.dtype
    todo = crews(ranges(planes, _PIECES), 8 * problem.products)
    space = Workspace()
    rooms = [same.room(space, dtype) for _ in todo]
    nothing, zero = np.zeros(problem.filters, dtype), dtype.type(0)
    order = np.arange(taps, dtype=np.int64)[:: -1 if reverse else 1].copy()

    def build() -> Kernel:
        arrays = [read(dtype, 1), read(dtype, 2), read(dtype, 1), write(dtype, 1), write(dtype, 1), read(dtype, 2)]
        run = jit(_forward, *arrays, *[read(np.int64, 1)] * 3, *["int64"] * 6, dtype.name, reorder=True)

        def fast(
            x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
        ) -> Any:
            if not _contiguous(x, w, bias, out):
                return plain.function(x, w, *(() if bias is None else (bias,)), out=out, work=work)
            y = result(problem.y_shape, dtype, out)
            operands = (x.reshape(-1), w.reshape(-1, taps), nothing if bias is None else bias, y.reshape(-1))

            def some(share: int) -> None:
                copies = rooms[share](work)
                for a, e in todo[share]:
                    run(*operands, copies, same.inside, order, same.starts, same.shifts, *same.sizes, a, e, zero)

            parallel(some, range(len(todo)))
            return y

        return fast

    return build, space.size


def weight_adjoint(problem: Problem, same: Same, plain: WorkspaceKernel) -> tuple[Callable[[], Kernel], int]:
    """What builds ``kernel(x, dy)``, the adjoint in the weights, and the bytes that the kernel works in; see `forward`."""
    taps, dtype = len(same.starts), problem.dtype
    todo = crews(ranges(problem.channels, _PIECES), 8 * problem.products)
    space = Workspace()
    rooms, zero = [same.room(space, dtype) for _ in todo], dtype.type(0)

    def build() -> Kernel:
        arrays = [read(dtype, 1), read(dtype, 1), write(dtype, 2), write(dtype, 1), read(dtype, 2)]
        run = jit(_weight_adjoint, *arrays, *[read(np.int64, 1)] * 2, *["int64"] * 6, dtype.name, reorder=True)

        def fast(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> Any:
            if not _contiguous(x, dy, out):
                return plain.function(x, dy, out=out, work=work)
            dw = result(problem.w_shape, dtype, out)
            operands = (x.reshape(-1), dy.reshape(-1), dw.reshape(-1, taps))

            def some(share: int) -> None:
                copies = rooms[share](work)
                for a, e in todo[share]:
                    run(*operands, copies, same.inside, same.starts, same.shifts, *same.sizes, a, e, zero)

            parallel(some, range(len(todo)))
            return dw

        return fast

    return build, space.size


def _contiguous(*arrays: np.ndarray | None) -> bool:
    return all(a is None or a.flags.c_contiguous for a in arrays)


# --- what numba compiles, for the same reasons as in `depthwise_loops` with unsigned positions ---------------------------


def _forward(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
    copies: np.ndarray,
    inside: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    shifts: np.ndarray,
    pitch: int,
    top: int,
    area: int,
    span: int,
    first: int,
    last: int,
    zero: float,
) -> None:
    """Some planes of the convolution.

    The images x and the result y are flat, w is [channels, taps] and the bias [channels]. There is room for the copies of a
    plane; `inside`, `starts`, `shifts` and what follows are those of `Same`, and `order` is the tap for each of the starts.
    """
    channels, taps = w.shape
    wide, long = inside.shape[1], (span + 31) // 32 * 32
    masks = inside.reshape(-1)
    for i in range(len(copies)):
        copies[i] = 0
    for p in range(first, last):
        c = p % channels
        for b in range(len(shifts)):
            begin = p * area + shifts[b]
            skip = max(0, -begin)
            to, source, mask = np.uint64(b * pitch + top + skip), np.uint64(begin + skip), np.uint64(b * wide + skip)
            for i in range(np.uint64(max(0, min(wide, len(x) - begin) - skip))):
                v = x[source + i]
                copies[to + i] = v if masks[mask + i] != 0 else zero
        out = np.uint64(p * span)
        n = np.uint64(long if p * span + long <= last * span else span)  # the next plane is not yet there
        for i in range(n):
            y[out + i] = bias[c]
        k = 0
        while k + 6 <= taps:
            w0, w1, w2 = w[c, order[k]], w[c, order[k + 1]], w[c, order[k + 2]]
            w3, w4, w5 = w[c, order[k + 3]], w[c, order[k + 4]], w[c, order[k + 5]]
            p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
            p3, p4, p5 = np.uint64(starts[k + 3]), np.uint64(starts[k + 4]), np.uint64(starts[k + 5])
            for i in range(n):
                three = w0 * copies[p0 + i] + w1 * copies[p1 + i] + w2 * copies[p2 + i]
                y[out + i] += three + w3 * copies[p3 + i] + w4 * copies[p4 + i] + w5 * copies[p5 + i]
            k += 6
        while k + 3 <= taps:
            w0, w1, w2 = w[c, order[k]], w[c, order[k + 1]], w[c, order[k + 2]]
            p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
            for i in range(n):
                y[out + i] += w0 * copies[p0 + i] + w1 * copies[p1 + i] + w2 * copies[p2 + i]
            k += 3
        while k < taps:
            w0, p0 = w[c, order[k]], np.uint64(starts[k])
            for i in range(n):
                y[out + i] += w0 * copies[p0 + i]
            k += 1


def _weight_adjoint(
    x: np.ndarray,
    dy: np.ndarray,
    dw: np.ndarray,
    copies: np.ndarray,
    inside: np.ndarray,
    starts: np.ndarray,
    shifts: np.ndarray,
    pitch: int,
    top: int,
    area: int,
    span: int,
    first: int,
    last: int,
    zero: float,
) -> None:
    """Some channels of the adjoint in the weights.

    The images x and the maps dy are flat, dw is [channels, taps]. There is room for the copies of a plane; `inside`,
    `starts`, `shifts` and what follows are those of `Same`.
    """
    channels, taps = dw.shape
    wide = inside.shape[1]
    masks = inside.reshape(-1)
    for i in range(len(copies)):
        copies[i] = 0
    for c in range(first, last):
        for k in range(taps):
            dw[c, k] = 0
        for p in range(c, len(x) // area, channels):
            for b in range(len(shifts)):
                begin = p * area + shifts[b]
                skip = max(0, -begin)
                to, source, mask = np.uint64(b * pitch + top + skip), np.uint64(begin + skip), np.uint64(b * wide + skip)
                for i in range(np.uint64(max(0, min(wide, len(x) - begin) - skip))):
                    v = x[source + i]
                    copies[to + i] = v if masks[mask + i] != 0 else zero
            at, n = np.uint64(p * span), np.uint64(span)
            k = 0
            while k + 3 <= taps:
                p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
                s0 = s1 = s2 = zero
                for i in range(n):
                    d = dy[at + i]
                    s0 += d * copies[p0 + i]
                    s1 += d * copies[p1 + i]
                    s2 += d * copies[p2 + i]
                dw[c, k] += s0
                dw[c, k + 1] += s1
                dw[c, k + 2] += s2
                k += 3
            while k < taps:
                p0 = np.uint64(starts[k])
                s0 = zero
                for i in range(n):
                    s0 += dy[at + i] * copies[p0 + i]
                dw[c, k] += s0
                k += 1
