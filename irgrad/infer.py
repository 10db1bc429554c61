"""Type inference for one node, with propagation of the contents of small integer tensors.

Types come from the operation's own rule where it has one, otherwise from onnx (`onnx.shape_inference.infer_node_outputs`),
which is given constant operands as data. What onnx cannot do node by node is done here: the elements of shapes under
construction are followed symbolically (`Value.contents`), so that
``Reshape(x, Concat(Gather(Shape(x), 0), [-1]))`` keeps the batch dimension of `x` by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import helper, numpy_helper, shape_inference

from irgrad.errors import TypeInferenceError
from irgrad.graph import MAX_CONTENTS, OPSET
from irgrad.op import Call, Op
from irgrad.proto import node_to_proto
from irgrad.types import Dim, TensorType, Type, divide_dims, multiply_dims, type_from_proto, type_to_proto

__all__ = ["follows_contents", "infer_contents", "infer_types", "slice_range"]

_DATA_LIMIT = 1024  # elements of a constant that onnx is given as data: axes, shapes, scales, never weights


def infer_types(call: Call) -> list[Type]:
    """The types of a node's outputs. `call.outputs` is ignored.

    An output of which nothing is known (an opaque operation) has the type of the first operand's dtype without a shape.

    Raises:
        TypeInferenceError: the operands or attributes do not fit the operation.
    """
    if call.op.infer_rule is not None:
        return list(call.op.infer_rule(call))
    types = list(_onnx_types(call)) if call.op.schema is not None else [None] * call.n_outputs
    refine = _REFINE.get(call.op.qualified_name)
    if refine is not None and isinstance(types[0], TensorType):
        shape = refine(call)
        if shape is not None:
            types[0] = types[0].with_shape(_merge(types[0].shape, shape))
    return [_unknown(call) if type is None else type for type in types]


def _unknown(call: Call) -> Type:
    first = next((t for t in call.inputs if isinstance(t, TensorType)), None)
    return TensorType(np.dtype(np.float32) if first is None else first.dtype, None)


def _merge(a: tuple[Dim, ...] | None, b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    if a is None or len(a) != len(b):
        return b
    return tuple(y if x is None else x for x, y in zip(a, b, strict=True))


def _onnx_types(call: Call) -> Sequence[Type | None]:
    """What onnx infers; asked once for the same question, since models repeat themselves."""
    data = _data(call)
    key = _memo_key(call, data)
    if key is None:
        return _ask_onnx(call, data)
    found = _memo.get(key)
    if found is None:
        if len(_memo) >= _MEMO_LIMIT:
            _memo.clear()
        found = _memo[key] = _ask_onnx(call, data)
    return found


_MEMO_LIMIT = 65536
_TERM = r"[A-Za-z ]*(\.\.\.)?[A-Za-z ]*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
_memo: dict[Any, Sequence[Type | None]] = {}


def _data(call: Call) -> dict[int, np.ndarray]:
    """Operand → array for what onnx is given as data: small constants, and shapes whose every element is a number."""
    data = {}
    for k, operand in enumerate(call.inputs):
        array, contents = call.constants.get(k), call.contents.get(k)
        if array is None and contents is not None and all(isinstance(d, int) for d in contents):
            assert isinstance(operand, TensorType)
            array = np.array(contents, operand.dtype)
            array = array.reshape(()) if operand.rank == 0 else array
        if array is not None and array.size <= _DATA_LIMIT and array.dtype != object:
            data[k] = array
    return data


def _memo_key(call: Call, data: dict[int, np.ndarray]) -> Any:
    """What the answer depends on, or None where that cannot be hashed (arrays and graphs among the attributes)."""
    attrs = tuple(call.attrs.items())
    arrays = tuple((k, a.shape, a.tobytes()) for k, a in data.items())
    key = (call.op, attrs, call.inputs, call.n_outputs, arrays)
    try:
        hash(attrs)
    except TypeError:
        return None
    return key


def _ask_onnx(call: Call, data: dict[int, np.ndarray]) -> Sequence[Type | None]:
    schema = call.op.schema
    assert schema is not None
    if call.op.qualified_name == "Einsum" and not _EQUATION.fullmatch(str(call.attrs.get("equation"))):
        # onnx's own inference never returns from some of these.
        raise TypeInferenceError(f"{call.attrs.get('equation')!r} is not an equation that Einsum takes")
    names = ["" if t is None else f"i{k}" for k, t in enumerate(call.inputs)]
    outputs = [f"o{k}" for k in range(call.n_outputs)]
    node = node_to_proto(call.op.name, call.op.domain, call.attrs, names, outputs)
    types = {f"i{k}": type_to_proto(t) for k, t in enumerate(call.inputs) if t is not None}
    protos = {f"i{k}": numpy_helper.from_array(array) for k, array in data.items()}
    domains = {"": OPSET}
    if call.op.domain:
        domains[call.op.domain] = schema.since_version
    try:
        found = shape_inference.infer_node_outputs(
            schema, node, types, protos, opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()]
        )
    except Exception as error:  # onnx raises RuntimeError, ValueError and its own InferenceError here
        text = " ".join(str(error).split())
        operands = ", ".join("_" if t is None else str(t) for t in call.inputs)
        raise TypeInferenceError(f"{call.op.qualified_name}({operands}) does not type-check: {text}") from None
    return tuple(type_from_proto(found[o]) if o in found else None for o in outputs)


# --- shapes out of symbolic contents ----------------------------------------------------------------------------------


def _reshape(call: Call) -> tuple[Dim, ...] | None:
    target, source = call.contents.get(1), call.tensor(0).shape
    if target is None:
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(target):
        if dim == 0 and not call.attrs.get("allowzero"):
            dims.append(source[axis] if source is not None and axis < len(source) else None)
        else:
            dims.append(dim)
    if dims.count(-1) == 1 and source is not None:
        rest = multiply_dims(*(d for d in dims if d != -1))
        dims[dims.index(-1)] = divide_dims(multiply_dims(*source), rest) if rest != 0 else None
    return tuple(None if isinstance(d, int) and d < 0 else d for d in dims)


def _expand(call: Call) -> tuple[Dim, ...] | None:
    target, source = call.contents.get(1), call.tensor(0).shape
    if target is None or source is None:
        return None
    rank = max(len(target), len(source))
    a = (1,) * (rank - len(source)) + tuple(source)
    b = (1,) * (rank - len(target)) + tuple(target)
    return tuple(
        y if x == 1 else x if y == 1 or x == y else x if isinstance(x, int) else None for x, y in zip(a, b, strict=True)
    )


def _from_contents(operand: int) -> Callable[[Call], tuple[Dim, ...] | None]:
    return lambda call: call.contents.get(operand)


def _tile(call: Call) -> tuple[Dim, ...] | None:
    repeats, source = call.contents.get(1), call.tensor(0).shape
    if repeats is None or source is None:
        return None
    return tuple(multiply_dims(d, r) for d, r in zip(source, repeats, strict=True))


def _range(call: Call) -> tuple[Dim, ...] | None:
    start, limit, delta = (call.contents.get(k) for k in range(3))
    if start == (0,) and delta == (1,) and limit is not None:
        return limit
    return None


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


def _sliced(dim: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """What is left of an axis of size `dim`."""
    if not isinstance(step, int) or step == 0:
        return None
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
        return len(slice_range(start, end, step, dim))
    if step == 1 and start == 0 and (end == dim or (isinstance(end, int) and end >= _FAR)):
        return dim
    if step == -1 and isinstance(start, int) and isinstance(end, int) and end <= -_FAR and (start == -1 or start >= _FAR):
        return dim
    return None


_FAR = 2**31 - 1  # what exporters write for "to the end", if not more


def _slice(call: Call) -> tuple[Dim, ...] | None:
    source = call.tensor(0).shape
    starts, ends = call.contents.get(1), call.contents.get(2)
    if source is None or starts is None or ends is None:
        return None
    axes = call.contents.get(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.contents.get(4) if call.has(4) else (1,) * len(starts)
    if axes is None or steps is None:
        return None
    dims = list(source)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not isinstance(axis, int):
            return None
        dims[axis] = _sliced(dims[axis], start, end, step)
    return tuple(dims)


_REFINE: dict[str, Callable[[Call], tuple[Dim, ...] | None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _from_contents(0),
    "Tile": _tile,
    "Range": _range,
    "Slice": _slice,
}


# --- contents ---------------------------------------------------------------------------------------------------------

Contents: TypeAlias = "tuple[Dim, ...]"


def follows_contents(op: Op) -> bool:
    """Whether contents of operands may say something about the contents of results (see `infer_contents`)."""
    return op.qualified_name in _CONTENTS


def infer_contents(call: Call) -> list[Contents | None]:
    """The contents of a node's outputs as far as they follow from those of its operands; `call.outputs` must be set."""
    rule = _CONTENTS.get(call.op.qualified_name)
    nothing: list[Contents | None] = [None] * call.n_outputs
    first = call.outputs[0] if call.outputs else None
    if rule is None or not isinstance(first, TensorType) or first.dtype.kind not in "iub":
        return nothing
    if first.rank is not None and first.rank > 1:
        return nothing
    found = rule(call)
    if found is None or len(found) > MAX_CONTENTS:
        return nothing
    return [found, *nothing[1:]]


def _operands(call: Call) -> list[Contents] | None:
    found = [call.contents.get(k) for k in range(len(call.inputs))]
    return None if any(c is None for c in found) else [c for c in found if c is not None]


def _shape_of(call: Call) -> Contents | None:
    shape = call.tensor(0).shape
    if shape is None:
        return None
    start, end = call.attrs.get("start", 0), call.attrs.get("end")
    return shape[slice(start, end)]


def _size_of(call: Call) -> Contents | None:
    shape = call.tensor(0).shape
    return None if shape is None else (multiply_dims(*shape),)


def _same(call: Call) -> Contents | None:
    return call.contents.get(0)


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


def _slice_contents(call: Call) -> Contents | None:
    operands = _operands(call)
    if operands is None or any(len(o) != 1 for o in operands[1:]):
        return None
    data, start, end, *rest = operands
    step = rest[1][0] if len(rest) > 1 else 1
    if not (isinstance(start[0], int) and isinstance(end[0], int) and isinstance(step, int) and step):
        return None
    return tuple(data[k] for k in slice_range(start[0], end[0], step, len(data)))


def _elementwise(combine: Callable[[Dim, Dim], Dim]) -> Callable[[Call], Contents | None]:
    def rule(call: Call) -> Contents | None:
        operands = _operands(call)
        if operands is None:
            return None
        a, b = operands
        size = max(len(a), len(b)) if a and b else 0
        if len(a) not in (1, size) or len(b) not in (1, size):
            return None
        a, b = (a * size if len(a) == 1 else a), (b * size if len(b) == 1 else b)
        return tuple(combine(x, y) for x, y in zip(a, b, strict=True))

    return rule


def _add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if a == 0 else a if b == 0 else None


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
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else int(a / b)
    return None if b == 0 or (isinstance(b, int) and b < 0) else divide_dims(a, b)


def _equal(a: Dim, b: Dim) -> Dim:
    # A symbol is a size, hence never the -1 that exporters compare a target shape with.
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    if a is not None and a == b:
        return 1
    negative = (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0)
    return 0 if negative and a is not None and b is not None else None


def _where(call: Call) -> Contents | None:
    operands = _operands(call)
    if operands is None:
        return None
    size = max(map(len, operands))
    if any(len(o) not in (1, size) for o in operands):
        return None
    condition, a, b = (o * size if len(o) == 1 else o for o in operands)
    return tuple(
        x if c not in (0, None) else y if c == 0 else (x if x == y else None)
        for c, x, y in zip(condition, a, b, strict=True)
    )


def _filled(call: Call) -> Contents | None:
    size, value = call.contents.get(0), call.attrs.get("value")
    if size is None or len(size) > 1 or not all(isinstance(d, int) and d <= MAX_CONTENTS for d in size):
        return None
    if not isinstance(value, np.ndarray):
        return None
    count = int(size[0]) if size and isinstance(size[0], int) else 1
    return (int(value.reshape(-1)[0]),) * count


def _product(call: Call) -> Contents | None:
    data = call.contents.get(0)
    if data is None or any(isinstance(d, int) and d < 0 for d in data):
        return None
    axes_known = not call.has(1) or call.contents.get(1) in ((0,), (-1,))
    return (multiply_dims(*data),) if axes_known and call.tensor(0).rank == 1 else None


def _arange(call: Call) -> Contents | None:
    operands = _operands(call)
    if operands is None or not all(isinstance(o[0], int) for o in operands):
        return None
    start, limit, delta = (int(o[0]) for o in operands if isinstance(o[0], int))
    if delta == 0 or abs(limit - start) > MAX_CONTENTS * abs(delta):
        return None
    return tuple(range(start, limit, delta))


_CONTENTS: dict[str, Callable[[Call], Contents | None]] = {
    "Shape": _shape_of,
    "Size": _size_of,
    "Cast": _same,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice_contents,
    "Add": _elementwise(_add),
    "Sub": _elementwise(_subtract),
    "Mul": _elementwise(_multiply),
    "Div": _elementwise(_divide),
    "Equal": _elementwise(_equal),
    "Where": _where,
    "ConstantOfShape": _filled,
    "ReduceProd": _product,
    "Range": _arange,
}
