"""Statistics and linear functions of the channels (axis 1) of an array, block by block.

Arrays are seen as [batch, channel, position]; what belongs to a channel is an array of one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from irgrad.kernels.rows import BLOCK
from irgrad.kernels.sums import Sum
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Place, Workspace

__all__ = ["ChannelBlock", "Channels"]

_WORTH = 1 << 16


@dataclass(frozen=True)
class ChannelBlock:
    """A part of an array.

    Attributes:
        batch, channels: which part.
        share: by whom of those that work at the same time it is worked on.
        row: its place among the blocks of the same channels.
    """

    batch: slice
    channels: slice
    share: int
    row: int

    def of(self, x: np.ndarray) -> np.ndarray:
        """The part of an array of three axes."""
        return x[self.batch, self.channels]


class Channels:
    """How an array is cut into blocks of whole channels of some batch elements.

    Attributes:
        shape: the numbers of batch elements, channels and positions.
        count: the number of elements of a channel.
        temporary: for each share room for an array of the size of a block.
    """

    def __init__(self, space: Workspace, shape: Sequence[int], dtype: np.dtype) -> None:
        batch, channels = shape[0], shape[1] if len(shape) > 1 else 1
        length = prod(shape[2:])
        self.shape = batch, channels, length
        self.count = batch * length
        self._space, self._dtype = space, dtype
        some = min(channels, max(1, BLOCK // max(length, 1)))
        several = max(1, min(batch, BLOCK // max(some * length, 1)))
        size = batch * channels * length
        self._rows = -(-batch // several) if size else 0
        count = self._rows * -(-channels // some) if size else 0
        shares = max(1, min(threads(), count, size // _WORTH))
        if size and several > 1 and count < 4 * shares:
            several = max(1, min(several, batch // (4 * shares)))
            self._rows = -(-batch // several)
        blocks: list[ChannelBlock] = []
        for row in range(self._rows):
            for first in range(0, channels, some):
                at = slice(row * several, min((row + 1) * several, batch)), slice(first, min(first + some, channels))
                blocks.append(ChannelBlock(*at, len(blocks) % shares, row))
        self._shared = [blocks[share::shares] for share in range(shares)]
        self.temporary: list[Place] = [space.array((several * some * length,), dtype) for _ in range(shares)]

    def of(self, x: np.ndarray) -> np.ndarray:
        """An array in the three axes."""
        return x.reshape(self.shape)

    def run(self, function: Callable[[ChannelBlock], Any]) -> None:
        """Call a function for every block."""

        def work(blocks: Sequence[ChannelBlock]) -> None:
            for block in blocks:
                function(block)

        parallel(work, self._shared)

    def spare(self, at: ChannelBlock, like: np.ndarray, work: np.ndarray) -> np.ndarray:
        """Room of the share that works on a block, in the shape of that."""
        return self.temporary[at.share](work)[: like.size].reshape(like.shape)

    def sum(self) -> Sum:
        """Sums over all but the channels."""
        return Sum(self._space, self.shape, (0, 2), self._dtype)

    def partial(self) -> Place:
        """Room for one number for each channel from each row of blocks: what `total` adds up."""
        return self._space.array((max(self._rows, 1), self.shape[1]), self._dtype)

    @staticmethod
    def dot(at: ChannelBlock, x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> None:
        """The sums of the products of a block for each channel, into its place in `parts`."""
        np.einsum("ncl,ncl->c", x, y, out=parts[at.row, at.channels])

    def total(self, parts: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The sums of what was put into `parts`."""
        if not self._rows:
            out.fill(0)
            return out
        result: np.ndarray = np.add.reduce(parts, 0, out=out)
        return result

    def linear(self, x: np.ndarray, factor: np.ndarray, shift: np.ndarray | None, out: np.ndarray) -> None:
        """``x · factor + shift`` for each channel, into `out`, which may be x."""
        operand, target, scale = self.of(x), self.of(out), self._column(factor)
        offset = None if shift is None else self._column(shift)

        def block(at: ChannelBlock) -> None:
            y = at.of(target)
            np.multiply(at.of(operand), scale[at.channels], out=y)
            if offset is not None:
                np.add(y, offset[at.channels], out=y)

        self.run(block)

    @staticmethod
    def _column(v: np.ndarray) -> np.ndarray:
        return v.reshape(-1, 1)
