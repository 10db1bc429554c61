"""Cumulative sums and products along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Graph, Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.dims import size_operand
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import TensorType, Type

ops = OpTable()


def _accumulation(ufunc: np.ufunc, identity: int) -> Kernel:
    def kernel(
        x: np.ndarray, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0, out: np.ndarray | None = None
    ) -> np.ndarray:
        along = int(axis.reshape(()))
        wide = accumulation_dtype(x.dtype)
        result = out if out is not None and out.dtype == wide else np.empty(x.shape, wide)
        source, target = np.moveaxis(x, along, 0), np.moveaxis(result, along, 0)
        if reverse:
            source, target = source[::-1], target[::-1]
        if exclusive:
            target[:1] = identity
            source, target = source[:-1], target[1:]
        ufunc.accumulate(source, 0, wide, target)
        return result if result is out else deliver(result.astype(x.dtype, copy=False), out)

    return kernel


cum_sum = ops.define("CumSum", kernel=_accumulation(np.add, 0))
cum_prod = ops.define("CumProd", kernel=_accumulation(np.multiply, 1))


@cum_sum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    exclusive, reverse = node.attr("exclusive"), node.attr("reverse")
    return [b.op("CumSum", dy, node.operand(1), exclusive=exclusive, reverse=1 - reverse)]


@cum_prod.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """dx[k] = (product of x before k) * sum over i >= k of dy[i] * (product of x after k and up to i).

    For an exclusive product the sum is over i > k and the products end before i. Nothing is divided by, so that zeros
    among the factors are nothing special, in the gradient's own gradient neither.
    """
    x, position = node.operand(0), node.operand(1)
    axis = 0 if x.rank == 1 else size_operand(b, position)
    if isinstance(axis, int):
        return [_product_adjoint(b, node, x, dy, position, axis)]
    # Where the axis lies is known at run time only; with the axes before it and those behind it made one, it is the second.
    shape = b.shape_of(x)
    start = b.op("Mod", axis, b.op("Size", shape) if x.rank is None else x.rank)
    cuts = (b.ints([0]), start, start + 1, b.ints([np.iinfo(np.int64).max]))
    sizes = [b.op("ReduceProd", b.op("Slice", shape, *ends), keepdims=1) for ends in pairwise(cuts)]
    blocks = b.op("Concat", *sizes, axis=0)
    x, dy = (b.op("Reshape", v, blocks, allowzero=1) for v in (x, dy))
    dx = _product_adjoint(b, node, x, dy, b.constant(1, np.int64), 1)
    return [b.op("Reshape", dx, shape, allowzero=1)]


def _product_adjoint(b: Builder, node: Node, x: Value, dy: Value, position: Value, axis: int) -> Value:
    """The cotangent of a CumProd's operand x, laid out so that its axis is known; `position` is that as an operand."""
    reverse = node.attr("reverse")
    before = b.op("CumProd", x, position, exclusive=1, reverse=reverse)
    if node.attr("exclusive"):
        return before * b.op("irgrad.LinearRecurrence", dy, x, axis=axis, reverse=1 - reverse)
    return before * (dy + b.op("irgrad.LinearRecurrence", dy * x, x, axis=axis, reverse=1 - reverse))


# --- the recurrence that the adjoint of a product is ------------------------------------------------------------------

linear_recurrence = ops.define(
    "LinearRecurrence", domain=IRGRAD_DOMAIN, defaults={"axis": 0, "reverse": 0}, cost=costs.per_element(2)
)
"""``LinearRecurrence(u, a)`` → s with s[k] = u[k-1] + a[k-1] s[k-1] and s[0] = 0 along `axis`; from the end if `reverse`."""


@linear_recurrence.kernel
def _linear_recurrence(
    u: np.ndarray, a: np.ndarray, *, axis: int, reverse: int, out: np.ndarray | None = None
) -> np.ndarray:
    """In log2(n) sweeps over whole arrays, each composing the steps of twice as long a stretch.

    Source: Hillis and Steele, Data Parallel Algorithms, Communications of the ACM 29 (12), 1986.
    """
    wide = accumulation_dtype(u.dtype)
    sums, factors = np.zeros(u.shape, wide), np.zeros(u.shape, wide)
    s, f, u, a = (np.moveaxis(v, axis, 0) for v in (sums, factors, u, a))
    if reverse:
        s, f, u, a = s[::-1], f[::-1], u[::-1], a[::-1]
    s[1:], f[1:] = u[:-1], a[:-1]
    stretch = 1
    while stretch < len(s):
        s[stretch:] += f[stretch:] * s[:-stretch]
        f[stretch:] = f[stretch:] * f[:-stretch]
        stretch *= 2
    return deliver(sums.astype(u.dtype, copy=False), out)


@linear_recurrence.infer
def _linear_recurrence_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0)]


@linear_recurrence.adjoint
def _(b: AdjointBuilder, node: Node, ds: Value) -> tuple[Value, Value]:
    """The cotangents of the steps obey the same recurrence in the other direction."""
    (s,) = node.outputs
    du = b.op("irgrad.LinearRecurrence", ds, node.operand(1), axis=node.attr("axis"), reverse=1 - node.attr("reverse"))
    return du, du * s


@linear_recurrence.lower
def _(b: Builder, node: Node) -> Value:
    u, a = node.operand(0), node.operand(1)
    if u.shape is None:
        raise UnsupportedOpError("LinearRecurrence needs the rank of its operands to become standard operations")
    axis = node.attr("axis") % len(u.shape)
    others = [k for k in range(len(u.shape)) if k != axis]
    shape = b.shape_of(u)
    if shape.constant is not None:
        start_shape = b.ints([int(shape.constant[k]) for k in others])
    else:
        start_shape = b.op("Gather", shape, b.ints(others))
    start = b.op("ConstantOfShape", start_shape, value=np.zeros(1, u.dtype))
    attrs: dict[str, Any] = {
        "body": _step(TensorType(u.dtype, tuple(u.shape[k] for k in others))),
        "num_scan_inputs": 2,
        "scan_input_axes": (axis, axis),
        "scan_output_axes": (axis,),
        "scan_input_directions": (node.attr("reverse"),) * 2,
        "scan_output_directions": (node.attr("reverse"),),
    }
    return b.multi("Scan", start, u, a, outputs=2, **attrs)[1]


def _step(type: TensorType) -> Graph:
    """The body of the Scan: (s, u, a) → (u + a s, s)."""
    body = Graph("step")
    s, u, a = (body.add_input(name, type) for name in ("s", "u", "a"))
    with Builder(body) as b:
        body.set_outputs({"next": u + a * s, "s_out": b.op("Identity", s)})
    return body
