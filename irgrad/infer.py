"""Type inference for one node.

Types come from the operation's own rule where it has one, otherwise from onnx (`onnx.shape_inference.infer_node_outputs`),
which is given constant operands as data. What onnx cannot do node by node is done here: shapes that depend on elements which
are known as symbols only (see `irgrad.contents`), so that ``Reshape(x, Concat(Gather(Shape(x), 0), [-1]))`` keeps the batch
dimension of `x` by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from irgrad.contents import slice_range
from irgrad.errors import IrgradError, TypeInferenceError
from irgrad.graph import OPSET, Graph
from irgrad.op import Call, Op
from irgrad.proto import node_to_proto
from irgrad.types import (
    Dim,
    Shape,
    TensorType,
    Type,
    add_dims,
    divide_dims,
    dtype_from_name,
    dtype_name,
    dtype_of_element,
    is_differentiable,
    multiply_dims,
    type_from_proto,
    type_to_proto,
)

__all__ = ["infer_types"]

_DATA_LIMIT = 1024  # elements of a constant that onnx is given as data: axes, shapes, scales, never weights


def infer_types(call: Call) -> list[Type]:
    """The types of a node's outputs. `call.outputs` is ignored.

    An output of which nothing is known (an opaque operation) has the type of the first operand's dtype without a shape.

    Raises:
        TypeInferenceError: the operands or attributes do not fit the operation.
    """
    if call.op.infer_rule is not None:
        _check_operands(call)
        try:
            return list(call.op.infer_rule(call))
        except IrgradError:
            raise
        except Exception as error:  # operands that are absent, or of another rank than a rule counts on
            raise _misfit(call, error) from error
    types: list[Type | None] = list(_onnx_types(call)) if call.op.schema is not None else [None] * call.n_outputs
    refine = _REFINE.get(call.op.qualified_name)
    if refine is not None:
        found = refine(call)
        for k, shape in enumerate(found if isinstance(found, list) else [found]):
            known = types[k]
            if shape is not None and isinstance(known, TensorType):
                types[k] = known.with_shape(_merge(known.shape, shape))
    return [_unknown(call) if type is None else type for type in types]


_FLOATS = {dtype_from_name(name) for name in ("f16", "bf16", "f32", "f64")}


class _Formal(NamedTuple):
    """An operand as a schema describes it, floating-point dtypes being all allowed where one is.

    In float64, where gradients are checked, there are all operations.
    """

    name: str
    variable: str
    dtypes: frozenset[np.dtype]
    required: bool
    homogeneous: bool


@cache
def _formals(op: Op) -> tuple[Sequence[_Formal], bool]:
    """The operands of an operation by its schema, and whether the last one may come several times."""
    schema = op.schema
    if schema is None or not schema.inputs:
        return (), False
    constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    numbers = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items() if number}
    found, options = [], defs.OpSchema.FormalParameterOption
    for formal in schema.inputs:
        allowed = constraints.get(formal.type_str, [formal.type_str])
        dtypes = {dtype_of_element(numbers[text]) for text in allowed if text in numbers}
        if any(map(is_differentiable, dtypes)):
            dtypes |= _FLOATS
        required = formal.option == options.Single
        found.append(_Formal(formal.name, formal.type_str, frozenset(dtypes), required, formal.is_homogeneous))
    return tuple(found), schema.inputs[-1].option == options.Variadic


def _check_operands(call: Call) -> None:
    """What onnx checks of operations that do not tell their types themselves.

    Raises:
        TypeInferenceError: an operand is missing, or has a dtype that it cannot have, or another one than an operand of the
            same type.
    """
    formals, variadic = _formals(call.op)
    name, count = call.op.qualified_name, len(call.inputs) if variadic else len(formals)
    first: dict[str, int] = {}
    for k in range(count):  # behind them is what subgraphs capture
        formal, type = formals[min(k, len(formals) - 1)], call.inputs[k] if k < len(call.inputs) else None
        if type is None and formal.required:
            raise TypeInferenceError(f"{name} lacks its operand {k}, {formal.name!r}")
        if not isinstance(type, TensorType) or not formal.homogeneous:
            continue
        if formal.dtypes and type.dtype not in formal.dtypes:
            allowed = " or ".join(sorted(map(dtype_name, formal.dtypes)))
            raise TypeInferenceError(f"operand {k} of {name}, {formal.name!r}, is {type}, but has to be of {allowed}")
        like = first.setdefault(formal.variable, k)
        if type.dtype != call.tensor(like).dtype:
            raise TypeInferenceError(
                f"operand {k} of {name}, {formal.name!r}, is {type}, but operand {like} is {call.tensor(like)}; "
                "they must be of one dtype"
            )


def _misfit(call: Call, error: Exception) -> TypeInferenceError:
    text = " ".join(str(error).split())
    operands = ", ".join("_" if t is None else str(t) for t in call.inputs)
    return TypeInferenceError(f"{call.op.qualified_name}({operands}) does not type-check: {text}")


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
            array = array if operand.static_shape is None else array.reshape(operand.static_shape)
        if array is not None and array.size <= _DATA_LIMIT and array.dtype != object:
            data[k] = array.astype(np.int64) if (call.op.qualified_name, k) in _READ_AS_INT64 else array
    return data


_READ_AS_INT64 = {("Pad", 3)}  # operands that may be int32 but whose data onnx (1.23) takes for int64


def _memo_key(call: Call, data: dict[int, np.ndarray]) -> Any:
    """What the answer depends on, or None where that cannot be hashed (arrays and graphs among the attributes)."""
    if any(isinstance(value, Graph) for value in call.attrs.values()):
        return None  # it may change
    attrs = tuple(call.attrs.items())
    arrays = tuple((k, a.shape, a.tobytes()) for k, a in data.items())
    key = (call.op, attrs, tuple(map(type, call.attrs.values())), call.inputs, call.n_outputs, arrays)
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
        raise _misfit(call, error) from None
    return tuple(type_from_proto(found[o]) if o in found else None for o in outputs)


# --- shapes out of symbols --------------------------------------------------------------------------------------------


def _reshape(call: Call) -> Shape:
    target, source = call.contents.get(1), call.tensor(0).shape
    if target is None:
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(target):
        if dim == 0 and not call.attrs.get("allowzero"):
            dims.append(source[axis] if source is not None and axis < len(source) else None)
        else:
            dims.append(dim)
    if source is None:
        return _not_negative(dims)
    count = multiply_dims(*source)
    if dims.count(-1) == 1:
        rest = multiply_dims(*(d for d in dims if d != -1))
        dims[dims.index(-1)] = divide_dims(count, rest) if rest != 0 else None
    elif isinstance(count, int) and all(isinstance(d, int) for d in dims) and multiply_dims(*dims) != count:
        raise TypeInferenceError(f"{call.tensor(0)}, which has {count} elements, cannot be reshaped to {_written(dims)}")
    return _not_negative(dims)


def _not_negative(dims: Sequence[Dim]) -> Shape:
    return tuple(None if isinstance(d, int) and d < 0 else d for d in dims)


def _written(dims: Sequence[Dim]) -> str:
    return "[" + ",".join("?" if d is None else str(d) for d in dims) + "]"


def _flatten(call: Call) -> Shape:
    shape, axis = call.tensor(0).shape, call.attrs["axis"]
    return None if shape is None else (multiply_dims(*shape[:axis]), multiply_dims(*shape[axis:]))


def _expand(call: Call) -> Shape:
    target, source = call.contents.get(1), call.tensor(0).shape
    if target is None or source is None:
        return None
    rank = max(len(target), len(source))
    a = (1,) * (rank - len(source)) + tuple(source)
    b = (1,) * (rank - len(target)) + tuple(target)
    return tuple(map(_broadcast, a, b))


def _broadcast(a: Dim, b: Dim) -> Dim:
    """The size of two axes that are broadcast together: that of the one which is not 1."""
    if a == b or b == 1:
        return a
    if a == 1 or isinstance(b, int):
        return b
    return a if isinstance(a, int) else None


def _from_contents(operand: int) -> Callable[[Call], Shape]:
    return lambda call: call.contents.get(operand)


def _tile(call: Call) -> Shape:
    repeats, source = call.contents.get(1), call.tensor(0).shape
    if repeats is None or source is None:
        return None
    _expect_length(call, 1, len(source))
    return tuple(map(multiply_dims, source, repeats))


def _sliced(dim: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    """What is left of an axis of size `dim`."""
    if not isinstance(step, int):
        return None
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
        return len(slice_range(start, end, step, dim))
    if step == 1 and start == 0 and (end == dim or (isinstance(end, int) and end >= _FAR)):
        return dim
    if step == -1 and isinstance(start, int) and isinstance(end, int) and end <= -_FAR and (start == -1 or start >= _FAR):
        return dim
    return None


_FAR = 2**31 - 1  # what exporters write for "to the end", if not more


def _slice(call: Call) -> Shape:
    source = call.tensor(0).shape
    starts, ends = call.contents.get(1), call.contents.get(2)
    if source is None or starts is None or ends is None:
        return None
    axes = call.contents.get(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.contents.get(4) if call.has(4) else (1,) * len(starts)
    if axes is None or steps is None:
        return None
    if 0 in steps:
        raise TypeInferenceError(f"a Slice of {call.tensor(0)} has a step of 0")
    for operand in (2, 3, 4):
        _expect_length(call, operand, len(starts))
    dims = list(source)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not isinstance(axis, int):
            return None
        dims[axis] = _sliced(dims[axis], start, end, step)
    return tuple(dims)


def _expect_length(call: Call, operand: int, length: int) -> None:
    """Raises TypeInferenceError where an operand that is present and known has another number of elements."""
    found = call.contents.get(operand)
    if found is not None and len(found) != length:
        name = call.op.qualified_name
        raise TypeInferenceError(f"operand {operand} of {name} has {len(found)} elements, but {length} are needed")


def _concat(call: Call) -> Shape:
    shapes = [call.tensor(k).shape for k in range(len(call.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    axis = call.attrs["axis"] % len(known[0])
    return (*(None,) * axis, add_dims(*(shape[axis] for shape in known)), *(None,) * (len(known[0]) - axis - 1))


def _split(call: Call) -> list[Shape]:
    shape, sizes, count = call.tensor(0).shape, call.contents.get(1), call.attrs.get("num_outputs")
    if count is not None and count != call.n_outputs:
        raise TypeInferenceError(f"a Split into {count} parts (num_outputs) has {call.n_outputs} outputs")
    if shape is None or (sizes is None and count is None):
        return []
    axis = call.attrs["axis"] % len(shape)
    length = shape[axis]
    if count is not None and isinstance(length, int) and (count - 1) * -(-length // count) > length:
        raise TypeInferenceError(
            f"{call.tensor(0)} cannot be split along axis {axis} into {count} parts of which only the last is smaller"
        )
    parts = sizes if sizes is not None else (divide_dims(shape[axis], count),) * call.n_outputs
    if parts[0] is None and count is not None:
        return []
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]


def _pad(call: Call) -> Shape:
    shape, pads = call.tensor(0).shape, call.contents.get(1)
    if shape is None or pads is None:
        return None
    axes = call.contents.get(3) if call.has(3) else tuple(range(len(shape)))
    if axes is None:
        return None
    _expect_length(call, 1, 2 * len(axes))
    dims = list(shape)
    for axis, before, behind in zip(axes, pads, pads[len(axes) :], strict=False):
        if not isinstance(axis, int):
            return None
        dims[axis] = add_dims(dims[axis], before, behind)
        if isinstance(size := dims[axis], int) and size < 0:
            raise TypeInferenceError(f"the pads of a Pad take more away from axis {axis} of {call.tensor(0)} than it has")
    return tuple(dims)


def _depth_to_space(call: Call) -> Shape:
    return _moved_blocks(call, divide_dims, multiply_dims)


def _space_to_depth(call: Call) -> Shape:
    return _moved_blocks(call, multiply_dims, divide_dims)


def _moved_blocks(call: Call, depth: Callable[[Dim, Dim], Dim], space: Callable[[Dim, Dim], Dim]) -> Shape:
    shape, block = call.tensor(0).shape, call.attrs["blocksize"]
    if shape is None or len(shape) != 4:
        return None
    n, c, h, w = shape
    dims = (n, depth(c, block * block), space(h, block), space(w, block))
    if any(new is None and isinstance(old, int) for new, old in zip(dims, shape, strict=True)):
        raise TypeInferenceError(f"{call.tensor(0)} cannot be cut into blocks of {block} x {block}")
    return dims


def _gather_elements(call: Call) -> Shape:
    data, indices = call.tensor(0), call.tensor(1)
    if data.rank is not None and indices.rank is not None and data.rank != indices.rank:
        raise TypeInferenceError(f"the data of GatherElements is {data}, but the indices, {indices}, have another rank")
    return indices.shape


_REFINE: dict[str, Callable[[Call], Shape | list[Shape]]] = {
    "Concat": _concat,
    "ConstantOfShape": _from_contents(0),
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": _tile,
}
