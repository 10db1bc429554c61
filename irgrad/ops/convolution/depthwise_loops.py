"""Loops of depthwise convolution over planes that are laid out flat, for numba to compile; see `depthwise_compiled`.

Positions are unsigned and nothing is sliced: LLVM makes vectors of loops over such positions, and planes are too small for
the cost of a slice. Taps are taken six or three at a time: with more runs LLVM gives up proving that the sums are not among
them.
"""

from __future__ import annotations

import numpy as np

__all__ = ["forward", "image_adjoint", "weight_adjoint"]


def forward(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
    plane: np.ndarray,
    sums: np.ndarray,
    starts: np.ndarray,
    parts: np.ndarray,
    height: int,
    pitch: int,
    first: int,
    last: int,
) -> None:
    """Some planes of the convolution.

    The images x are [images * channels, height, width], the result y [images * channels, *counts], w is [channels, taps] and
    the bias [channels]. There is room for a plane that is laid out, and for sums: the windows with the surplus. The `starts`
    are those of `Flat`, the `parts` those of `Layout`; height and pitch are those of the planes of residues.
    """
    channels, taps = w.shape
    span = np.uint64(len(sums))
    for i in range(len(plane)):
        plane[i] = 0
    for p in range(first, last):
        c = p % channels
        for part in range(parts.shape[0]):
            base = parts[part, 0] * height * pitch
            row_step, column_step = parts[part, 7], np.uint64(parts[part, 8])
            count = np.uint64(parts[part, 4] - parts[part, 3])
            for r in range(parts[part, 1], parts[part, 2]):
                row = np.uint64(parts[part, 5] + (r - parts[part, 1]) * row_step)
                to, column = np.uint64(base + r * pitch + parts[part, 3]), np.uint64(parts[part, 6])
                if column_step == 1:
                    for i in range(count):
                        plane[to + i] = x[p, row, column + i]
                else:
                    for i in range(count):
                        plane[to + i] = x[p, row, column + i * column_step]
        b = bias[c]
        for i in range(span):
            sums[i] = b
        k = 0
        while k + 6 <= taps:
            w0, w1, w2, w3, w4, w5 = w[c, k], w[c, k + 1], w[c, k + 2], w[c, k + 3], w[c, k + 4], w[c, k + 5]
            p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
            p3, p4, p5 = np.uint64(starts[k + 3]), np.uint64(starts[k + 4]), np.uint64(starts[k + 5])
            for i in range(span):
                sums[i] += (
                    w0 * plane[p0 + i]
                    + w1 * plane[p1 + i]
                    + w2 * plane[p2 + i]
                    + w3 * plane[p3 + i]
                    + w4 * plane[p4 + i]
                    + w5 * plane[p5 + i]
                )
            k += 6
        while k + 3 <= taps:
            w0, w1, w2 = w[c, k], w[c, k + 1], w[c, k + 2]
            p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
            for i in range(span):
                sums[i] += w0 * plane[p0 + i] + w1 * plane[p1 + i] + w2 * plane[p2 + i]
            k += 3
        while k < taps:
            w0, p0 = w[c, k], np.uint64(starts[k])
            for i in range(span):
                sums[i] += w0 * plane[p0 + i]
            k += 1
        for r in range(y.shape[1]):
            found = np.uint64(r * pitch)
            for i in range(np.uint64(y.shape[2])):
                y[p, r, i] = sums[found + i]


def image_adjoint(
    dy: np.ndarray,
    w: np.ndarray,
    dx: np.ndarray,
    padded: np.ndarray,
    sums: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    bounds: np.ndarray,
    parts: np.ndarray,
    before: int,
    pitch: int,
    first: int,
    last: int,
) -> None:
    """Some planes of the adjoint in the images.

    The maps dy are [images * channels, *counts], the result dx [images * channels, height, width], w is [channels, taps].
    There is room for the cotangents of a plane with the surplus, after so many zeros as `before` says, and for sums: the
    plane of a residue. In `order`, taps of the same residue lie together, from one of the `bounds` to the next; for each of
    these, `starts` is the first element of `padded` that it is multiplied with. The `parts` are those of `Layout`, the pitch
    is that of the planes of residues.
    """
    channels = w.shape[0]
    size = np.uint64(len(sums))
    for i in range(len(padded)):
        padded[i] = 0
    for p in range(first, last):
        c = p % channels
        for r in range(dy.shape[1]):
            to = np.uint64(before + r * pitch)
            for i in range(np.uint64(dy.shape[2])):
                padded[to + i] = dy[p, r, i]
        for r in range(dx.shape[1]):
            for i in range(dx.shape[2]):
                dx[p, r, i] = 0
        for part in range(parts.shape[0]):
            residue = parts[part, 0]
            for i in range(size):
                sums[i] = 0
            k, end = bounds[residue], bounds[residue + 1]
            while k + 6 <= end:
                w0, w1, w2 = w[c, order[k]], w[c, order[k + 1]], w[c, order[k + 2]]
                w3, w4, w5 = w[c, order[k + 3]], w[c, order[k + 4]], w[c, order[k + 5]]
                p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
                p3, p4, p5 = np.uint64(starts[k + 3]), np.uint64(starts[k + 4]), np.uint64(starts[k + 5])
                for i in range(size):
                    sums[i] += (
                        w0 * padded[p0 + i]
                        + w1 * padded[p1 + i]
                        + w2 * padded[p2 + i]
                        + w3 * padded[p3 + i]
                        + w4 * padded[p4 + i]
                        + w5 * padded[p5 + i]
                    )
                k += 6
            while k + 3 <= end:
                w0, w1, w2 = w[c, order[k]], w[c, order[k + 1]], w[c, order[k + 2]]
                p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
                for i in range(size):
                    sums[i] += w0 * padded[p0 + i] + w1 * padded[p1 + i] + w2 * padded[p2 + i]
                k += 3
            while k < end:
                w0, p0 = w[c, order[k]], np.uint64(starts[k])
                for i in range(size):
                    sums[i] += w0 * padded[p0 + i]
                k += 1
            row_step, column_step = parts[part, 7], np.uint64(parts[part, 8])
            count = np.uint64(parts[part, 4] - parts[part, 3])
            for r in range(parts[part, 1], parts[part, 2]):
                row = np.uint64(parts[part, 5] + (r - parts[part, 1]) * row_step)
                found, column = np.uint64(r * pitch + parts[part, 3]), np.uint64(parts[part, 6])
                if column_step == 1:
                    for i in range(count):
                        dx[p, row, column + i] = sums[found + i]
                else:
                    for i in range(count):
                        dx[p, row, column + i * column_step] = sums[found + i]


def weight_adjoint(
    x: np.ndarray,
    dy: np.ndarray,
    dw: np.ndarray,
    plane: np.ndarray,
    cotangents: np.ndarray,
    starts: np.ndarray,
    parts: np.ndarray,
    height: int,
    pitch: int,
    first: int,
    last: int,
    zero: float,
) -> None:
    """Some channels of the adjoint in the weights.

    The images x are [images * channels, height, width], the maps dy [images * channels, *counts], dw is [channels, taps].
    There is room for a plane that is laid out, and for the cotangents: the windows with the surplus. The `starts` are those
    of `Flat`, the `parts` those of `Layout`; height and pitch are those of the planes of residues.
    """
    channels, taps = dw.shape
    span = np.uint64(len(cotangents))
    for i in range(len(plane)):
        plane[i] = 0
    for i in range(span):
        cotangents[i] = 0
    for c in range(first, last):
        for k in range(taps):
            dw[c, k] = 0
        for p in range(c, x.shape[0], channels):
            for part in range(parts.shape[0]):
                base = parts[part, 0] * height * pitch
                row_step, column_step = parts[part, 7], np.uint64(parts[part, 8])
                count = np.uint64(parts[part, 4] - parts[part, 3])
                for r in range(parts[part, 1], parts[part, 2]):
                    row = np.uint64(parts[part, 5] + (r - parts[part, 1]) * row_step)
                    to, column = np.uint64(base + r * pitch + parts[part, 3]), np.uint64(parts[part, 6])
                    if column_step == 1:
                        for i in range(count):
                            plane[to + i] = x[p, row, column + i]
                    else:
                        for i in range(count):
                            plane[to + i] = x[p, row, column + i * column_step]
            for r in range(dy.shape[1]):
                to = np.uint64(r * pitch)
                for i in range(np.uint64(dy.shape[2])):
                    cotangents[to + i] = dy[p, r, i]
            k = 0
            while k + 3 <= taps:
                p0, p1, p2 = np.uint64(starts[k]), np.uint64(starts[k + 1]), np.uint64(starts[k + 2])
                s0 = s1 = s2 = zero
                for i in range(span):
                    d = cotangents[i]
                    s0 += d * plane[p0 + i]
                    s1 += d * plane[p1 + i]
                    s2 += d * plane[p2 + i]
                dw[c, k] += s0
                dw[c, k + 1] += s1
                dw[c, k + 2] += s2
                k += 3
            while k < taps:
                p0 = np.uint64(starts[k])
                s0 = zero
                for i in range(span):
                    s0 += cotangents[i] * plane[p0 + i]
                dw[c, k] += s0
                k += 1
