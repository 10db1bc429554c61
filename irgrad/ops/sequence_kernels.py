"""Sequences as lists of arrays: places in them, joining, sums and zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.runtime.kernels import accumulation_dtype

__all__ = ["join", "place_of", "sum_of_sequences", "zeros_of_sequence"]


def place_of(position: np.ndarray, length: int, last: int | None = None) -> int:
    """A position in a sequence of some length, counted from the start.

    Args:
        position: one integer; a negative one counts from the end.
        length: of the sequence.
        last: the largest position; that of the last element by default.

    Raises:
        IndexError: there is no such place.
    """
    index, last = int(position.item()), length - 1 if last is None else last
    if not -length <= index <= last:
        raise IndexError(f"the position {index} is out of range for a sequence of {length} elements")
    return index + length if index < 0 else index


def join(sequence: Sequence[np.ndarray], axis: int, new_axis: bool, out: np.ndarray | None = None) -> np.ndarray:
    """The elements as one array, along one of their axes or along a new one.

    Raises:
        ValueError: there is none, so that nothing says which shape the result has.
    """
    if not sequence:
        raise ValueError("a sequence without elements cannot be joined")
    return np.stack(sequence, axis, out=out) if new_axis else np.concatenate(sequence, axis, out=out)


def zeros_of_sequence(sequence: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Zeros of the shapes of the elements: one zero each, seen as often as there are elements."""
    return [np.broadcast_to(np.zeros((), element.dtype), element.shape) for element in sequence]


def sum_of_sequences(sequences: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The sums of the elements at the same places.

    The cotangents that a sequence gets from its elements are zero almost everywhere: adding these up costs nothing.

    Raises:
        ValueError: the sequences have different lengths.
    """
    lengths = sorted({len(sequence) for sequence in sequences})
    if len(lengths) > 1:
        raise ValueError(f"sequences of different lengths cannot be added: {', '.join(map(str, lengths))}")
    sums = []
    for elements in zip(*sequences, strict=True):
        filled = [element for element in elements if not _is_one_zero(element)]
        sums.append(_sum(filled) if filled else elements[0])
    return sums


def _sum(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    dtype = arrays[0].dtype
    wide = accumulation_dtype(dtype) if len(arrays) > 2 else dtype  # in between, sums of 16-bit floats are float32
    total = np.add(arrays[0], arrays[1], dtype=wide)
    for array in arrays[2:]:
        total = np.add(total, array)
    return np.asarray(total).astype(dtype, copy=False)


def _is_one_zero(array: np.ndarray) -> bool:
    """Whether this is one zero, seen many times."""
    return array.size > 1 and not any(array.strides) and not array.flat[0]
