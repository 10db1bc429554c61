"""Normalisation by an operand's own statistics or norm: layer, RMS, instance, group, mean-variance and Lp normalisation.

The statistics of 16-bit operands are formed in float32, as the attribute `stash_type` has it by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.kernels.normalise import normalise
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.sums import Sum
from irgrad.kernels.wide import Wide
from irgrad.op import Call, Kernel, OpTable, WorkspaceKernel
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.compiled import compiled
from irgrad.ops.reduce import element_count
from irgrad.ops.standardise import average, pulled_back, standardised
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import TensorType, Type, dtype_of_element

ops = OpTable()

# --- what they share --------------------------------------------------------------------------------------------------


def _type_of_x(call: Call) -> Sequence[Type]:
    """The result's type where it is that of x and onnx does not infer it."""
    return [call.tensor(0)]


def _trailing_axes(node: Node, index: int = 0) -> list[int]:
    """The axes of an operand from the attribute `axis` on, counted from the last one where the rank is unknown."""
    axis, x = node.attr("axis"), node.operand(index)
    if x.rank is None and axis < 0:
        return list(range(axis, 0))
    rank = rank_of(x)
    return list(range(axis % rank, rank))


def _standardising(
    call: Call, shape: Sequence[int], first: int, *, centred: bool = True, per_row: int = 0
) -> WorkspaceKernel:
    """A kernel for the operands x, scale and, perhaps, bias; see `normalise`, whose `shape` is one that x can be seen in.

    The further results are the mean and the inverse standard deviation.
    """
    places = [accumulation_dtype(call.tensor(k).dtype) for k in range(2)]
    wide = np.promote_types(*places)
    space = Workspace()
    operands = [Wide(space, shape_of(call, k), call.tensor(k).dtype, wide) for k in range(3) if call.has(k)]
    full = shape_of(call, 0)
    # A factor that differs from row to row is applied to the whole result.
    late = not per_row and any(_reaches_before(shape_of(call, k), full, first) for k in (1, 2) if call.has(k))
    statistics = (*full[:first], *(1,) * (len(full) - first))
    dtypes = [type.dtype for type in call.outputs if isinstance(type, TensorType)]
    results = [Wide(space, full if k == 0 else statistics, dtype, wide) for k, dtype in enumerate(dtypes)]
    compute = space.part(normalise(shape, first, wide, call.attrs["epsilon"], centred=centred, per_row=per_row))

    def kernel(*arrays: np.ndarray, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, ...]:
        x, scale, *shifts = (a.of(array, work) for a, array in zip(operands, arrays, strict=False) if array is not None)
        places = out if isinstance(out, tuple) else (out,) * len(results)
        made = [r.place(place, work) for r, place in zip(results, places, strict=True)]
        y, mean, inverse = (*made, None, None)[:3]
        bias = shifts[0] if shifts else None
        compute(x, *((None, None) if late else (scale, bias)), mean, inverse, out=y, work=work)
        if late:
            np.multiply(made[0], scale, out=made[0])
            for shift in shifts:
                np.add(made[0], shift, out=made[0])
        return tuple(r.done(a, place) for r, a, place in zip(results, made, places, strict=True))

    return space.kernel(kernel)


def _reaches_before(factor: Sequence[int], full: Sequence[int], first: int) -> bool:
    """Whether something that is broadcast to a shape has axes before the axis `first`."""
    return any(size != 1 for size in factor[: max(len(factor) - (len(full) - first), 0)])


# --- layer and RMS normalisation --------------------------------------------------------------------------------------

layer_norm = ops.define("LayerNormalization", in_place=(0,), broadcasts=(1, 2), cost=costs.per_operand(7))


@layer_norm.prepare
@compiled
@planned()
def _layer_norm(call: Call) -> Kernel:
    shape = shape_of(call, 0)
    return _standardising(call, shape, call.attrs["axis"] % len(shape))


@layer_norm.infer
def _layer_norm_types(call: Call) -> Sequence[Type]:
    """As onnx has it, except that statistics may be stashed in float64 too."""
    x, axis = call.tensor(0), call.attrs["axis"]
    statistics = x.with_shape(None)
    if x.shape is not None:
        if not -len(x.shape) <= axis < len(x.shape):
            raise TypeInferenceError(f"LayerNormalization has the axis {axis} for an operand of type {x}")
        axis %= len(x.shape)
        statistics = x.with_shape((*x.shape[:axis], *(1,) * (len(x.shape) - axis)))
    stashed = TensorType(dtype_of_element(call.attrs["stash_type"]), statistics.shape)
    return [x, stashed, stashed][: call.n_outputs]


@layer_norm.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> tuple[Value | None, ...]:
    """Also of the further outputs: the mean passes on dmean / n, 1 / std passes on −dinv · x̂ / std² / n."""
    x, scale = node.operand(0), node.operand(1)
    dy, dmean, dinverse = (*cotangents, None, None)[:3]
    if not (b.needs(x) or b.needs(scale)):
        return (None, None, dy)[: len(node.inputs)]
    if dy is not None and dmean is None and dinverse is None and _same_for_all_rows(node):
        return _in_one(b, node, dy, centred=True)
    wide = accumulation_dtype(x.dtype)
    axes = _trailing_axes(node)
    x_wide = b.cast(x, wide)
    if dtype_of_element(node.attr("stash_type")) == wide:
        mean, inverse = b.further_output(node, 1), b.further_output(node, 2)
        normalised = (x_wide - mean) * inverse
    else:
        normalised, inverse = standardised(b, x_wide, axes, node.attr("epsilon"))
    dscale: Value | None = None
    parts = []
    if dy is not None:
        dy_wide = b.cast(dy, wide)
        if b.needs(x):
            parts.append(pulled_back(b, dy_wide * b.cast(scale, wide), normalised, inverse, axes))
        if b.needs(scale):
            dscale = b.cast(dy_wide * normalised, dy.dtype)
    if b.needs(x) and dinverse is not None:
        parts.append(b.cast(dinverse, wide) * (inverse * inverse) * normalised / -element_count(b, x, axes, wide))
    if b.needs(x) and dmean is not None:
        parts.append(b.op("Expand", b.cast(dmean, wide) / element_count(b, x, axes, wide), b.shape_of(x)))
    dx = b.cast(sum(parts[1:], start=parts[0]), x.dtype) if parts else None
    return (dx, dscale, dy)[: len(node.inputs)]


rms_norm = ops.define("RMSNormalization", in_place=(0,), broadcasts=(1,), cost=costs.per_operand(4))


@rms_norm.prepare
@compiled
@planned()
def _rms_norm(call: Call) -> Kernel:
    shape = shape_of(call, 0)
    return _standardising(call, shape, call.attrs["axis"] % len(shape), centred=False)


@rms_norm.infer
def _rms_norm_type(call: Call) -> Sequence[Type]:
    """The result has the dtype of the scale, which onnx's inference overlooks."""
    return [TensorType(call.tensor(1).dtype, call.tensor(0).shape)]


@rms_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, ...]:
    x, scale = node.operand(0), node.operand(1)
    if _same_for_all_rows(node):
        return _in_one(b, node, dy, centred=False)
    wide = accumulation_dtype(np.promote_types(x.dtype, scale.dtype))
    axes = _trailing_axes(node)
    normalised, inverse = standardised(b, b.cast(x, wide), axes, node.attr("epsilon"), centred=False)
    dy_wide = b.cast(dy, wide)
    dx = dscale = None
    if b.needs(x):
        g = dy_wide * b.cast(scale, wide)
        dx = b.cast(pulled_back(b, g, normalised, inverse, axes, centred=False), x.dtype)
    if b.needs(scale):
        dscale = b.cast(dy_wide * normalised, scale.dtype)
    return dx, dscale


# --- their adjoint in one node ----------------------------------------------------------------------------------------


def _same_for_all_rows(node: Node) -> bool:
    """Whether scale and bias are known to have the shape of what is standardised, which all rows share."""
    full, axis = node.operand(0).shape, node.attr("axis")
    if full is None or not all(isinstance(dim, int) for dim in full[axis % len(full) :]):
        return False
    row = full[axis % len(full) :]
    return all(v is None or v.shape == row for v in node.inputs[1:])


def _in_one(b: AdjointBuilder, node: Node, dy: Value, *, centred: bool) -> tuple[Value | None, ...]:
    x, scale = node.operand(0), node.operand(1)
    wide = accumulation_dtype(np.promote_types(x.dtype, scale.dtype))
    wrt = tuple(k for k, v in enumerate(node.inputs) if b.needs(v))
    found = b.multi(
        "irgrad.LayerNormalizationGrad",
        *(b.cast(v, wide) for v in (dy, x, scale)),
        outputs=len(wrt),
        axis=node.attr("axis"),
        epsilon=node.attr("epsilon"),
        centred=int(centred),
        wrt=wrt,
    )
    results: list[Value | None] = [None] * len(node.inputs)
    for k, cotangent in zip(wrt, found, strict=True):
        results[k] = b.cast(cotangent, node.operand(k).dtype)
    return tuple(results)


# --- instance and group normalisation ---------------------------------------------------------------------------------

instance_norm = ops.define("InstanceNormalization", in_place=(0,), cost=costs.per_operand(7))
group_norm = ops.define("GroupNormalization", in_place=(0,), cost=costs.per_operand(7))
group_norm.infer(_type_of_x)


@instance_norm.prepare
@compiled
@planned()
def _instance_norm(call: Call) -> Kernel:
    batch, channels, *image = shape_of(call, 0)
    return _standardising(call, (batch * channels, prod(image)), 1, per_row=1)


@group_norm.prepare
@compiled
@planned()
def _group_norm(call: Call) -> Kernel:
    batch, channels, *image = shape_of(call, 0)
    groups = call.attrs["num_groups"]
    each = channels // groups
    return _standardising(call, (batch * groups, each * prod(image)), 1, per_row=each)


@instance_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """That of a group of each channel; see `GroupNormalizationGrad`."""
    return _of_groups(b, node, dy, 0)


@group_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    return _of_groups(b, node, dy, node.attr("num_groups"))


def _of_groups(b: AdjointBuilder, node: Node, dy: Value, groups: int) -> list[Value | None]:
    rank_of(node.operand(0))
    wide = accumulation_dtype(node.operand(0).dtype)
    wrt = tuple(k for k, v in enumerate(node.inputs) if b.needs(v))
    operands = [b.cast(v, wide) for v in (dy, node.operand(0), node.operand(1))]
    attrs = {"epsilon": node.attr("epsilon"), "num_groups": groups, "wrt": wrt}
    found = b.multi("irgrad.GroupNormalizationGrad", *operands, outputs=len(wrt), **attrs)
    results: list[Value | None] = [None, None, None]
    for k, cotangent in zip(wrt, found, strict=True):
        results[k] = b.cast(cotangent, node.operand(k).dtype)
    return results


# --- normalisation without parameters ---------------------------------------------------------------------------------

mean_variance_norm = ops.define("MeanVarianceNormalization", in_place=(0,), cost=costs.per_operand(5))
mean_variance_norm.infer(_type_of_x)
lp_norm = ops.define("LpNormalization", cost=costs.per_operand(3))

_STD_EPSILON = 1e-9  # what the specification's function body adds to the standard deviation


@mean_variance_norm.prepare
@compiled
@planned()
@widened
def _mean_variance_norm(call: Call) -> Kernel:
    shape, dtype = shape_of(call, 0), call.tensor(0).dtype
    axes = {axis % len(shape) for axis in call.attrs["axes"]}
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    count = dtype.type(prod(shape[axis] for axis in axes))
    space = Workspace()
    numbers, total = space.array(kept, dtype), Sum(space, shape, sorted(axes), dtype)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y, number = np.empty(shape, dtype) if out is None else out, numbers(work)
        np.divide(total(x, out=number, work=work), count, out=number)
        np.subtract(x, number, out=y)
        np.divide(total(y, y, out=number, work=work), count, out=number)
        np.add(np.sqrt(number, out=number), dtype.type(_STD_EPSILON), out=number)
        np.divide(y, number, out=y)
        return y

    return space.kernel(kernel)


@mean_variance_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """As in irgrad/ops/standardise.py, but ε is added to the standard deviation, whose subgradient at 0 is 0."""
    x, wide, axes = node.operand(0), accumulation_dtype(dy.dtype), list(node.attr("axes"))
    x_wide, g, y = b.cast(x, wide), b.cast(dy, wide), b.cast(node.outputs[0], wide)
    difference = x_wide - average(b, x_wide, axes)
    deviation = b.op("Sqrt", average(b, difference * difference, axes))
    nonzero = b.op("Where", b.op("Equal", deviation, 0), b.scalar(1, deviation), deviation)
    dx = (g - average(b, g, axes)) / (deviation + _STD_EPSILON) - y * (average(b, g * y, axes) / nonzero)
    return b.cast(dx, x.dtype)


@lp_norm.prepare
@planned()
@widened
def _lp_norm(call: Call) -> Kernel:
    """A zero vector, which has no direction, is left as it is."""
    shape, dtype, axis = shape_of(call, 0), call.tensor(0).dtype, call.attrs["axis"]
    kept = [1 if k == axis % len(shape) else size for k, size in enumerate(shape)]
    space = Workspace()
    norms, total = space.array(kept, dtype), Sum(space, shape, [axis], dtype)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y, norm = np.empty(shape, dtype) if out is None else out, norms(work)
        if call.attrs["p"] == 1:
            total(np.abs(x, out=y), out=norm, work=work)
        else:
            np.sqrt(total(x, x, out=norm, work=work), out=norm)
        np.copyto(norm, np.inf, where=np.equal(norm, 0))
        np.divide(x, norm, out=y)
        return y

    return space.kernel(kernel)


@lp_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The cotangent is (dy − t · sum(dy · y)) / |x| with t = y for p = 2, sign(x) for p = 1.

    It is 0 for a zero vector, whose result is 0.
    """
    p, axis = node.attr("p"), node.attr("axis")
    x, wide = node.operand(0), accumulation_dtype(dy.dtype)
    x_wide, g, y = b.cast(x, wide), b.cast(dy, wide), b.cast(node.outputs[0], wide)
    norm = b.op("ReduceL2" if p == 2 else "ReduceL1", x_wide, b.ints([axis]), keepdims=1)
    nonzero = b.op("Where", b.op("Equal", norm, 0), b.scalar(np.inf, norm), norm)
    along = y if p == 2 else b.op("Sign", x_wide)
    return b.cast((g - along * b.reduce_sum(g * y, [axis], keepdims=True)) / nonzero, x.dtype)
