"""Comparisons, logic, bits and rounding: operations that are constant between jumps, through which no gradient flows."""

from __future__ import annotations

from typing import Any

import numpy as np

from irgrad.kernels.elementwise import spread
from irgrad.op import ZERO, Call, Kernel, OpTable
from irgrad.runtime.kernels import deliver

ops = OpTable()

for _name, _ufunc in {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
}.items():
    ops.define(_name, kernel=_ufunc, gradient=ZERO, broadcasts=True).prepare(spread(_ufunc))

for _name, _unary in {
    "Not": np.logical_not,
    "BitwiseNot": np.invert,
    "IsNaN": np.isnan,
    "Sign": np.sign,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
}.items():
    ops.define(_name, kernel=_unary, gradient=ZERO).prepare(spread(_unary))


@ops.define("BitShift", gradient=ZERO, broadcasts=True, in_place=True).prepare
def _bit_shift(call: Call) -> Kernel:
    """Shifts by a negative number, or by all the bits and more, are numpy's: what ONNX says of them."""
    return np.left_shift if call.attrs["direction"] == "LEFT" else np.right_shift


@ops.define("IsInf", gradient=ZERO).kernel
def _is_inf(x: np.ndarray, *, detect_negative: int = 1, detect_positive: int = 1, out: np.ndarray | None = None) -> Any:
    if detect_negative and detect_positive:
        return np.isinf(x, out=out)
    if not detect_negative and not detect_positive:
        return deliver(np.zeros(x.shape, np.bool_), out)
    return np.equal(x, x.dtype.type(np.inf if detect_positive else -np.inf), out=out)
