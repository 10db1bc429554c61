"""What is known at compile time of the elements of small integer tensors: shapes under construction.

An element is a number, a symbol (a size: not negative) or unknown; see `Value.contents`, which lists the elements of a
tensor of any rank in order. A rule gets them as an array of objects and moves them with numpy. It may only tell what holds
for every size that a symbol may stand for, 0 included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from irgrad.graph import MAX_CONTENTS
from irgrad.op import Call, Op
from irgrad.types import Dim, OptionalType, TensorType, add_dims, divide_dims, multiply_dims

__all__ = ["Contents", "follows_contents", "infer_contents", "slice_range"]

Contents: TypeAlias = "tuple[Dim, ...]"


def follows_contents(op: Op) -> bool:
    """Whether contents of operands may say something about the contents of results (see `infer_contents`)."""
    return op.qualified_name in _RULES


def infer_contents(call: Call) -> list[Contents | None]:
    """The contents of a node's outputs as far as they follow from those of its operands; `call.outputs` must be set."""
    rule = _RULES.get(call.op.qualified_name)
    nothing: list[Contents | None] = [None] * call.n_outputs
    if rule is None or not all(isinstance(t, TensorType) and t.dtype.kind in "iub" for t in call.outputs):
        return nothing
    found = rule(call)
    if found is None:
        return nothing
    results = found if isinstance(found, list) else [found]
    return [_checked(*pair) for pair in zip(results, call.outputs, strict=True)]


def _checked(found: np.ndarray, type: Any) -> Contents | None:
    """Elements as contents of a value of a type: not too many, of its shape, and none lost to overflow."""
    shape = type.static_shape
    if found.size > MAX_CONTENTS or (found.shape != shape if shape is not None else type.rank != found.ndim):
        return None
    return tuple(element if _fits(element, type.dtype) else None for element in found.reshape(-1).tolist())


def _fits(element: Dim, dtype: np.dtype) -> bool:
    if isinstance(element, str):
        return dtype.kind != "b" and dtype.itemsize >= 4
    if element is None or dtype.kind == "b":
        return element in (None, 0, 1)
    return bool(np.iinfo(dtype).min <= element <= np.iinfo(dtype).max)


def _objects(elements: Sequence[Dim], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _elements(call: Call, index: int) -> np.ndarray | None:
    """The elements of an operand; None where there is none, or nothing is known of any."""
    contents = call.contents.get(index)
    if contents is None:
        return None
    type = call.tensor(index)
    if type.static_shape is not None:
        return _objects(contents, type.static_shape)
    return _objects(contents, (len(contents),)) if type.rank == 1 else None


def _numbers(call: Call, index: int) -> list[int] | None:
    """The elements of an operand where all of them are numbers."""
    contents = call.contents.get(index)
    known = [element for element in contents or () if isinstance(element, int)]
    return known if contents is not None and len(known) == len(contents) else None


def _all_elements(call: Call) -> list[np.ndarray] | None:
    """The elements of every operand, broadcast together."""
    found = [_elements(call, k) for k in range(len(call.inputs))]
    known = [array for array in found if array is not None]
    return list(np.broadcast_arrays(*known)) if known and len(known) == len(found) else None


# --- out of shapes ----------------------------------------------------------------------------------------------------


def _shape_of(call: Call) -> np.ndarray | None:
    shape = call.tensor(0).shape
    if shape is None:
        return None
    part = shape[slice(call.attrs.get("start", 0), call.attrs.get("end"))]
    return _objects(part, (len(part),))


def _size_of(call: Call) -> np.ndarray | None:
    shape = call.tensor(0).shape
    return None if shape is None else _objects([multiply_dims(*shape)], ())


def _presence(call: Call) -> np.ndarray | None:
    """Of OptionalHasElement: a tensor or a sequence is there, an absent operand is not."""
    if not call.has(0):
        return _objects([0], ())
    return None if isinstance(call.inputs[0], OptionalType) else _objects([1], ())


# --- moved ------------------------------------------------------------------------------------------------------------


def _same(call: Call) -> np.ndarray | None:
    return _elements(call, 0)


def _cast(call: Call) -> np.ndarray | None:
    found, type = _elements(call, 0), call.outputs[0]
    if found is not None and isinstance(type, TensorType) and type.dtype.kind == "b":
        return _each(lambda element: int(element != 0) if isinstance(element, int) else None, found)
    return found


def _in_another_shape(call: Call) -> np.ndarray | None:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    found, type = _elements(call, 0), call.outputs[0]
    if found is None or not isinstance(type, TensorType):
        return None
    if type.static_shape is not None:
        return found.reshape(type.static_shape)
    return found.reshape(-1) if type.rank == 1 else None


def _transpose(call: Call) -> np.ndarray | None:
    found = _elements(call, 0)
    return None if found is None else found.transpose(call.attrs.get("perm"))


def _gather(call: Call) -> np.ndarray | None:
    data, indices, axis = _elements(call, 0), _numbers(call, 1), call.attrs["axis"]
    shape = call.tensor(1).static_shape
    if data is None or indices is None or shape is None:
        return None
    size = data.shape[axis]
    if not all(-size <= index < size for index in indices):
        return None
    return np.asarray(np.take(data, np.array(indices, np.int64).reshape(shape), axis), object)


def _concat(call: Call) -> np.ndarray | None:
    parts = []
    for k in range(len(call.inputs)):
        part = _elements(call, k)
        if part is None:
            # Elements of which nothing is known do not hide those beside them.
            shape = call.tensor(k).static_shape
            if shape is None or np.prod(shape) > MAX_CONTENTS:
                return None
            part = np.full(shape, None, object)
        parts.append(part)
    return np.concatenate(parts, call.attrs["axis"])


def _split(call: Call) -> list[np.ndarray] | None:
    found, axis = _elements(call, 0), call.attrs["axis"]
    sizes = [t.static_shape for t in call.outputs if isinstance(t, TensorType)]
    known = [size for size in sizes if size is not None]
    if found is None or len(known) < call.n_outputs:
        return None
    return np.split(found, np.cumsum([size[axis] for size in known[:-1]]), axis)


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


def _slice(call: Call) -> np.ndarray | None:
    data, starts, ends = _elements(call, 0), _numbers(call, 1), _numbers(call, 2)
    if data is None or starts is None or ends is None:
        return None
    axes = _numbers(call, 3) if call.has(3) else list(range(len(starts)))
    steps = _numbers(call, 4) if call.has(4) else [1] * len(starts)
    if axes is None or steps is None or 0 in steps or not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        data = np.take(data, np.array(slice_range(start, end, step, data.shape[axis]), np.int64), axis)
    return data


def _expand(call: Call) -> np.ndarray | None:
    data, type = _elements(call, 0), call.outputs[0]
    shape = type.static_shape if isinstance(type, TensorType) else None
    if data is None or shape is None or np.prod(shape) > MAX_CONTENTS:
        return None
    return np.broadcast_to(data, shape)


def _tile(call: Call) -> np.ndarray | None:
    data, repeats = _elements(call, 0), _numbers(call, 1)
    if data is None or repeats is None or data.size * np.prod(repeats) > MAX_CONTENTS:
        return None
    return np.tile(data, repeats)


def _one_hot(call: Call) -> np.ndarray | None:
    indices, depth, values = _numbers(call, 0), _numbers(call, 1), call.contents.get(2)
    shape = call.tensor(0).static_shape
    if indices is None or depth is None or values is None or shape is None or len(indices) * depth[0] > MAX_CONTENTS:
        return None
    size = depth[0]
    hot = [k == (index + size if index < 0 else index) for index in indices for k in range(size)]
    return np.moveaxis(_objects([values[int(one)] for one in hot], (*shape, size)), -1, call.attrs["axis"])


# --- computed ---------------------------------------------------------------------------------------------------------


def _each(function: Callable[..., Dim], *operands: np.ndarray) -> np.ndarray:
    """A function applied to the elements of operands of one shape."""
    return _objects([function(*elements) for elements in zip(*(o.flat for o in operands), strict=True)], operands[0].shape)


def _elementwise(combine: Callable[[Dim, Dim], Dim]) -> Callable[[Call], np.ndarray | None]:
    """The rule of an operation on any number of operands that are broadcast together."""

    def rule(call: Call) -> np.ndarray | None:
        operands = _all_elements(call)
        return None if operands is None else reduce(lambda a, b: _each(combine, a, b), operands)

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
    if a is None or b is None:
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


def _negative(call: Call) -> np.ndarray | None:
    data = _elements(call, 0)
    return None if data is None else _each(lambda element: -element if isinstance(element, int) else None, data)


def _where(call: Call) -> np.ndarray | None:
    operands = _all_elements(call)
    return None if operands is None else _each(_choose, *operands)


def _choose(condition: Dim, a: Dim, b: Dim) -> Dim:
    if isinstance(condition, int):
        return a if condition else b
    return a if a == b else None


def _product(call: Call) -> np.ndarray | None:
    data = _elements(call, 0)
    if data is None or data.ndim != 1 or any(isinstance(d, int) and d < 0 for d in data):
        return None
    axes = _numbers(call, 1)
    over_all = axes in ([0], [-1]) or (axes in (None, []) and not call.attrs.get("noop_with_empty_axes"))
    if not over_all or (call.has(1) and axes is None):
        return None
    return _objects([multiply_dims(*data)], (1,) if call.attrs["keepdims"] else ())


# --- made -------------------------------------------------------------------------------------------------------------


def _filled(call: Call) -> np.ndarray | None:
    shape, value = _numbers(call, 0), call.attrs.get("value")
    if shape is None or not isinstance(value, np.ndarray) or np.prod(shape) > MAX_CONTENTS:
        return None
    return np.full(shape, int(value.item()), object)


def _range(call: Call) -> np.ndarray | None:
    bounds = [_numbers(call, k) for k in range(3)]
    numbers = [bound[0] for bound in bounds if bound is not None]
    if len(numbers) < 3 or numbers[2] == 0 or len(found := range(*numbers)) > MAX_CONTENTS:
        return None
    return _objects(found, (len(found),))


_RULES: dict[str, Callable[[Call], np.ndarray | list[np.ndarray] | None]] = {
    "Shape": _shape_of,
    "Size": _size_of,
    "OptionalHasElement": _presence,
    "Identity": _same,
    "Cast": _cast,
    "Flatten": _in_another_shape,
    "Reshape": _in_another_shape,
    "Squeeze": _in_another_shape,
    "Unsqueeze": _in_another_shape,
    "Transpose": _transpose,
    "Gather": _gather,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Expand": _expand,
    "Tile": _tile,
    "OneHot": _one_hot,
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
    "Range": _range,
}
