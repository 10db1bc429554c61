"""Cases of irgrad/ops/quantize.py.

onnx.reference divides in the precision of x, adds zero points before it rounds, and takes the numbers of a QLinearMatMul of
8-bit floats for integers; these have the definition as their oracle.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from tests.ops.harness import Case, rng

INTEGERS: dict[str, Any] = {
    "i8": np.int8,
    "u8": np.uint8,
    "i16": np.int16,
    "u16": np.uint16,
    "i4": ml_dtypes.int4,
    "u4": ml_dtypes.uint4,
    "i2": ml_dtypes.int2,
    "u2": ml_dtypes.uint2,
}
FLOATS: dict[str, Any] = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2": ml_dtypes.float8_e5m2,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
}
X = (rng(0).standard_normal((2, 3, 5)) * 40).astype(np.float32)
ALL = np.array([-1e6, -300, -129, -8.6, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 7.4, 254.5, 300, 7e4, 1e6], np.float32)
SCALE = np.float32(0.5)
PER_AXIS = np.array([0.5, 2, 1.25], np.float32)
BLOCKS = rng(1).uniform(0.5, 2, (2, 3, 3)).astype(np.float32)


def zeros(like: np.ndarray, dtype: Any) -> np.ndarray:
    """Zero points that are 0 and 1 in turns."""
    return (np.arange(like.size) % 2).astype(np.int32).astype(dtype).reshape(like.shape)


def quantized(x: np.ndarray, scale: Any, id: str, zero_point: Any = None, **options: Any) -> Case:
    operands = [x, np.asarray(scale), *([] if zero_point is None else [zero_point])]
    oracle, dynamic = options.pop("oracle", None), options.pop("dynamic", True)
    return Case("QuantizeLinear", operands, options, id=id, order=0, oracle=oracle, dynamic=dynamic)


def dequantized(x: Any, scale: Any, id: str, zero_point: Any = None, **attrs: Any) -> Case:
    operands = [x, np.asarray(scale), *([] if zero_point is None else [zero_point])]
    return Case("DequantizeLinear", operands, attrs, id=id)


def code(dtype: Any) -> int:
    return int(TensorProto.DataType.Value(dtype))


QUANTIZE = [
    quantized(ALL, SCALE, "default"),
    *(quantized(ALL, SCALE, id, np.array(1, np.int32).astype(dtype)) for id, dtype in INTEGERS.items()),
    *(quantized(ALL, SCALE, id, np.zeros((), dtype)) for id, dtype in FLOATS.items()),
    quantized(ALL, SCALE, "no-saturation", np.zeros((), FLOATS["e5m2"]), saturate=0),
    quantized(ALL, SCALE, "output-dtype", output_dtype=code("INT4")),
    quantized(X, PER_AXIS, "axis", zeros(PER_AXIS, np.uint8)),
    quantized(X, PER_AXIS, "axis-from-the-end", zeros(PER_AXIS, np.int8), axis=-2),
    quantized(X, PER_AXIS[:1], "one-element", zeros(PER_AXIS[:1], np.int8)),
    quantized(X, BLOCKS, "blocks-with-a-rest", zeros(BLOCKS, np.int8), axis=-1, block_size=2),
    quantized(X, BLOCKS[:, :1, [0, 0, 1, 1, 2]], "one-block", axis=1, block_size=3, output_dtype=code("INT16")),
    quantized(X[0, 0], BLOCKS[0, 0], "blocks-of-a-vector", axis=0, block_size=2),
    quantized(ALL[1:-2].astype(np.float16), np.float16(0.5), "f16"),
    quantized(ALL.astype(ml_dtypes.bfloat16), np.asarray(0.5, ml_dtypes.bfloat16), "bf16"),
    quantized(np.array([-300, -3, 5, 6, 400], np.int32), np.float32(2), "i32"),
    quantized(np.array([-300, -3, 5, 6, 400], np.int32), np.int32(2), "i32-scale"),
    quantized(X, np.asarray(2.0, ml_dtypes.float8_e8m0fnu), "power-of-two", zeros(np.zeros(()), np.int8)),
    # In half precision, 0.3 is 0.30005, there are even numbers only beyond 2048, and multiples of 4 beyond 4096.
    quantized(
        np.array([1000, 2049], np.float32),
        np.float16(0.3),
        "precision-of-the-scale",
        output_dtype=code("UINT16"),
        oracle=lambda x, s: np.array([3332, 6824], np.uint16),
    ),
    quantized(
        np.array([1000, 2049], np.float32),
        np.float16(1),
        "precision",
        output_dtype=code("UINT16"),
        precision=code("FLOAT"),
    ),
    # Rounding comes first: 0.5 becomes 0, not 1.5 becomes 2.
    quantized(np.array([0.5, 1.5], np.float32), np.float32(1), "ties", np.uint8(1), oracle=lambda x, s, z: np.uint8([1, 3])),
    Case("DynamicQuantizeLinear", [X], outputs=3, order=0),
    Case("DynamicQuantizeLinear", [np.abs(X)], outputs=3, id="positive", order=0),
    Case("DynamicQuantizeLinear", [-np.abs(X[0])], outputs=3, id="negative", order=0),
    Case(
        "DynamicQuantizeLinear",
        [0 * X],
        outputs=3,
        id="zeros",
        order=0,
        oracle=lambda x: (np.zeros(x.shape, np.uint8), np.float32(0), np.uint8(0)),
    ),
]

SOME = rng(2).integers(-2, 2, (2, 3, 5)).astype(np.int32)
WIDE = rng(3).integers(-3000, 3000, (2, 3, 5)).astype(np.int32)
PER_AXIS64, BLOCKS64 = PER_AXIS.astype(np.float64), BLOCKS.astype(np.float64)

DEQUANTIZE = [
    *(
        dequantized(np.abs(SOME).astype(dtype), 0.7, id, np.array(1, np.int32).astype(dtype))
        for id, dtype in INTEGERS.items()
    ),
    *(dequantized(SOME.astype(dtype), 0.7, id) for id, dtype in FLOATS.items()),
    dequantized(WIDE, 0.7, "i32"),
    dequantized(WIDE.astype(np.int16), 0.7, "no-zero-point"),
    dequantized(WIDE.astype(np.int16), PER_AXIS64[:1], "one-element", np.array([3], np.int16)),
    dequantized(SOME.astype(np.int8), PER_AXIS64, "axis", zeros(PER_AXIS, np.int8)),
    dequantized(SOME.astype(np.int8), PER_AXIS64, "axis-from-the-end", axis=-2),
    dequantized(SOME.astype(np.int8), BLOCKS64, "blocks-with-a-rest", zeros(BLOCKS, np.int8), axis=2, block_size=2),
    dequantized(SOME[..., :4].astype(np.int8), BLOCKS64[..., :2], "blocks", axis=-1, block_size=2),
    dequantized(SOME.astype(np.int8), BLOCKS64[:, :1, [0, 0, 1, 1, 2]], "one-block", block_size=3),
    dequantized(SOME[0, 0].astype(np.int8), BLOCKS64[0, 0], "blocks-of-a-vector", axis=0, block_size=2),
    dequantized(SOME.astype(np.int8), 0.7, "one-scale-in-blocks", block_size=2),
    dequantized(SOME[0, 0].astype(np.int8), BLOCKS64[0, 0, :1], "vector"),
    dequantized(SOME.astype(np.int8), SCALE, "f32", np.int8(1)),
    dequantized(WIDE.astype(np.int16), PER_AXIS.astype(np.float16), "f16", zeros(PER_AXIS, np.int16)),
    dequantized(SOME.astype(np.int8), PER_AXIS.astype(ml_dtypes.bfloat16), "bf16"),
    dequantized(SOME.astype(np.int8), PER_AXIS.astype(np.float16), "output-dtype", output_dtype=code("FLOAT")),
    dequantized(SOME.astype(np.int8), PER_AXIS, "shorter-output-dtype", output_dtype=code("BFLOAT16")),
    Case(
        "DequantizeLinear",
        [SOME.astype(np.int8), np.asarray(2.0, ml_dtypes.float8_e8m0fnu)],
        {"output_dtype": code("FLOAT")},
        id="power-of-two",
        order=0,
    ),
]

A, B = rng(4).integers(0, 255, (2, 3, 4)).astype(np.uint8), rng(5).integers(-128, 127, (4, 5)).astype(np.int8)
ROWS, COLUMNS = np.array([1, 2, 3], np.uint8), np.array([1, -2, 3, -4, 5], np.int8)


def product(*operands: Any, id: str, oracle: Any = None) -> Case:
    return Case("MatMulInteger", list(operands), id=id, order=0, oracle=oracle)


def by_definition(a: Any, sa: Any, za: Any, b: Any, sb: Any, zb: Any, sy: Any, zy: Any) -> np.ndarray:
    """QLinearMatMul: dequantise, multiply, quantise."""

    def rows(v: np.ndarray) -> np.ndarray:
        return v[:, None] if v.ndim == 1 else v

    wide = [np.asarray(v).astype(np.float64) for v in (a, sa, za, b, sb, zb, sy, zy)]
    a, sa, za, b, sb, zb, sy, shift = wide
    real = ((a - rows(za)) * rows(sa)) @ ((b - zb) * sb) / sy
    if zy.dtype.kind in "iu":
        limits = np.iinfo(zy.dtype)
        return np.clip(np.rint(real) + shift, limits.min, limits.max).astype(zy.dtype)
    largest = float(ml_dtypes.finfo(zy.dtype).max)
    return np.clip(real + shift, -largest, largest).astype(np.float32).astype(zy.dtype)


def qlinear(a: Any, sa: Any, za: Any, b: Any, sb: Any, zb: Any, sy: Any, zy: Any, id: str) -> Case:
    operands = [np.asarray(v) for v in (a, sa, za, b, sb, zb, sy, zy)]
    return Case("QLinearMatMul", operands, id=id, order=0, oracle=by_definition)


S = np.float32
EIGHT, EIGHT_B = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
PRODUCTS = [
    product(A, B, id="no-zero-points"),
    product(A, B, np.uint8(3), np.int8(-7), id="zero-points"),
    product(
        A[0],
        B,
        ROWS,
        COLUMNS,
        id="rows-and-columns",
        oracle=lambda a, b, r, c: (a - r[:, None].astype(int)) @ (b - c.astype(int)),
    ),
    product(A, B, ROWS[:1], COLUMNS[:1], id="of-one-element"),
    product(A, B, np.broadcast_to(ROWS[:, None], (2, 3, 1)), id="rows-of-stacks"),
    product(A[0, 0], B, id="vector"),
    qlinear(A, S(0.02), np.uint8(3), B, S(0.01), np.int8(-7), S(0.3), np.int8(1), id="i8"),
    qlinear(
        A[0], np.array([0.1, 0.2, 0.3], S), ROWS, B, np.arange(1, 6).astype(S) / 9, COLUMNS, S(20), np.uint8(100), id="axes"
    ),
    qlinear(A[0], S([0.1]), ROWS[:1], B, S([0.2]), COLUMNS[:1], S([2]), np.uint8([100]), id="of-one-element"),
    qlinear(A, np.float16(0.02), np.uint8(3), B, np.float16(0.01), np.int8(-7), np.float16(0.3), np.int8(1), id="f16"),
    qlinear(
        X[..., :4].astype(EIGHT),
        S(0.5),
        np.zeros((), EIGHT),
        B.astype(EIGHT_B),
        S(0.1),
        np.zeros((), EIGHT_B),
        S(9),
        np.zeros((), EIGHT),
        id="float8",
    ),
]

IMAGES, WEIGHTS = (
    rng(6).integers(0, 255, (2, 4, 5, 6)).astype(np.uint8),
    rng(7).integers(-128, 127, (6, 4, 3, 3)).astype(np.int8),
)
PER_FILTER = np.arange(6).astype(np.int8)


def convolution(*operands: Any, id: str, oracle: Any = None, **attrs: Any) -> Case:
    return Case("ConvInteger", list(operands), attrs, id=id, order=0, oracle=oracle)


def filters(scale: Any) -> list[Any]:
    return [IMAGES, S(0.02), np.uint8(120), WEIGHTS, scale, zeros(np.asarray(scale), np.int8), S(3), np.uint8(128)]


CONVOLUTIONS = [
    convolution(IMAGES, WEIGHTS, id="no-zero-points"),
    convolution(IMAGES, WEIGHTS, np.uint8(120), id="zero-point", pads=(1, 0, 2, 1), strides=(2, 1)),
    convolution(IMAGES, WEIGHTS, np.uint8(120), PER_FILTER, id="zero-points", dilations=(1, 2), auto_pad="SAME_UPPER"),
    convolution(IMAGES, WEIGHTS[:, :2], np.uint8(120), np.int8(5), id="groups", group=2),
    convolution(IMAGES[..., 0], WEIGHTS[..., 0], np.uint8([120]), np.int8(5), id="one-axis"),
    Case("QLinearConv", filters(S(0.01)), id="one-scale", order=0),
    Case("QLinearConv", filters(np.arange(1, 7).astype(S) / 100), {"pads": (1, 1, 1, 1)}, id="scales", order=0),
    Case("QLinearConv", [*filters(S(0.01)), np.arange(6).astype(np.int32) * 1000], {"strides": (2, 2)}, id="bias", order=0),
]

CASES = [*QUANTIZE, *DEQUANTIZE, *PRODUCTS, *CONVOLUTIONS]
