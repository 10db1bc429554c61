"""Whose memory an array lies in."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

__all__ = ["handed_out", "read_only", "root_of"]


def root_of(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of a view, one that numpy's `as_strided` made included."""
    base = array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            array = base
        base = getattr(base, "base", None)  # as_strided puts an object of its own between
    return array


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def handed_out(result: Any, borrowed: Set[int], owned: set[int]) -> Any:
    """A result as the caller's own: copied where it shares memory with something else.

    Args:
        result: an array, a list of results, or None.
        borrowed: the identities (``id``) of the arrays whose memory is not to be shared.
        owned: the same of what has been handed out already, to which the result's own is added.
    """
    if isinstance(result, list):
        return [handed_out(item, borrowed, owned) for item in result]
    if not isinstance(result, np.ndarray):
        return result
    root = id(root_of(result))
    if root in borrowed or root in owned or not result.flags.writeable:
        return result.copy()
    owned.add(root)
    return result
