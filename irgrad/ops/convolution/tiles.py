"""Winograd's transforms of images as products with small banded matrices, one for each axis.

An axis is cut into tiles of m outputs, and tiles into chunks, since the cost of a banded matrix grows with its width. The
matrices of a chunk do all that a transform has to do apart from sums: they cut out tiles that overlap, pad with zeros, skip
the positions between those of a dilated kernel, and drop the outputs of the last tile that are not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from irgrad.ops.convolution.cook_toom import short_convolution
from irgrad.ops.windows import Windows

__all__ = ["Chunk", "chunks_of"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """A run of tiles along one axis.

    Attributes:
        tiles: how many, t.
        inputs: the part of the image that they read.
        outputs: the part of the result that they give.
        to_inputs: Bᵀ of all tiles, [n, t, inputs] as [n * t, inputs].
        to_outputs: Aᵀ of all tiles, [outputs, n * t].
        from_outputs: the transpose of that, contiguous.
    """

    tiles: int
    inputs: slice
    outputs: slice
    to_inputs: np.ndarray
    to_outputs: np.ndarray
    from_outputs: np.ndarray

    @property
    def input_size(self) -> int:
        return int(self.inputs.stop - self.inputs.start)

    @property
    def output_size(self) -> int:
        return int(self.outputs.stop - self.outputs.start)


def chunks_of(windows: Windows, axis: int, m: int, most: int, dtype: np.dtype) -> list[Chunk]:
    """The chunks of one axis of windows of stride 1.

    Args:
        windows: where.
        axis: which.
        m: outputs of a tile.
        most: about as many outputs as a chunk should have.
        dtype: of the matrices.
    """
    return _chunks(
        windows.size[axis],
        windows.counts[axis],
        windows.begins[axis],
        windows.dilations[axis],
        windows.kernel[axis],
        m,
        most,
        dtype,
    )


@lru_cache(maxsize=256)
def _chunks(size: int, count: int, begin: int, dilation: int, k: int, m: int, most: int, dtype: np.dtype) -> list[Chunk]:
    step = m * dilation
    pieces = max(1, round(count / most))
    tiles = -(-count // step)
    each = -(-tiles // pieces) * step
    return [
        _chunk(range(start, min(start + each, count)), size, begin, dilation, k, m, dtype) for start in range(0, count, each)
    ]


def _chunk(outputs: range, size: int, begin: int, dilation: int, k: int, m: int, dtype: np.dtype) -> Chunk:
    short = short_convolution(m, k)
    n = m + k - 1
    low = min(max(outputs.start - begin, 0), size - 1)
    high = max(min(outputs.stop + (k - 1) * dilation - begin, size), low + 1)
    starts = [
        first
        for phase in range(min(dilation, len(outputs)))
        for first in range(outputs.start + phase, outputs.stop, m * dilation)
    ]
    to_inputs = np.zeros((n, len(starts), high - low))
    to_outputs = np.zeros((len(outputs), n, len(starts)))
    for t, start in enumerate(starts):
        for a in range(n):
            position = start + a * dilation - begin
            if low <= position < high:
                to_inputs[:, t, position - low] = short.inputs[:, a]
        for i in range(m):
            output = start + i * dilation
            if output in outputs:
                to_outputs[output - outputs.start, :, t] = short.outputs[i]
    flat = to_outputs.reshape(len(outputs), -1).astype(dtype)
    return Chunk(
        len(starts),
        slice(low, high),
        slice(outputs.start, outputs.stop),
        to_inputs.reshape(-1, high - low).astype(dtype),
        flat,
        np.ascontiguousarray(flat.T),
    )
