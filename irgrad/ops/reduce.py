"""Reductions over axes, and arg-reductions.

The axes of a reduction are an optional operand. Where it is absent or empty, all axes are reduced, or, with
``noop_with_empty_axes=1``, none is: what the operation does to single elements (the square of ReduceSumSquare, the logarithm
of ReduceLogSum) is done all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from operator import mul
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.sums import Sum
from irgrad.op import ZERO, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.dims import same_shape
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.runtime.workspace import Workspace, planned, widened

__all__ = ["element_count", "ops"]

ops = OpTable()

# --- axes -------------------------------------------------------------------------------------------------------------


def _reduces_all_or_none(node: Node) -> bool:
    """Whether a node's axes are absent or known to be empty."""
    axes = node.input(1)
    return axes is None or axes.tensor_type.static_shape == (0,)


def _known_axes(node: Node) -> tuple[int, ...] | None:
    """The axes that a node reduces, ascending and not negative; None where they or the rank are not known yet."""
    rank = node.operand(0).rank
    if _reduces_all_or_none(node):
        if node.attr("noop_with_empty_axes"):
            return ()
        return None if rank is None else tuple(range(rank))
    contents = node.operand(1).contents
    if contents is None or rank is None:
        return None
    known = [int(a) % rank for a in contents if isinstance(a, int)]
    return tuple(sorted(known)) if len(known) == len(contents) else None


def _spread(b: Builder, node: Node, v: Value) -> Value:
    """A value of the shape of the node's result with the reduced axes put back, so that it broadcasts to the operand."""
    known = _known_axes(node)
    if node.attr("keepdims") or _reduces_all_or_none(node) or (known is not None and known == tuple(range(len(known)))):
        return v  # no axis was taken out, or all were, or the leading ones, which broadcasting puts back
    return b.op("Unsqueeze", v, node.operand(1))


def _fill(b: Builder, node: Node, v: Value) -> Value:
    """A value of the shape of the node's result, repeated along the reduced axes to the operand's shape."""
    x = node.operand(0)
    if _known_axes(node) == ():
        return v
    v = _spread(b, node, v)
    return v if same_shape(v.shape, x.shape) else b.op("Expand", v, b.shape_of(x))


def _again(b: Builder, node: Node, name: str, v: Value) -> Value:
    """Another reduction, over the axes of `node`, which keeps them with size 1."""
    return b.op(name, v, node.input(1), keepdims=1, noop_with_empty_axes=node.attr("noop_with_empty_axes"))


# --- kernels ----------------------------------------------------------------------------------------------------------


class _Form:
    """What a reduction of some axes of an operand of static shape is: `axes` counted from 0, `result` the result's shape."""

    def __init__(self, call: Call) -> None:
        self.shape, self.dtype = shape_of(call, 0), call.tensor(0).dtype
        given = call.constants[1].reshape(-1).tolist() if call.has(1) else []
        if not given and not call.attrs["noop_with_empty_axes"]:
            given = list(range(len(self.shape)))
        self.axes = tuple(sorted({int(axis) % len(self.shape) for axis in given}))
        self.kept = tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))
        left = tuple(size for axis, size in enumerate(self.shape) if axis not in self.axes)
        self.result = self.kept if call.attrs["keepdims"] else left
        self.count = prod(self.shape[axis] for axis in self.axes)
        self.space = Workspace()

    def sum(self) -> Sum:
        return Sum(self.space, self.shape, self.axes, self.dtype)


_Compute: TypeAlias = "Callable[[np.ndarray, np.ndarray, np.ndarray], Any]"
"""``compute(x, out, work)``, which writes a reduction of x into `out`."""

_Build: TypeAlias = "Callable[[_Form], _Compute]"


def _planned_reduction(build: _Build) -> Callable[[Call], Kernel]:
    def plan(call: Call) -> Kernel:
        form = _Form(call)
        compute = build(form)

        def kernel(
            x: np.ndarray, axes: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
        ) -> np.ndarray:
            y = np.empty(form.result, form.dtype) if out is None else out
            compute(x, y, work)
            return y

        return form.space.kernel(kernel)

    return planned(1)(plan)


def _summing(build: _Build) -> Callable[[Call], Kernel]:
    return planned(1)(widened(_planned_reduction(build)))


def _reduced(ufunc: np.ufunc, identity: Callable[[np.dtype], Any] | None = None) -> _Build:
    """A ufunc along the axes; of no elements, its identity."""

    def build(form: _Form) -> _Compute:
        options: dict[str, Any] = {} if identity is None or 0 not in form.shape else {"initial": identity(form.dtype)}

        def compute(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
            ufunc.reduce(x, form.axes, form.dtype, out=out, keepdims=form.result == form.kept, **options)

        return compute

    return build


def _lowest(dtype: np.dtype) -> Any:
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return dtype.type(False) if dtype.kind == "b" else dtype.type(-np.inf)


def _highest(dtype: np.dtype) -> Any:
    if dtype.kind in "iu":
        return np.iinfo(dtype).max
    return dtype.type(True) if dtype.kind == "b" else dtype.type(np.inf)


def _sum(form: _Form) -> _Compute:
    total = form.sum()
    return lambda x, out, work: total(x, out=out, work=work)


def _mean(form: _Form) -> _Compute:
    total, count = form.sum(), form.dtype.type(form.count)

    def compute(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        total(x, out=out, work=work)
        if form.dtype.kind in "iu":  # rounded towards zero, as onnx.reference does
            np.copyto(out, np.sign(out) * (np.abs(out) // count))
        else:
            np.divide(out, count, out=out)

    return compute


def _sum_square(form: _Form) -> _Compute:
    total = form.sum()
    return lambda x, out, work: total(x, x, out=out, work=work)


def _l1(form: _Form) -> _Compute:
    sizes, total = form.space.array(form.shape, form.dtype), form.sum()

    def compute(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        total(np.abs(x, out=sizes(work)), out=out, work=work)

    return compute


def _then(build: _Build, ufunc: np.ufunc) -> _Build:
    """A function of what another reduction gives; of integers, its values are cut off."""

    def build_both(form: _Form) -> _Compute:
        first = build(form)

        def compute(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
            first(x, out, work)
            if out.dtype.kind == "f":
                ufunc(out, out=out)
            else:
                np.copyto(out, ufunc(out), casting="unsafe")

        return compute

    return build_both


def _log_sum_exp(form: _Form) -> _Compute:
    dtype = form.dtype if form.dtype.kind == "f" else np.dtype(np.float64)
    tops, shifted = form.space.array(form.kept, dtype), form.space.array(form.shape, dtype)
    sums, total = form.space.array(form.result, dtype), Sum(form.space, form.shape, form.axes, dtype)

    def compute(x: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
        top, y, result = tops(work), shifted(work), sums(work)
        np.maximum.reduce(x, form.axes, dtype, out=top, keepdims=True, initial=-np.inf)
        np.copyto(top, 0, where=np.isinf(top))  # infinities would make NaN of themselves
        np.exp(np.subtract(x, top, out=y), out=y)
        np.log(total(y, out=result, work=work), out=result)
        np.add(result, top.reshape(result.shape), out=out, casting="unsafe")

    return compute


reduce_sum = ops.define("ReduceSum", cost=costs.per_operand(1))
reduce_mean = ops.define("ReduceMean", cost=costs.per_operand(1))
reduce_prod = ops.define("ReduceProd", cost=costs.per_operand(1))
reduce_max = ops.define("ReduceMax", cost=costs.per_operand(1))
reduce_min = ops.define("ReduceMin", cost=costs.per_operand(1))
reduce_l1 = ops.define("ReduceL1", cost=costs.per_operand(2))
reduce_l2 = ops.define("ReduceL2", cost=costs.per_operand(2))
reduce_sum_square = ops.define("ReduceSumSquare", cost=costs.per_operand(2))
reduce_log_sum = ops.define("ReduceLogSum", cost=costs.per_operand(1))
reduce_log_sum_exp = ops.define("ReduceLogSumExp", cost=costs.per_operand(4))

reduce_sum.prepare(_summing(_sum))
reduce_mean.prepare(_summing(_mean))
reduce_prod.prepare(_summing(_reduced(np.multiply)))
reduce_max.prepare(_planned_reduction(_reduced(np.maximum, _lowest)))
reduce_min.prepare(_planned_reduction(_reduced(np.minimum, _highest)))
reduce_l1.prepare(_summing(_l1))
reduce_l2.prepare(_summing(_then(_sum_square, np.sqrt)))
reduce_sum_square.prepare(_summing(_sum_square))
reduce_log_sum.prepare(_summing(_then(_sum, np.log)))
reduce_log_sum_exp.prepare(_summing(_log_sum_exp))

# --- adjoints of sums -------------------------------------------------------------------------------------------------


@reduce_sum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [_fill(b, node, dy)]


@reduce_mean.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [_fill(b, node, _divided_by_count(b, node, dy))]


def _divided_by_count(b: Builder, node: Node, dy: Value) -> Value:
    """The cotangent over the number of elements that each mean was formed of."""
    x, axes = node.operand(0), _known_axes(node)
    if axes == ():
        return dy
    wide = accumulation_dtype(dy.dtype)  # the count may be beyond what 16 bits can hold
    if axes is None and not _reduces_all_or_none(node):
        count = b.cast(b.op("Size", x), wide) / b.cast(b.op("Size", node.outputs[0]), wide)
    else:
        count = element_count(b, x, axes, wide)
        if count.constant is not None and dy.dtype.type(count.constant) == count.constant:
            return dy if count.constant == 1 else dy / b.constant(count.constant, dy.dtype)
    return b.cast(b.cast(dy, wide) / count, dy.dtype)


def element_count(b: Builder, x: Value, axes: Sequence[int] | None, dtype: np.dtype) -> Value:
    """The number of elements of x along some axes (all of them for None), as a 0-d value; a constant where it is static."""
    if axes is None or (x.shape is not None and len(axes) == len(x.shape)):
        static = x.tensor_type.static_shape
        return b.constant(prod(static), dtype) if static is not None else b.cast(b.op("Size", x), dtype)
    dims = None if x.shape is None else [x.shape[axis] for axis in axes]
    known = [d for d in dims or () if isinstance(d, int)]
    if dims is not None and len(known) == len(dims):
        return b.constant(prod(known), dtype)
    return b.cast(b.op("ReduceProd", b.op("Gather", b.op("Shape", x), b.ints(axes)), keepdims=0), dtype)


@reduce_l1.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """The subgradient at 0 is 0."""
    return [_spread(b, node, dy) * b.op("Sign", node.operand(0))]


@reduce_sum_square.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [_spread(b, node, 2 * dy) * node.operand(0)]


@reduce_l2.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """The direction x / |x| times dy; the subgradient at the zero vector is 0."""
    (y,) = node.outputs
    one = b.scalar(1, y)
    return [_spread(b, node, dy / b.op("Where", b.op("Equal", y, 0), one, y)) * node.operand(0)]


@reduce_log_sum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    wide, y = _wide_result(b, node)
    return [_fill(b, node, b.cast(b.cast(dy, wide) / b.op("Exp", y), dy.dtype))]


@reduce_log_sum_exp.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """The softmax times dy; 0 where all elements are -inf (masked out), as their limit from above is."""
    wide, y = _wide_result(b, node)
    finite = b.op("Where", b.op("IsInf", y), b.scalar(0, y), y)
    softmax = b.op("Exp", b.cast(node.operand(0), wide) - _spread(b, node, finite))
    return [b.cast(_spread(b, node, b.cast(dy, wide)) * softmax, dy.dtype)]


def _wide_result(b: Builder, node: Node) -> tuple[np.dtype, Value]:
    """The dtype to compute in, and the node's result in it.

    A logarithm of 16 bits is computed again: its rounding error would be the relative error of the exponential.
    """
    (y,) = node.outputs
    wide = accumulation_dtype(y.dtype)
    if wide == y.dtype:
        return wide, y
    return wide, b.op(node.op.qualified_name, b.cast(node.operand(0), wide), *node.inputs[1:], **node.attrs)


# --- adjoints of extremes and products --------------------------------------------------------------------------------


def _extreme_adjoint(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """The cotangent goes to the extreme element; elements that tie share it equally."""
    if _known_axes(node) == ():
        return [dy]
    x, (y,) = node.operand(0), node.outputs
    wide = accumulation_dtype(x.dtype)  # the number of ties may be beyond what 16 bits can hold
    hit = b.op("Equal", x, _spread(b, node, y))
    ties = _again(b, node, "ReduceSum", b.cast(hit, wide))
    share = b.cast(b.cast(_spread(b, node, dy), wide) / ties, dy.dtype)
    return [b.op("Where", hit, share, b.scalar(0, dy))]


reduce_max.adjoint(_extreme_adjoint)
reduce_min.adjoint(_extreme_adjoint)


@reduce_prod.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    """The cotangent times the product of the other elements, formed of those before and after it: nothing is divided by."""
    x, axes = node.operand(0), _known_axes(node)
    if axes == ():
        return [dy]
    if _reduces_all_or_none(node) or (axes is not None and len(axes) == x.rank):
        flat = x if x.rank == 1 else b.op("Reshape", x, b.ints([-1]))
        others = _others(b, flat, 0)
        return [_spread(b, node, dy) * (others if x.rank == 1 else b.reshape_like(others, x))]
    if x.rank is None:
        raise UnsupportedOpError("the gradient of a product along axes needs the rank of the operand at compile time")
    # One axis at a time: the products along the first axis, then, of their results, those along the second.
    named = None if axes is not None else _named_axes(b, node, x.rank)
    order = tuple(range(x.rank)) if axes is None else axes
    factors = []
    for axis in order:
        hit = None if named is None else b.op("Gather", named, b.constant(np.array(axis, np.int64)))
        others = _others(b, x, axis)
        factors.append(others if hit is None else b.op("Where", hit, others, b.scalar(1, x)))
        if axis != order[-1]:
            product = b.op("ReduceProd", x, b.ints([axis]), keepdims=1)
            x = product if hit is None else b.op("Where", hit, product, x)
    return [_spread(b, node, dy) * reduce(mul, factors)]


def _others(b: Builder, x: Value, axis: int) -> Value:
    """For each element the product of all others along an axis."""
    position = b.constant(np.array(axis, np.int64))
    return b.op("CumProd", x, position, exclusive=1) * b.op("CumProd", x, position, exclusive=1, reverse=1)


def _named_axes(b: Builder, node: Node, rank: int) -> Value:
    """For each axis of the operand whether a node reduces it, where its axes are known only at run time."""
    axes = node.operand(1)
    found = b.op("Equal", b.op("Unsqueeze", b.op("Mod", axes, rank), b.ints([1])), b.ints(range(rank)))
    named = b.op("ReduceMax", found, b.ints([0]), keepdims=0)
    if node.attr("noop_with_empty_axes"):
        return named
    return b.op("Or", named, b.op("Equal", b.op("Size", axes), 0))


# --- arg-reductions ---------------------------------------------------------------------------------------------------


def _arg_extreme(find: Callable[..., Any]) -> Kernel:
    def kernel(
        x: np.ndarray, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0, out: np.ndarray | None = None
    ) -> np.ndarray:
        if select_last_index:
            found = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=bool(keepdims))
        else:
            found = find(x, axis=axis, keepdims=bool(keepdims))
        return deliver(np.asarray(found, np.int64), out)

    return kernel


ops.define("ArgMax", kernel=_arg_extreme(np.argmax), gradient=ZERO, cost=costs.per_operand(1))
ops.define("ArgMin", kernel=_arg_extreme(np.argmin), gradient=ZERO, cost=costs.per_operand(1))
