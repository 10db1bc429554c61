"""Random numbers.

The operations of the domain "irgrad" are pure: what they give depends on their key and shape alone, so that they can be
merged, folded and computed again like any other. ``irgrad.FoldIn`` derives keys from keys. The pass `explicit_keys` puts
them in the place of the standard operations, which draw new numbers in every run, or those of their `seed`: then the ones
that onnx.reference draws, of ``numpy.random.RandomState(seed)``. No gradient flows through any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.infer import infer_types
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable, find_op
from irgrad.ops.philox import emit_fold_in, emit_uniform, fold_in, generator, static_count
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import TensorType, Type

__all__ = ["below", "elem_type", "ops", "source_of"]

ops = OpTable()

FLOAT = int(TensorProto.FLOAT)


def elem_type(dtype: np.dtype) -> int:
    """ONNX's number for a dtype."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))


# --- keyed: pure functions of a key -----------------------------------------------------------------------------------

random_fold_in = ops.define("FoldIn", domain=IRGRAD_DOMAIN, gradient=ZERO)
"""``FoldIn(key, n)`` → a key (int64) for the n-th use of `key`; elementwise, broadcast. See `irgrad.ops.philox.fold_in`."""

uniform = ops.define("RandomUniform", domain=IRGRAD_DOMAIN, gradient=ZERO, defaults={"dtype": FLOAT})
"""``RandomUniform(shape, key)`` → numbers in [0, 1) of a `dtype`, float32 by default; `shape` is one-dimensional and `key`
one element, both int64.

They are those of numpy's ``Generator(Philox(key=key)).random(shape, dtype)``, in float16 and bfloat16 those of float32
rounded towards 0: whether a number is below a limit of that dtype has the right probability to 2**-24, and none is 1.
"""

normal = ops.define("RandomNormal", domain=IRGRAD_DOMAIN, gradient=ZERO, defaults={"dtype": FLOAT})
"""``RandomNormal(shape, key)`` → standard normal numbers of a `dtype`, float32 by default; operands as above.

By the method of Box and Muller from `RandomUniform` of the same key, whose first half gives the radii and whose second half
the angles. In float32 they reach to ±5.8, in float64 to ±8.6; those of float16 and bfloat16 are rounded from float32.

Reference: Box and Muller, A Note on the Generation of Random Normal Deviates, Annals of Mathematical Statistics 29 (1958).
"""


@random_fold_in.infer
def _fold_in_type(call: Call) -> Sequence[Type]:
    for type in (call.tensor(0), call.tensor(1)):
        if type.dtype != np.int64:
            raise TypeInferenceError(f"{call.op.qualified_name} takes keys and numbers of int64, not {type}")
    return infer_types(replace(call, op=find_op("Add"), contents={}))


@random_fold_in.kernel
def _fold_in(key: np.ndarray, data: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(fold_in(key, data), out)


@random_fold_in.lower
def _(b: Builder, node: Node) -> Value:
    return emit_fold_in(b, node.operand(0), node.operand(1))


_FLOATS = {
    elem: np.dtype(helper.tensor_dtype_to_np_dtype(elem))
    for elem in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
}


@uniform.infer
@normal.infer
def _keyed_type(call: Call) -> Sequence[Type]:
    name, shape, key = call.op.qualified_name, call.tensor(0), call.tensor(1)
    dtype = _FLOATS.get(call.attrs["dtype"])
    if dtype is None:
        raise TypeInferenceError(
            f"{name} gives floating-point numbers, not the dtype {call.attrs['dtype']}; cast its results"
        )
    if shape.dtype != np.int64 or (shape.shape is not None and len(shape.shape) != 1):
        raise TypeInferenceError(f"{name} takes a one-dimensional shape of int64, not {shape}")
    if key.dtype != np.int64 or (key.static_shape is not None and np.prod(key.static_shape) != 1):
        raise TypeInferenceError(f"{name} takes a key of one int64, not {key}")
    dims = call.contents.get(0)
    if dims is None and shape.shape is not None and isinstance(shape.shape[0], int):
        dims = (None,) * shape.shape[0]
    return [TensorType(dtype, dims)]


def _result_dtype(call: Call) -> np.dtype:
    result = call.outputs[0]
    assert isinstance(result, TensorType)
    return result.dtype


_KEPT = {"float16": 0xFFFFE000, "bfloat16": 0xFFFF0000}
"""The bits of a float32 that a narrower dtype has too. A multiple of 2**-24 below 1 that is cut to them is one of its
numbers, a subnormal one included."""


@uniform.prepare
def _uniform(call: Call) -> Kernel:
    dtype: Any = _result_dtype(call)
    wide: Any = accumulation_dtype(dtype)

    def kernel(shape: np.ndarray, key: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        if wide == dtype and out is not None and out.flags.c_contiguous:
            return generator(key).random(dtype=dtype, out=out)
        numbers = generator(key).random(tuple(shape), wide)
        if wide != dtype:
            bits = np.asarray(numbers).view(np.uint32)
            numbers = (bits & np.uint32(_KEPT[dtype.name])).view(wide).astype(dtype)
        return deliver(np.asarray(numbers), out)

    return kernel


@uniform.lower
def _(b: Builder, node: Node) -> Value:
    dtype = node.outputs[0].dtype
    wide = accumulation_dtype(dtype)
    numbers = emit_uniform(b, node.operand(0), node.operand(1), wide)
    if wide == dtype:
        return numbers
    bits = b.op("BitwiseAnd", b.op("BitCast", numbers, to=int(TensorProto.UINT32)), _KEPT[dtype.name])
    return b.cast(b.op("BitCast", bits, to=FLOAT), dtype)


@normal.prepare
def _normal(call: Call) -> Kernel:
    dtype = _result_dtype(call)
    wide: Any = accumulation_dtype(dtype)

    def kernel(shape: np.ndarray, key: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        dims = tuple(shape)
        count = prod(dims)
        half = (count + 1) // 2
        numbers = generator(key).random(2 * half, wide)
        radius, angle = numbers[:half], numbers[half:]
        np.subtract(1, radius, out=radius)  # in (0, 1]: its logarithm is finite
        np.log(radius, out=radius)
        np.multiply(radius, -2, out=radius)
        np.sqrt(radius, out=radius)
        np.multiply(angle, wide.type(2 * np.pi), out=angle)
        cosine = np.cos(angle)
        np.sin(angle, out=angle)
        np.multiply(angle, radius, out=angle)
        np.multiply(radius, cosine, out=radius)
        return deliver(numbers[:count].reshape(dims).astype(dtype, copy=False), out)

    return kernel


@normal.lower
def _(b: Builder, node: Node) -> Value:
    shape, dtype = node.operand(0), node.outputs[0].dtype
    wide = accumulation_dtype(dtype)
    static = static_count(shape)
    count: Value | np.ndarray
    if static is None:
        count = b.op("ReduceProd", shape, keepdims=1)
        half = b.op("Div", b.op("Add", count, 1), 2)
        halves, both = b.op("Concat", half, half, axis=0), b.op("Mul", half, 2)
    else:
        count, half_count = np.array([static]), (static + 1) // 2
        halves, both = b.ints([half_count] * 2), b.ints([2 * half_count])
    first, second = b.multi("Split", emit_uniform(b, both, node.operand(1), wide), halves, outputs=2, axis=0)
    radius = b.op("Sqrt", b.op("Log", 1 - first) * -2)
    angle = second * float(wide.type(2 * np.pi))
    numbers = b.op("Concat", radius * b.op("Cos", angle), b.op("Sin", angle) * radius, axis=0)
    if static is None or static % 2:
        numbers = b.op("Slice", numbers, b.ints([0]), count)
    return b.cast(b.op("Reshape", numbers, shape, allowzero=1), dtype)


# --- the standard operations ------------------------------------------------------------------------------------------

Source: TypeAlias = "np.random.Generator | np.random.RandomState"


def source_of(seed: float | None) -> Source:
    """Where the numbers of one execution come from: for a seed always the same ones, those that onnx.reference draws.

    Args:
        seed: the attribute of a node; absent or NaN for other numbers each time.
    """
    if seed is None or seed != seed:
        return np.random.default_rng()
    return np.random.RandomState(int(seed) % 2**32)


def below(high: float, low: float, dtype: np.dtype) -> Any:
    """The largest number of a dtype that is below `high`, as a scalar of it; `high` itself where `low` is equal to it."""
    top = dtype.type(high)
    if dtype.type(low) == top:
        return top
    return np.nextafter(top, dtype.type(-np.inf if high > low else np.inf), dtype=dtype)


def _rescaled(fractions: np.ndarray, low: float, high: float, dtype: np.dtype) -> np.ndarray:
    """Numbers in [0, 1) as ones in [low, high), which rounding does not leave."""
    np.multiply(fractions, high - low, out=fractions)
    np.add(fractions, low, out=fractions)
    limit = np.minimum if high >= low else np.maximum
    return np.asarray(limit(fractions.astype(dtype), below(high, low, dtype)))


def _uniform_numbers(call: Call, shape: tuple[int, ...]) -> np.ndarray:
    attrs = call.attrs
    return _rescaled(source_of(attrs.get("seed")).random(shape), attrs["low"], attrs["high"], _result_dtype(call))


def _normal_numbers(call: Call, shape: tuple[int, ...]) -> np.ndarray:
    numbers = source_of(call.attrs.get("seed")).standard_normal(shape)
    return np.asarray(numbers * call.attrs["scale"] + call.attrs["mean"]).astype(_result_dtype(call))


def _of_shape(numbers: Callable[[Call, tuple[int, ...]], np.ndarray], call: Call) -> Kernel:
    shape = tuple(call.attrs["shape"])
    return lambda *, out=None: deliver(numbers(call, shape), out)


def _like(numbers: Callable[[Call, tuple[int, ...]], np.ndarray], call: Call) -> Kernel:
    return lambda x, *, out=None: deliver(numbers(call, x.shape), out)


for _name, _numbers in {"RandomUniform": _uniform_numbers, "RandomNormal": _normal_numbers}.items():
    ops.define(_name, gradient=ZERO, random=True).prepare(partial(_of_shape, _numbers))
    ops.define(f"{_name}Like", gradient=ZERO, random=True).prepare(partial(_like, _numbers))


@ops.define("Bernoulli", gradient=ZERO, random=True).prepare
def _bernoulli(call: Call) -> Kernel:
    dtype, seed = _result_dtype(call), call.attrs.get("seed")

    def kernel(p: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return deliver((source_of(seed).random(p.shape) < p.astype(np.float64)).astype(dtype), out)

    return kernel


@ops.define("Multinomial", gradient=ZERO, random=True).prepare
def _multinomial(call: Call) -> Kernel:
    """The class of the largest log-probability after each got a Gumbel number of its own (the Gumbel-max trick)."""
    dtype, seed, count = _result_dtype(call), call.attrs.get("seed"), call.attrs["sample_size"]

    def kernel(scores: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        noise = source_of(seed).random((len(scores), count, scores.shape[1]))
        np.negative(np.log(noise, out=noise), out=noise)
        np.negative(np.log(noise, out=noise), out=noise)
        wide = scores.astype(accumulation_dtype(scores.dtype), copy=False)
        np.add(noise, wide[:, None, :], out=noise)
        return deliver(noise.argmax(2).astype(dtype), out)

    return kernel
