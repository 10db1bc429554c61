"""What the adjoint rules of poolings are made of: which windows there are, how large they are, and norms over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.ops.conv_lowering import cut, known_sizes
from irgrad.ops.elementwise import keep_where
from irgrad.ops.pool_kernels import divisors
from irgrad.ops.windows import Windows, explicit_pads, per_axis, windows_of

__all__ = ["geometry_of", "may_lie_in_padding", "norm_adjoint", "pool_windows", "window_sizes", "without_absent"]

_GEOMETRY = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def geometry_of(node: Node, *more: str) -> dict[str, Any]:
    """The attributes that say where windows are, and others that are named."""
    return {name: node.attrs[name] for name in (*_GEOMETRY, *more) if name in node.attrs}


def pool_windows(attrs: Any, size: Sequence[int]) -> Windows:
    """The windows of a pooling with these attributes over an image."""
    return windows_of(attrs, size, attrs["kernel_shape"])


def without_absent(b: Builder, dy: Value, positions: Value) -> tuple[Value, Value]:
    """Cotangents of maxima and their positions, with zeros at the position 0 where the position is -1: none."""
    present = b.op("GreaterOrEqual", positions, b.scalar(0, positions))
    return keep_where(b, present, dy), b.op("Max", positions, b.scalar(0, positions))


def may_lie_in_padding(node: Node) -> bool:
    """Whether some window of a MaxPool may read nothing of the image: it is nowhere, and its index is -1."""
    x, kernel = node.operand(0), node.attr("kernel_shape")
    rank = len(kernel)
    sizes = x.shape[2:] if x.shape is not None else (None,) * rank
    pads = explicit_pads(node.attrs, rank)
    for axis, (size, k, dilation) in enumerate(zip(sizes, kernel, per_axis(node.attrs, "dilations", rank, 1), strict=True)):
        widest = max(pads[axis]) if pads is not None else (k - 1) * dilation
        # Padding narrower than a window is stepped over, unless by holes that are wider than the image.
        if widest > (k - 1) * dilation or (widest and dilation > 1 and (not isinstance(size, int) or size < dilation)):
            return True
    return False


def window_sizes(b: Builder, node: Node, x_shape: Value, y: Value, *, include_padding: bool) -> Value:
    """How many positions each window of a pooling has, see `divisors`; it broadcasts to the pooling's result.

    Args:
        b: emits.
        node: has the attributes.
        x_shape: the shape of the pooling's operand.
        y: a value of the shape and dtype of its result.
        include_padding: count positions in the padding too.
    """
    attrs, rank = geometry_of(node), len(node.attr("kernel_shape"))
    sizes = known_sizes(x_shape.contents, rank)
    if sizes is not None:
        return b.constant(divisors(pool_windows(attrs, sizes), include_padding, y.dtype), y.dtype)
    pads = explicit_pads(attrs, rank)
    if include_padding and (pads is None or not attrs.get("ceil_mode")):
        return b.scalar(prod(attrs["kernel_shape"]), y)
    # Otherwise they are counted when it runs, as the sums over a plane of ones.
    sides = b.op("Slice", x_shape, b.ints([2]), b.ints([rank + 2]), b.ints([0]))
    if include_padding and pads is not None:
        sides = sides + b.ints([begin + end for begin, end in pads])
        attrs = {name: value for name, value in attrs.items() if name not in ("auto_pad", "pads")}
    plane = b.op("ConstantOfShape", b.op("Concat", b.ints([1, 1]), sides, axis=0), value=np.ones(1, y.dtype))
    sums = b.op("LpPool", plane, p=1, **attrs)
    # A plane that has the padding in it may have one more window, which would start behind the image.
    return cut(b, sums, b.op("Shape", y, start=2), rank) if include_padding else sums


def _nonzero(b: Builder, y: Value) -> Value:
    """`y` with ones for its zeros: a divisor where what is divided is zero, too."""
    return b.op("Where", b.op("Equal", y, 0), b.scalar(1, y), y)


def norm_adjoint(b: Builder, node: Node, pull: Callable[[Value], Value], dy: Value) -> Value:
    """The adjoint of ``y = (sum of |x| ** p) ** (1 / p)``, which is ``sign(x) * |x| ** (p - 1) * pull(dy / y ** (p - 1))``.

    At a window of zeros the gradient is taken to be 0.

    Args:
        b: emits.
        node: has p, x and y.
        pull: the adjoint of the sum.
        dy: cotangent of y.
    """
    x = node.operand(0)
    p: int = node.attr("p")
    if p < 1:
        raise UnsupportedOpError(f"the norm of order {p} has no gradient; p must be at least 1")
    if p == 1:
        return b.op("Sign", x) * pull(dy)
    y = _nonzero(b, node.outputs[0])
    weight = x if p == 2 else x * _power(b.op("Abs", x), p - 2)
    return weight * pull(dy / _power(y, p - 1))


def _power(v: Value, exponent: int) -> Value:
    return v if exponent == 1 else v * v if exponent == 2 else v**exponent
