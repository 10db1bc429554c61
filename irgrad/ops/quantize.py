"""Numbers in few bits: quantising, dequantising, and products of quantised tensors.

A tensor of integers (or of floats of 8 bits and less) stands for ``(x - zero_point) * scale``. Gradients flow through
DequantizeLinear to the scale, and, where the numbers are dequantised, on from there. They do not flow through a rounding:
quantised results are steps, whose derivative is 0 almost everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.infer import infer_types
from irgrad.op import ZERO, Call, Kernel, OpTable, Zero, find_op
from irgrad.ops import costs
from irgrad.ops.cast import plain
from irgrad.ops.conv import conv
from irgrad.ops.dims import Size, dim_of, join_sizes, reshape_to, shaped_like
from irgrad.ops.quantize_kernels import (
    centred,
    convolved,
    in_32_bits,
    multiplied,
    per_column,
    per_filter,
    per_row,
    rounded,
    spread,
)
from irgrad.runtime.kernels import deliver, deliver_all
from irgrad.types import Shape, TensorType, Type, dims_differ, dtype_of_element, is_differentiable

ops = OpTable()

_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)


def _check_zero_point(call: Call, dtype: np.dtype) -> None:
    """Raises TypeInferenceError where a zero point (operand 2) has another shape than its scale (operand 1), or dtype."""
    if not call.has(2):
        return
    scale, zero_point = call.tensor(1), call.tensor(2)
    if zero_point.dtype != dtype or _surely_differ(scale.shape, zero_point.shape):
        shape = TensorType(dtype, scale.shape)
        raise TypeInferenceError(f"the zero point of {call.op.name} is {zero_point}, but it has to be {shape}, as its scale")


def _surely_differ(a: Shape, b: Shape) -> bool:
    """Whether two shapes cannot be those of a scale and its zero point; one element may be a vector or not."""
    if a is None or b is None:
        return False
    if len(a) != len(b):
        return len(a) + len(b) != 1 or any(isinstance(dim, int) and dim != 1 for dim in (*a, *b))
    return any(map(dims_differ, a, b))


# --- to few bits ------------------------------------------------------------------------------------------------------

quantize_linear = ops.define("QuantizeLinear", gradient=ZERO)


@quantize_linear.infer
def _quantized_type(call: Call) -> Sequence[Type]:
    declared = call.attrs.get("output_dtype")
    dtype = dtype_of_element(declared) if declared else call.tensor(2).dtype if call.has(2) else _UINT8
    _check_zero_point(call, dtype)
    return [TensorType(dtype, call.tensor(0).shape)]


@quantize_linear.prepare
def _quantize_linear(call: Call) -> Kernel:
    result = call.outputs[0]
    assert isinstance(result, TensorType)
    target, axis, block = result.dtype, call.attrs["axis"], call.attrs["block_size"]
    saturate, precision = bool(call.attrs["saturate"]), _division_dtype(call)
    wide = np.promote_types(precision, np.float32) if precision.kind == "f" else _FLOAT32

    def kernel(
        x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        divisor = plain(spread(scale, x.shape, axis, block)).astype(precision)
        quotients = np.asarray(x.astype(precision) / divisor).astype(wide, copy=False)
        shift = None if zero_point is None else spread(zero_point, x.shape, axis, block)
        return deliver(rounded(quotients, shift, target, saturate), out)

    return kernel


def _division_dtype(call: Call) -> np.dtype:
    """The dtype in which a QuantizeLinear divides.

    It is the attribute's or the scale's; a scale of another kind (a power of two, an integer) takes the precision of x.
    """
    if call.attrs["precision"]:
        return dtype_of_element(call.attrs["precision"])
    found = (call.tensor(1).dtype, call.tensor(0).dtype)
    return next((dtype for dtype in found if is_differentiable(dtype)), np.dtype(np.float64))


dynamic_quantize_linear = ops.define("DynamicQuantizeLinear")
"""The scale that it computes is differentiable: by its expansion, which onnx defines."""


@dynamic_quantize_linear.infer
def _dynamically_quantized_types(call: Call) -> Sequence[Type]:
    types = [TensorType(_UINT8, call.tensor(0).shape), TensorType(call.tensor(0).dtype, ()), TensorType(_UINT8, ())]
    return types[: call.n_outputs]


@dynamic_quantize_linear.kernel
def _dynamic_quantize_linear(x: np.ndarray, *, out: Any = None) -> Any:
    """The range of x and 0 as 0 to 255. Where there is nothing but zeros, the scale is 0, and so are all of them."""
    low, high = x.min(initial=0), x.max(initial=0)
    scale = (high - low) / x.dtype.type(255)
    divisor = scale or x.dtype.type(1)
    zero_point = rounded(np.asarray(-low / divisor), None, _UINT8)
    return deliver_all((rounded(x / divisor, zero_point, _UINT8), np.asarray(scale), zero_point), out)


# --- and back ---------------------------------------------------------------------------------------------------------

dequantize_linear = ops.define("DequantizeLinear")


@dequantize_linear.infer
def _dequantized_type(call: Call) -> Sequence[Type]:
    _check_zero_point(call, call.tensor(0).dtype)
    declared = call.attrs["output_dtype"]
    return [TensorType(dtype_of_element(declared) if declared else call.tensor(1).dtype, call.tensor(0).shape)]


@dequantize_linear.prepare
def _dequantize_linear(call: Call) -> Kernel:
    """Differences are exact, products are formed in at least float32 and rounded once."""
    result = call.outputs[0]
    assert isinstance(result, TensorType)
    target, axis, block = result.dtype, call.attrs["axis"], call.attrs["block_size"]
    wide = target if target == np.float64 else _FLOAT32

    def kernel(
        x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        shift = None if zero_point is None else spread(zero_point, x.shape, axis, block)
        factor = plain(spread(scale, x.shape, axis, block)).astype(wide)
        return deliver(np.asarray(centred(x, shift, wide) * factor).astype(target, copy=False), out)

    return kernel


@dequantize_linear.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | Zero | None]:
    """The cotangent of a scale is the sum of ``dy * (x - zero_point)`` over the elements that it applies to."""
    x, scale, zero_point = node.operand(0), node.operand(1), node.input(2)
    dscale = None
    if b.needs(scale):
        static = scale.tensor_type.static_shape
        if static is None:
            ones = b.op("ConstantOfShape", b.shape_of(scale), value=np.ones(1, dy.dtype))
        else:
            ones = b.constant(np.ones(static, dy.dtype))
        attrs = {name: value for name, value in node.attrs.items() if name != "output_dtype"}
        difference = b.op("DequantizeLinear", x, ones, zero_point, **attrs)
        dscale = b.cast(_summed_like_scale(b, node, dy * difference), scale.dtype)
    return [ZERO, dscale, ZERO][: len(node.inputs)]


def _summed_like_scale(b: Builder, node: Node, v: Value) -> Value:
    """The sums of a tensor of the shape of x over the elements that each element of the scale applies to."""
    scale, block = node.operand(1), node.attr("block_size")
    one = scale.rank == 0 or scale.tensor_type.static_shape == (1,)
    if not one and (scale.rank is None or v.rank is None):
        raise UnsupportedOpError("the ranks of x and of its scale must be known at compile time; declare their shapes")
    if one or (block and scale.rank != v.rank):
        return shaped_like(b, b.reduce_sum(v, None), scale)
    rank = v.rank
    assert rank is not None
    axis = node.attr("axis") % rank
    count = dim_of(b, scale, axis if block else 0)
    if block:
        return _sums_of_blocks(b, v, axis, block, count)
    if isinstance(count, int):
        return b.reduce_sum(v, [k for k in range(rank) if k != axis])
    # A single scale would be that of the whole tensor.
    sums = b.op("irgrad.SumTo", v, join_sizes(b, *[1] * axis, count, *[1] * (rank - axis - 1)))
    return reshape_to(b, sums, count)


def _sums_of_blocks(b: Builder, v: Value, axis: int, block: int, count: Size) -> Value:
    """The sums over blocks along an axis; zeros fill up the last one."""
    rank = v.rank
    assert rank is not None
    size = dim_of(b, v, axis)
    if isinstance(size, int) and isinstance(count, int):
        missing: Size = count * block - size
    else:
        missing = (count if isinstance(count, Value) else b.ints([count])) * block - size
    if missing != 0:
        v = b.op("Pad", v, join_sizes(b, 0, missing), None, b.ints([axis]))
    before = [dim_of(b, v, k) for k in range(axis)]
    behind = [dim_of(b, v, k) for k in range(axis + 1, rank)]
    return b.reduce_sum(reshape_to(b, v, *before, count, block, *behind), [axis + 1])


# --- products of quantised tensors ------------------------------------------------------------------------------------

matmul_integer = ops.define("MatMulInteger", gradient=ZERO, cost=costs.matmul)


@matmul_integer.kernel
def _matmul_integer(
    a: np.ndarray,
    b: np.ndarray,
    a_zero_point: np.ndarray | None = None,
    b_zero_point: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    return deliver(in_32_bits(multiplied(a, a_zero_point, b, b_zero_point)), out)


conv_integer = ops.define("ConvInteger", gradient=ZERO, cost=costs.convolution)


@conv_integer.kernel
def _conv_integer(
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: np.ndarray | None = None,
    w_zero_point: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    return deliver(in_32_bits(convolved(x, x_zero_point, w, w_zero_point, attrs)), out)


@conv_integer.infer
def _conv_integer_type(call: Call) -> Sequence[Type]:
    return [_convolved_type(call, call.tensor(0), call.tensor(1), np.dtype(np.int32))]


def _convolved_type(call: Call, x: TensorType, w: TensorType, dtype: np.dtype) -> Type:
    assert conv.infer_rule is not None
    (type,) = conv.infer_rule(replace(call, inputs=(x, w)))
    assert isinstance(type, TensorType)
    return TensorType(dtype, type.shape)


qlinear_matmul = ops.define("QLinearMatMul", gradient=ZERO, cost=costs.qlinear_matmul)


@qlinear_matmul.kernel
def _qlinear_matmul(
    a: np.ndarray,
    a_scale: np.ndarray,
    a_zero_point: np.ndarray,
    b: np.ndarray,
    b_scale: np.ndarray,
    b_zero_point: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    if y_scale.ndim == 1 and y_scale.size > 1:
        raise ValueError("the scale of the result is a vector; it must be one element, or have as many axes as the result")
    factor = per_row(a_scale).astype(np.float64) * per_column(b_scale) / per_column(y_scale)
    exact = multiplied(a, a_zero_point, b, b_zero_point)
    return deliver(rounded(np.asarray(exact * factor), per_column(y_zero_point), y_zero_point.dtype), out)


@qlinear_matmul.infer
def _qlinear_matmul_type(call: Call) -> Sequence[Type]:
    """As onnx has it, which however does not take scales of float64."""
    factors = tuple(TensorType(_FLOAT32, call.tensor(k).shape) for k in (0, 3))
    (product,) = infer_types(replace(call, op=find_op("MatMul"), inputs=factors, constants={}, contents={}))
    assert isinstance(product, TensorType)
    return [TensorType(call.tensor(7).dtype, product.shape)]


qlinear_conv = ops.define("QLinearConv", gradient=ZERO, cost=costs.qlinear_conv)


@qlinear_conv.kernel
def _qlinear_conv(
    x: np.ndarray,
    x_scale: np.ndarray,
    x_zero_point: np.ndarray,
    w: np.ndarray,
    w_scale: np.ndarray,
    w_zero_point: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    exact = convolved(x, x_zero_point, w, w_zero_point, attrs, bias)
    factor = per_filter(w_scale, x.ndim - 2).astype(np.float64) * x_scale.reshape(()) / y_scale.reshape(())
    return deliver(rounded(exact * factor, y_zero_point.reshape(()), y_zero_point.dtype), out)


@qlinear_conv.infer
def _qlinear_conv_type(call: Call) -> Sequence[Type]:
    return [_convolved_type(call, call.tensor(0), call.tensor(3), call.tensor(7).dtype)]
