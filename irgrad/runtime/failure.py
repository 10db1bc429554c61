"""What is said when a node fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.graph import Node
from irgrad.types import TensorType, dtype_name

__all__ = ["failure", "wrong_dtype"]


def failure(node: Node, operands: Sequence[Any], error: Exception) -> str:
    """The message for a node that failed on concrete operands."""
    types = ", ".join("_" if a is None else str(TensorType.of(a)) if isinstance(a, np.ndarray) else "list" for a in operands)
    made_for = f", made for {node.origin!r}" if node.origin else ""
    return f"the node {node.name!r} ({node.op.qualified_name}({types}){made_for}) failed: {error}"


def wrong_dtype(found: np.dtype, expected: np.dtype) -> str:
    """What is wrong with a kernel whose result has another dtype than type inference says."""
    return f"its kernel returned {dtype_name(found)} where its type says {dtype_name(expected)}"
