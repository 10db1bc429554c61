"""What generated code is made of beside plain arithmetic: access to arrays, and functions, as instructions of LLVM.

Imported by the generated modules only, since it needs numba. A function here is called from compiled code; numba's own forms
of the same have bounds, negative indices, branches or calls in them that keep a loop from being vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from irgrad.codegen.functions import FUNCTIONS, Real, extreme

__all__ = [
    "accumulate",
    "ceil",
    "cos",
    "erf",
    "exp",
    "expm1",
    "fabs",
    "float32",
    "float64",
    "floor",
    "get",
    "int32",
    "int64",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "power",
    "put",
    "rint",
    "select",
    "sigmoid",
    "signature",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
]

_ARRAYS = 64
"""Arrays that a function writes to are numbered from 1 below this."""


# --- arrays -------------------------------------------------------------------------------------------------------------


def _mark(builder: ir.IRBuilder, instruction: Any, number: int) -> None:
    """Tell LLVM which memory an instruction touches: arrays of different numbers do not overlap.

    All that is only read has the number 0, for such arrays may well overlap. Without this, LLVM would compare addresses of
    all pairs of arrays before each loop, and give up where these are many.
    """
    module = builder.module
    domain = module.add_metadata([ir.MetaDataString(module, "irgrad")])

    def scope(k: int) -> Any:
        return module.add_metadata([ir.MetaDataString(module, f"irgrad {k}"), domain])

    others = [0, *range(1, _ARRAYS)] if number else range(1, _ARRAYS)
    instruction.set_metadata("alias.scope", module.add_metadata([scope(number)]))
    instruction.set_metadata("noalias", module.add_metadata([scope(k) for k in others if k != number]))


def _place(context: Any, builder: ir.IRBuilder, type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


@intrinsic(prefer_literal=True)
def get(typing: Any, array: Any, index: Any, number: Any) -> Any:
    """``get(array, index, number)``: an element of a contiguous array, its axes counted as one."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
        loaded = builder.load(_place(context, builder, array, *operands[:2]))
        _mark(builder, loaded, number.literal_value)
        return context.data_model_manager[array.dtype].from_data(builder, loaded)

    return array.dtype(array, types.intp, number), generate


@intrinsic(prefer_literal=True)
def put(typing: Any, array: Any, index: Any, value: Any, number: Any) -> Any:
    """``put(array, index, value, number)``: write an element of a contiguous array, its axes counted as one."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
        data = context.data_model_manager[array.dtype].as_data(builder, operands[2])
        stored = builder.store(data, _place(context, builder, array, *operands[:2]))
        _mark(builder, stored, number.literal_value)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype, number), generate


# --- functions ----------------------------------------------------------------------------------------------------------


def _real_function(name: str, function: Callable[[Real], Real]) -> Any:
    def typed(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
            return function(Real(builder, operands[0])).value

        return x(x), generate

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = function.__doc__
    return intrinsic(typed)


exp, expm1, log, log1p, tanh, erf, sigmoid, softplus = (_real_function(n, f) for n, f in FUNCTIONS.items())


def _of_llvm(name: str) -> Any:
    def function(x: Real) -> Real:
        """One of LLVM's own functions."""
        return x.call(name)

    return _real_function(name, function)


sqrt, fabs, floor, ceil, rint, sin, cos = map(_of_llvm, ("sqrt", "fabs", "floor", "ceil", "rint", "sin", "cos"))


def _extreme(name: str, largest: bool) -> Any:
    def typed(typing: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
            a, b = operands
            if isinstance(x, types.Float):
                return extreme(Real(builder, a), Real(builder, b), largest=largest).value
            compare = builder.icmp_signed if isinstance(x, types.Integer) else builder.icmp_unsigned
            return builder.select(compare(">" if largest else "<", a, b), a, b)

        return x(x, x), generate

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = "The {} of two numbers of one type, NaN where one is.".format("larger" if largest else "smaller")
    return intrinsic(typed)


maximum, minimum = _extreme("maximum", True), _extreme("minimum", False)


@intrinsic
def power(typing: Any, x: Any, y: Any) -> Any:
    """The first real number to the power of the second, by the mathematical library."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
        return Real(builder, operands[0]).call("pow", Real(builder, operands[1])).value

    return x(x, x), generate


@intrinsic
def select(typing: Any, condition: Any, x: Any, y: Any) -> Any:
    """The second operand where the first holds, else the third; both have been computed."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
        return builder.select(*operands)

    return x(condition, x, x), generate


@intrinsic
def accumulate(typing: Any, total: Any, x: Any) -> Any:
    """The sum of a running total and a further term; the order in which the terms are added is free."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
        if isinstance(total, types.Float):
            return builder.fadd(*operands, flags=("reassoc", "contract"))
        return builder.add(*operands)

    return total(total, total), generate


# --- changes of type ------------------------------------------------------------------------------------------------------


def _conversion(target: Any) -> Any:
    def typed(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, operands: Any) -> Any:
            (value,) = operands
            wanted = context.get_value_type(target)
            if isinstance(x, types.Float) and isinstance(target, types.Float):
                change = builder.fptrunc if target.bitwidth < x.bitwidth else builder.fpext
                return value if target == x else change(value, wanted)
            if isinstance(x, types.Float):
                return builder.fptosi(value, wanted)
            if isinstance(target, types.Float):
                return (builder.uitofp if isinstance(x, types.Boolean) else builder.sitofp)(value, wanted)
            if isinstance(x, types.Boolean) or x.bitwidth == target.bitwidth:
                return builder.zext(value, wanted) if isinstance(x, types.Boolean) else value
            return builder.trunc(value, wanted) if target.bitwidth < x.bitwidth else builder.sext(value, wanted)

        return target(x), generate

    typed.__name__ = typed.__qualname__ = str(target)
    typed.__doc__ = f"A number or truth value as {target}."
    return intrinsic(typed)


float32, float64, int32, int64 = map(_conversion, (types.float32, types.float64, types.int32, types.int64))


# --- signatures ---------------------------------------------------------------------------------------------------------


def signature(integers: int, read: list[tuple[str, int]], written: list[tuple[str, int]]) -> Any:
    """The type of a generated function: integers, arrays that it reads (which may be read-only), arrays that it writes.

    Args:
        integers: how many come first.
        read: dtype and number of axes of each array.
        written: the same.
    """

    def array(dtype: str, rank: int, readonly: bool) -> Any:
        element = types.boolean if dtype == "bool" else getattr(types, np.dtype(dtype).name)
        return types.Array(element, rank, "C", readonly=readonly)

    arrays = [array(*a, True) for a in read] + [array(*a, False) for a in written]
    return types.void(*[types.intp] * integers, *arrays)
