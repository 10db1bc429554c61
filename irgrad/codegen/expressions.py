"""Items as Python expressions of generated code."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isinf, isnan

import numpy as np

from irgrad.codegen.items import Item

__all__ = ["expression", "identity", "literal", "updated"]

_INFIX: Mapping[str, str] = {
    **{"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"},
    **{"equal": "==", "greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<="},
}
_MATH = ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
"""Functions of Python's math module; all others that are called are in irgrad/codegen/device.py."""


def literal(number: float, dtype: np.dtype) -> str:
    """A constant of a dtype."""
    if dtype == np.bool_:
        return str(bool(number))
    if dtype.kind == "i":
        return str(int(number)) if dtype == np.int64 else f"{dtype.name}({int(number)})"
    if isnan(number) or isinf(number):
        text = "nan" if isnan(number) else "inf" if number > 0 else "-inf"
    else:
        text = str(dtype.type(number))
    return text if dtype == np.float64 else f"{dtype.name}({text})"


def expression(item: Item, args: list[str]) -> str:
    """An operation on elements, given its operands (names or constants)."""
    name, dtype = item.op, item.dtype
    if name in _INFIX:
        return _wrapped(f"{args[0]} {_INFIX[name]} {args[1]}", dtype)
    if name == "neg":
        return _wrapped(f"-{args[0]}", dtype)
    if name == "not":
        return f"not {args[0]}"
    if name == "isnan":
        return f"{args[0]} != {args[0]}"
    if name == "reciprocal":
        return f"{literal(1, dtype)} / {args[0]}"
    if name == "where":
        return f"select({', '.join(args)})"
    if name == "cast":
        return f"{dtype.name}({args[0]})"
    called = f"math.{name}" if name in _MATH else name
    return f"{called}({', '.join(args)})"


def _wrapped(text: str, dtype: np.dtype) -> str:
    """Numba computes with 64 bits where operands are int32."""
    return f"int32({text})" if dtype == np.int32 else text


def identity(reduction: Item) -> str:
    """What a reduction begins with."""
    name, dtype = reduction.op, reduction.dtype
    if name in ("sum", "prod"):
        return literal(name == "prod", dtype)
    if dtype.kind == "f":
        return literal(-inf if name == "max" else inf, dtype)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        return literal(int(limits.min if name == "max" else limits.max), dtype)
    return literal(name == "min", dtype)


def updated(reduction: Item, total: str, term: str) -> str:
    """A running total and a further term."""
    if reduction.op == "prod":
        return _wrapped(f"{total} * {term}", reduction.dtype)
    called = {"sum": "accumulate", "max": "maximum", "min": "minimum"}[reduction.op]
    return f"{called}({total}, {term})"
