"""What windows read of images as views, and the adjoint of that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from irgrad.ops.windows import Windows

__all__ = ["add_windows", "view_windows"]


def view_windows(x: np.ndarray, windows: Windows) -> np.ndarray:
    """What every window reads of images [N, C, *windows.size], as a view [N, C, *windows.kernel, *windows.counts]."""
    image = _reached(x, windows)
    strides = image.strides
    return as_strided(
        image,
        (*image.shape[:2], *windows.kernel, *windows.counts),
        (
            *strides[:2],
            *(s * d for s, d in zip(strides[2:], windows.dilations, strict=True)),
            *(s * d for s, d in zip(strides[2:], windows.strides, strict=True)),
        ),
        writeable=False,
    )


def add_windows(x: np.ndarray, columns: np.ndarray, windows: Windows) -> None:
    """The adjoint of `view_windows`, in place: what every window has, added to where in the images x it reads that.

    Args:
        x: images [N, C, *windows.size].
        columns: [C, *windows.kernel, N, *windows.counts].
        windows: where.
    """
    target = x.swapaxes(0, 1)
    for offset, where, position in windows.offsets():
        view = target[(slice(None), slice(None), *position)]
        place: tuple[Any, ...] = (slice(None), *offset, slice(None), *where)
        np.add(view, columns[place], out=view)


def _reached(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The part of images that windows reach, zeros where that is padding."""
    if not any(windows.begins) and all(tail <= 0 for tail in windows.tails):
        return x
    reach = [n + begin + tail for n, begin, tail in zip(windows.size, windows.begins, windows.tails, strict=True)]
    padded = np.zeros((*x.shape[:2], *reach), x.dtype)
    inside: list[slice] = []
    source: list[slice] = []
    for n, begin, tail in zip(windows.size, windows.begins, windows.tails, strict=True):
        first, stop = max(0, -begin), n + min(tail, 0)
        source.append(slice(first, max(first, stop)))
        inside.append(slice(first + begin, max(first, stop) + begin))
    padded[(slice(None), slice(None), *inside)] = x[(slice(None), slice(None), *source)]
    return padded
