"""Comparing what a graph returned: arrays, lists of arrays (sequences), nothing (an empty optional)."""

from __future__ import annotations

from typing import Any

import numpy as np

from irgrad.testing.case import leaves, mapped
from irgrad.types import OptionalType, SequenceType, TensorType, Type, types_compatible

__all__ = ["assert_close", "assert_type"]


def assert_type(result: Any, type: Type) -> None:
    """A result is what its type says: its dtype, and the dimensions that are known.

    Raises:
        AssertionError: it is not.
    """
    if isinstance(type, OptionalType):
        if result is not None:
            assert_type(result, type.element)
    elif isinstance(type, SequenceType):
        for element in result:
            assert_type(element, type.element)
    else:
        actual = TensorType.of(result)
        assert types_compatible(type, actual), f"a result is {actual}, but by its inferred type it is {type}"


def assert_close(result: Any, want: Any, what: str = "", *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Two results have the same structure, shapes, and elements; NaN equals NaN. Dtypes may differ.

    Args:
        result: an array, a list of arrays, or None.
        want: what it should be.
        what: a name for the message.
        rtol: relative tolerance.
        atol: absolute tolerance; where both are 0, elements are equal.

    Raises:
        AssertionError: something differs.
    """
    want = np.asarray(want) if isinstance(result, np.ndarray) else want
    shapes = mapped(np.shape, result), mapped(np.shape, want)
    assert shapes[0] == shapes[1], f"{what}: the shape is {shapes[0]}, but should be {shapes[1]}"
    for mine, other in zip(leaves(result), leaves(want), strict=True):
        if mine.dtype == other.dtype == object:
            assert mine.tolist() == other.tolist(), f"{what}: the strings are {mine.tolist()}, not {other.tolist()}"
        elif rtol or atol:
            wide = mine.astype(np.float64), other.astype(np.float64)
            np.testing.assert_allclose(*wide, rtol=rtol, atol=atol, err_msg=what)
        else:
            np.testing.assert_array_equal(mine, other, err_msg=what)
