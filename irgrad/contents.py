"""What is known at compile time of the elements of small integer tensors: shapes under construction.

An element is a number, a symbol (a size: not negative) or unknown; see `Value.contents`. A rule may only tell what holds for
every size that a symbol may stand for, 0 included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TypeAlias

import numpy as np

from irgrad.graph import MAX_CONTENTS
from irgrad.op import Call, Op
from irgrad.types import Dim, TensorType, add_dims, divide_dims, multiply_dims

__all__ = ["Contents", "follows_contents", "infer_contents", "slice_range"]

Contents: TypeAlias = "tuple[Dim, ...]"


def follows_contents(op: Op) -> bool:
    """Whether contents of operands may say something about the contents of results (see `infer_contents`)."""
    return op.qualified_name in _RULES


def infer_contents(call: Call) -> list[Contents | None]:
    """The contents of a node's outputs as far as they follow from those of its operands; `call.outputs` must be set."""
    rule = _RULES.get(call.op.qualified_name)
    nothing: list[Contents | None] = [None] * call.n_outputs
    first = call.outputs[0] if call.outputs else None
    if rule is None or not isinstance(first, TensorType) or first.dtype.kind not in "iub":
        return nothing
    if first.rank is not None and first.rank > 1:
        return nothing
    found = rule(call)
    if found is None or len(found) > MAX_CONTENTS:
        return nothing
    return [tuple(element if _fits(element, first.dtype) else None for element in found), *nothing[1:]]


def _fits(element: Dim, dtype: np.dtype) -> bool:
    """Whether an element is what a tensor of a dtype holds, nothing lost to overflow."""
    if isinstance(element, str):
        return dtype.kind != "b" and dtype.itemsize >= 4
    if element is None or dtype.kind == "b":
        return element in (None, 0, 1)
    return bool(np.iinfo(dtype).min <= element <= np.iinfo(dtype).max)


def _operands(call: Call) -> list[Contents] | None:
    found = [call.contents.get(k) for k in range(len(call.inputs))]
    return None if any(c is None for c in found) else [c for c in found if c is not None]


# --- out of shapes ----------------------------------------------------------------------------------------------------


def _shape_of(call: Call) -> Contents | None:
    shape = call.tensor(0).shape
    if shape is None:
        return None
    start, end = call.attrs.get("start", 0), call.attrs.get("end")
    return shape[slice(start, end)]


def _size_of(call: Call) -> Contents | None:
    shape = call.tensor(0).shape
    return None if shape is None else (multiply_dims(*shape),)


# --- moved ------------------------------------------------------------------------------------------------------------


def _same(call: Call) -> Contents | None:
    return call.contents.get(0)


def _cast(call: Call) -> Contents | None:
    found, type = call.contents.get(0), call.outputs[0]
    if found is not None and isinstance(type, TensorType) and type.dtype.kind == "b":
        return tuple(int(element != 0) if isinstance(element, int) else None for element in found)
    return found


def _gather(call: Call) -> Contents | None:
    data, indices = call.contents.get(0), call.contents.get(1)
    if data is None or indices is None or call.tensor(0).rank != 1:
        return None
    if not all(isinstance(i, int) and -len(data) <= i < len(data) for i in indices):
        return None
    return tuple(data[i] for i in indices if isinstance(i, int))


def _concat(call: Call) -> Contents | None:
    parts: list[Dim] = []
    for k in range(len(call.inputs)):
        # An element of which nothing is known does not hide those beside it.
        contents = call.contents.get(k)
        if contents is None:
            shape = call.tensor(k).static_shape
            if shape is None or len(shape) != 1 or shape[0] > MAX_CONTENTS:
                return None
            contents = (None,) * shape[0]
        parts += contents
    return tuple(parts)


def slice_range(start: int, end: int, step: int, size: int) -> range:
    """The positions that a Slice keeps along an axis of some size.

    Source: the ONNX operator specification, Slice (version 13). It differs from Python's slices where a negative step starts
    before the first element: the start is moved to that.

    Raises:
        ValueError: the step is 0.
    """
    first, last = (0, size) if step > 0 else (-1, size - 1)
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    return range(min(max(start, 0), last), min(max(end, first), last), step)


def _slice(call: Call) -> Contents | None:
    data, starts, ends = (call.contents.get(k) for k in range(3))
    steps = call.contents.get(4) if call.has(4) else (1,)
    start, end, step = (only[0] if only is not None and len(only) == 1 else None for only in (starts, ends, steps))
    if data is None or not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step):
        return None
    return tuple(data[k] for k in slice_range(start, end, step, len(data)))


def _repeated(call: Call) -> Contents | None:
    """Expand and Tile."""
    data, type = call.contents.get(0), call.outputs[0]
    shape = type.static_shape if isinstance(type, TensorType) else None
    if not data or shape is None or len(shape) > 1 or (shape and (shape[0] % len(data) or shape[0] > MAX_CONTENTS)):
        return None
    return data * (shape[0] // len(data)) if shape else data


# --- computed ---------------------------------------------------------------------------------------------------------


def _elementwise(combine: Callable[[Dim, Dim], Dim]) -> Callable[[Call], Contents | None]:
    """The rule of an operation on any number of operands that are broadcast together."""

    def pair(a: Contents, b: Contents) -> Contents:
        a, b = (a * len(b) if len(a) == 1 else a), (b * len(a) if len(b) == 1 else b)
        return tuple(combine(x, y) for x, y in zip(a, b, strict=True))

    def rule(call: Call) -> Contents | None:
        operands = _operands(call)
        if not operands or len({len(o) for o in operands} - {1}) > 1:
            return None
        return reduce(pair, operands)

    return rule


def _subtract(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else 0 if a == b and a is not None else None


def _multiply(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0):
        return None
    return multiply_dims(a, b)


def _divide(a: Dim, b: Dim) -> Dim:
    """Rounded towards zero."""
    if b == 0 or (isinstance(b, int) and b < 0 and not isinstance(a, int)):
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return divide_dims(a, b)


def _greatest(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if a == b or (isinstance(b, int) and b <= 0):
        return a
    return b if isinstance(a, int) and a <= 0 else None


def _least(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if None in (a, b):
        return None
    if a == b or (isinstance(a, int) and a <= 0):
        return a
    return b if isinstance(b, int) and b <= 0 else None


def _equal(a: Dim, b: Dim) -> Dim:
    # A symbol is a size, hence never the -1 that exporters compare a target shape with.
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    if a is not None and a == b:
        return 1
    negative = (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0)
    return 0 if negative and a is not None and b is not None else None


def _negative(call: Call) -> Contents | None:
    data = call.contents.get(0)
    return None if data is None else tuple(-element if isinstance(element, int) else None for element in data)


def _where(call: Call) -> Contents | None:
    operands = _operands(call)
    if operands is None or len({len(o) for o in operands} - {1}) > 1:
        return None
    size = next((len(o) for o in operands if len(o) != 1), 1)
    condition, a, b = (o * size if len(o) == 1 else o for o in operands)
    return tuple(
        x if c not in (0, None) else y if c == 0 else (x if x == y else None)
        for c, x, y in zip(condition, a, b, strict=True)
    )


def _product(call: Call) -> Contents | None:
    data = call.contents.get(0)
    if data is None or call.tensor(0).rank != 1 or any(isinstance(d, int) and d < 0 for d in data):
        return None
    axes_known = not call.has(1) or call.contents.get(1) in ((0,), (-1,))
    noop = bool(call.attrs.get("noop_with_empty_axes")) and not call.has(1)
    return (multiply_dims(*data),) if axes_known and not noop else None


# --- made -------------------------------------------------------------------------------------------------------------


def _filled(call: Call) -> Contents | None:
    size, value = call.contents.get(0), call.attrs.get("value")
    if size is None or len(size) > 1 or not all(isinstance(d, int) and d <= MAX_CONTENTS for d in size):
        return None
    if not isinstance(value, np.ndarray):
        return None
    count = int(size[0]) if size and isinstance(size[0], int) else 1
    return (int(value.reshape(-1)[0]),) * count


def _arange(call: Call) -> Contents | None:
    operands = _operands(call)
    if operands is None or not all(isinstance(o[0], int) for o in operands):
        return None
    start, limit, delta = (int(o[0]) for o in operands if isinstance(o[0], int))
    if delta == 0 or abs(limit - start) > MAX_CONTENTS * abs(delta):
        return None
    return tuple(range(start, limit, delta))


_RULES: dict[str, Callable[[Call], Contents | None]] = {
    "Shape": _shape_of,
    "Size": _size_of,
    "Cast": _cast,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Expand": _repeated,
    "Tile": _repeated,
    "Add": _elementwise(add_dims),
    "Sub": _elementwise(_subtract),
    "Mul": _elementwise(_multiply),
    "Div": _elementwise(_divide),
    "Max": _elementwise(_greatest),
    "Min": _elementwise(_least),
    "Neg": _negative,
    "Equal": _elementwise(_equal),
    "Where": _where,
    "ReduceProd": _product,
    "ConstantOfShape": _filled,
    "Range": _arange,
}
