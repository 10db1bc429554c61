"""Memory that is handed out: the caller's as long as he has an array on it, ours again when he has let it go."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from irgrad.graph import Node, Value
from irgrad.runtime.arena import ALIGNMENT
from irgrad.runtime.liveness import Buffer

__all__ = ["Place", "Returned", "What", "memory_of"]

Place: TypeAlias = "tuple[Any, Any]"
"""A list and a position in it (or a dict and a key): where an array has to be put."""

What: TypeAlias = "Value | Node"
"""What has memory: a result, or a node for its kernel's workspace."""


class Returned:
    """The memory of something that is returned: the caller's, as long as he has it; ours again when he has let it go.

    Every array on it, the caller's too, refers to the one array that owns the memory: when nobody but ourselves does, the
    memory is free.
    """

    _KEPT = 3  # pieces of memory kept for one result

    def __init__(self, buffer: Buffer) -> None:
        self._size = buffer.size
        self._bound = [_Bound(memory_of(buffer.size))]
        self._places: list[tuple[What, list[Place]]] = []

    @property
    def memory(self) -> np.ndarray:
        """The memory that the next run writes to."""
        return self._bound[0].memory

    def settle(self, arrays: Mapping[What, np.ndarray], places: Mapping[What, list[Place]]) -> None:
        """Note which arrays lie on the memory and where they are wanted; nothing has been handed out yet."""
        self._places = [(what, places[what]) for what in arrays if what in places]
        self._bound[0].settle(arrays)

    def renew(self) -> None:
        """Before a run: if somebody has the memory still, take other memory."""
        current = self._bound[0]
        if current.is_free():
            return
        for index, bound in enumerate(self._bound):
            if bound.is_free():
                del self._bound[index]
                break
        else:
            bound = _Bound(memory_of(self._size))
            bound.settle(current.arrays_on(bound.memory))
        self._bound = [bound, *self._bound[: self._KEPT - 1]]
        for what, places in self._places:
            array = bound.arrays[what]
            for operands, index in places:
                operands[index] = array


class _Bound:
    """A piece of memory with the arrays that lie on it."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.arrays: Mapping[What, np.ndarray] = {}
        self._alone = 0

    def settle(self, arrays: Mapping[What, np.ndarray]) -> None:
        """Take note of the arrays; nobody else has any at this moment."""
        self.arrays = arrays
        self._alone = self._references()

    def is_free(self) -> bool:
        """Whether nobody else has an array on the memory."""
        return self._references() <= self._alone

    def _references(self) -> int:
        return sys.getrefcount(self.memory.base)

    def arrays_on(self, memory: np.ndarray) -> dict[What, np.ndarray]:
        """Arrays of the same layout on other memory."""
        start = _address(self.memory)
        return {
            value: np.ndarray(a.shape, a.dtype, memory, _address(a) - start, a.strides) for value, a in self.arrays.items()
        }


def memory_of(size: int) -> np.ndarray:
    """So many bytes, aligned; whatever lies on them refers to one array that owns them."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    begin = -_address(raw) % ALIGNMENT
    return raw[begin : begin + size]


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
