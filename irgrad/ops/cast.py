"""Operations that hand their operand on: as it is, or in another dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.runtime.kernels import deliver
from irgrad.types import TensorType, Type, dtype_name

ops = OpTable()


# --- the same again ---------------------------------------------------------------------------------------------------


def _same(x: Any, *, out: np.ndarray | None = None) -> Any:
    return x if out is None else deliver(x, out)


identity = ops.define("Identity", kernel=_same, view=True)


@identity.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy


stop_gradient = ops.define("StopGradient", domain=IRGRAD_DOMAIN, kernel=_same, gradient=ZERO, view=True)
"""``StopGradient(x)``: x, through which no gradient flows."""


@stop_gradient.infer
def _stop_gradient_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0)]


@stop_gradient.lower
def _(b: Builder, node: Node) -> Value:
    return b.op("Identity", node.operand(0))


# --- other dtypes -----------------------------------------------------------------------------------------------------

cast = ops.define("Cast", cost=costs.moves)
cast_like = ops.define("CastLike", cost=costs.moves)
bit_cast = ops.define("BitCast", cost=costs.moves)

_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_EXTENDED = {"int2": np.int8, "uint2": np.uint8, "int4": np.int8, "uint4": np.uint8}


@cast.prepare
def _cast(call: Call) -> Kernel:
    convert, plain_one = _conversion(call), _is_plain(call)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        if out is None or not plain_one:
            return deliver(convert(x), out)
        np.copyto(out, x, casting="unsafe")
        return out

    return kernel


@cast_like.prepare
def _cast_like(call: Call) -> Kernel:
    convert = _conversion(call)

    def kernel(x: np.ndarray, like: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return deliver(convert(x), out)

    return kernel


def _is_plain(call: Call) -> bool:
    """Whether numpy's own conversion is the one that is asked for."""
    source, result = call.tensor(0).dtype, call.outputs[0]
    assert isinstance(result, TensorType)
    if source.name == "bfloat16":
        return result.dtype in (np.float32, np.float64)
    return _is_native(source) and (_is_native(result.dtype) or result.dtype.name == "bfloat16")


def _is_native(dtype: np.dtype) -> bool:
    return dtype.isbuiltin == 1 and dtype.kind in "fiub"


def _conversion(call: Call) -> Callable[[np.ndarray], np.ndarray]:
    """What turns an array of the dtype of the first operand into one of the dtype of the output, as Cast's tables say."""
    source, result = call.tensor(0).dtype, call.outputs[0]
    assert isinstance(result, TensorType)
    target = result.dtype
    if target == source:
        return lambda x: x
    if target.kind == "O":
        return lambda x: plain(x).astype(np.str_).astype(object)
    numeric = numeric_conversion(target, bool(call.attrs["saturate"]), call.attrs["round_mode"])
    if source.kind != "O":
        return numeric
    if target.kind not in "iu":
        return lambda x: numeric(_numbers(x).astype(np.float64))
    wide = np.uint64 if target == np.uint64 else np.int64
    return lambda x: numeric(_numbers(x).astype(wide))


def numeric_conversion(
    target: np.dtype, saturate: bool = True, round_mode: str = "up"
) -> Callable[[np.ndarray], np.ndarray]:
    """What turns numbers into those of another dtype; the further arguments are Cast's attributes."""
    if target.name == "float8_e8m0fnu":
        return lambda x: numpy_helper.to_float8e8m0(plain(x), saturate, round_mode)
    if target.name in _FLOAT8 and saturate:
        return lambda x: numpy_helper.saturate_cast(_as_float(x), target)
    return lambda x: plain(x).astype(target)


def plain(x: np.ndarray) -> np.ndarray:
    """The elements in one of numpy's own dtypes that has them all: those of ml_dtypes do not convert into each other."""
    return x if x.dtype.kind != "V" else x.astype(_EXTENDED.get(x.dtype.name, np.float32))


def _as_float(x: np.ndarray) -> np.ndarray:
    x = plain(x)
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


_numbers = np.vectorize(_number, otypes=[object])


@cast.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The derivative of a change of precision is taken to be 1: its rounding is no step."""
    return b.cast(dy, node.operand(0).dtype)


@cast_like.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Zero]:
    """Of its second operand only the dtype is read."""
    x = node.operand(0)
    return b.cast(dy, x.dtype) if b.needs(x) else None, ZERO


@bit_cast.prepare
def _bit_cast(call: Call) -> Kernel:
    result = call.outputs[0]
    assert isinstance(result, TensorType)
    target = result.dtype

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return deliver(x.view(target), out)

    return kernel


@bit_cast.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    source, target = node.operand(0).dtype, node.outputs[0].dtype
    if source != target:
        raise UnsupportedOpError(
            f"the bits of {dtype_name(source)} read as {dtype_name(target)} are no differentiable function; use Cast"
        )
    return dy
