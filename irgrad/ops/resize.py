"""Resize: sampling a tensor on a finer or coarser grid.

The result is linear in X. Where the samples lie follows from roi or scales, see `irgrad.ops.resize_positions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops import resampling_kernels as kernels
from irgrad.ops.dims import int_contents, shape_operand
from irgrad.ops.resampling import Taps, axes_of, samplings, scaled_length, taps_of, towards
from irgrad.ops.resize_positions import CROP, position_cotangents
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace, planned
from irgrad.types import Dim, Shape, Type, multiply_dims

ops = OpTable()

# --- kernels ----------------------------------------------------------------------------------------------------------

_Step: TypeAlias = "tuple[int, Taps, np.ndarray | None]"
"""One axis: which, its matrix, and which elements of the result are outside the operand (see `taps_of`)."""


def _steps(attrs: Mapping[str, Any], shape: Sequence[int], *operands: np.ndarray | None) -> list[_Step]:
    """The axes to resize, those that shrink first: the fewer elements are left for the others.

    Of axes that shrink alike the last one, along which work on single elements costs most, is the last; of axes that grow
    alike it is the first.
    """
    roi, scales, sizes = (*operands, None, None, None)[:3]
    found = sorted(samplings(attrs, shape, roi, scales, sizes), key=lambda s: (s.ratio, s.axis if s.ratio < 1 else -s.axis))
    return [(s.axis, *taps_of(attrs, s)) for s in found]


def _arrays(call: Call, first: int) -> list[np.ndarray | None]:
    """The arrays of roi, scales and sizes, the operands from `first` on."""
    return [call.constants.get(k) for k in range(first, len(call.inputs))]


def _kernel(
    space: Workspace,
    shape: tuple[int, ...],
    steps: Sequence[kernels.Step],
    dtype: np.dtype,
    wide: np.dtype,
    finish: Callable[[np.ndarray], Any] | None = None,
) -> Kernel:
    """What takes a tensor of some shape and dtype through steps in the dtype `wide`; `finish` changes the result there."""
    result = steps[-1][0] if steps else shape
    apply = kernels.chain(space, steps, wide) if steps else None
    places = None if wide == dtype else (space.array(shape, wide), space.array(result, wide))

    def kernel(x: np.ndarray, *_: np.ndarray | None, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(result, dtype) if out is None else out
        if apply is None:
            np.copyto(y, x)
            return y
        source, target = (x, y) if places is None else (place(work) for place in places)
        if source is not x:
            np.copyto(source, x)
        apply(source, target, work)
        if finish is not None:
            finish(target)
        if target is not y:
            np.copyto(y, target, casting="unsafe")
        return y

    return space.kernel(kernel)


def _laid_out(
    shape: tuple[int, ...], steps: Sequence[tuple[int, Taps]], make: Callable[[Taps, tuple[int, ...], int], kernels.Step]
) -> list[kernels.Step]:
    found: list[kernels.Step] = []
    for axis, taps in steps:
        found.append(make(taps, found[-1][0] if found else shape, axis))
    return found


resize = ops.define("Resize", settings=(1, 2), cost=costs.resize())


@resize.prepare
@planned(1, 2, 3)
def _resize(call: Call) -> Kernel:
    """Picked elements are copied as they are; where there is more to do, integers are rounded and saturated at the end."""
    (shape, dtype), space = (call.tensor(0).static_shape, call.tensor(0).dtype), Workspace()
    assert shape is not None
    steps = _steps(call.attrs, shape, *_arrays(call, 1))
    matrices = [(axis, taps) for axis, taps, _ in steps]
    if all(_picks(taps) for _, taps in matrices):
        return _kernel(space, shape, _laid_out(shape, matrices, kernels.pick), dtype, dtype)
    wide = np.dtype(np.float64) if dtype.kind in "iub" else accumulation_dtype(dtype)
    outside: list[tuple[Any, ...]] = [(*(slice(None),) * axis, places) for axis, _, places in steps if places is not None]
    fill, limits = call.attrs["extrapolation_value"], np.iinfo(dtype) if dtype.kind in "iu" else None

    def finish(y: np.ndarray) -> None:
        for index in outside:
            y[index] = fill
        if limits is not None:
            np.clip(np.rint(y, out=y), limits.min, limits.max, out=y)

    laid_out = _laid_out(shape, matrices, lambda *m: kernels.product(space, m[0], m[1], m[2], wide))
    return _kernel(space, shape, laid_out, dtype, wide, finish)


@resize.infer
def _resize_type(call: Call) -> Sequence[Type]:
    """What onnx infers too, and symbols; onnx (1.23) refuses sizes of which it does not know how many there are."""
    x = call.tensor(0)
    try:
        return [x.with_shape(None if x.shape is None else _resized_shape(call, x.shape))]
    except ValueError as error:
        raise TypeInferenceError(f"in a Resize of {x}: {error}") from None


def _resized_shape(call: Call, shape: Sequence[Dim]) -> Shape:
    dims = list(shape)
    axes = axes_of(call.attrs, len(dims))
    given = [k for k in (2, 3) if call.has(k) and (call.tensor(k).static_shape != (0,) or not axes)]
    if len(given) != 1:
        raise TypeInferenceError(f"a Resize of {call.tensor(0)} takes either scales or sizes")
    count = call.tensor(given[0]).static_shape
    if count not in (None, (len(axes),)):
        raise TypeInferenceError(f"a Resize of {call.tensor(0)} along {len(axes)} axes has {count[0]} scales or sizes")
    for axis, size in zip(axes, _new_sizes(call, given[0], [dims[axis] for axis in axes]), strict=True):
        dims[axis] = size
    return tuple(dims)


def _new_sizes(call: Call, operand: int, old: Sequence[Dim]) -> Sequence[Dim]:
    """The sizes of the axes that are resized, as far as they are known."""
    nothing: list[Dim] = [None] * len(old)
    if operand == 2:
        scales = call.constants.get(2)
        return nothing if scales is None else [_scaled(float(s), size) for s, size in zip(scales, old, strict=True)]
    sizes, policy = call.contents.get(3), str(call.attrs["keep_aspect_ratio_policy"])
    if sizes is None or policy == "stretch":
        return nothing if sizes is None else [None if isinstance(d, int) and d < 0 else d for d in sizes]
    numbers = [(size, new) for size, new in zip(old, sizes, strict=True) if isinstance(size, int) and isinstance(new, int)]
    return nothing if len(numbers) < len(old) else towards(policy, *zip(*numbers, strict=True))[1]


def _scaled(scale: float, size: Dim) -> Dim:
    if isinstance(size, int):
        return scaled_length(scale, size)
    return multiply_dims(int(scale), size) if scale.is_integer() else None


def _picks(taps: Taps) -> bool:
    """Whether each element of the result is one element of the operand."""
    return taps.places.shape[1] == 1 and bool((taps.weights == 1).all())


resize_grad = ops.define("ResizeGrad", domain=IRGRAD_DOMAIN, defaults=resize.defaults, cost=costs.resize(0))
"""``ResizeGrad(dy, shape, roi, scales, sizes)`` with the attributes of Resize: the adjoint of it for an X of `shape`.

It multiplies with the transposes of the matrices along the axes. Extrapolated elements contribute nothing.
"""


@resize_grad.prepare
@planned(1, 2, 3, 4)
def _resize_grad(call: Call) -> Kernel:
    (shape, dtype), space = (call.tensor(0).static_shape, call.tensor(0).dtype), Workspace()
    assert shape is not None
    wide = accumulation_dtype(dtype)
    steps = [(axis, taps) for axis, taps, _ in reversed(_steps(call.attrs, call.constants[1].tolist(), *_arrays(call, 2)))]
    laid_out = _laid_out(shape, steps, lambda *m: kernels.transposed_product(space, m[0], m[1], m[2], wide))
    return _kernel(space, shape, laid_out, dtype, wide)


@resize_grad.infer
def _resize_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


# --- adjoints ---------------------------------------------------------------------------------------------------------


@resize.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | Zero | None]:
    x, roi, scales, sizes = (node.input(k) for k in range(4))
    assert x is not None
    if node.attr("coordinate_transformation_mode") != CROP:
        roi = None
    if scales is not None and sizes is not None:  # one of them is empty, as files of older opsets have it
        scales = None if scales.tensor_type.static_shape == (0,) else scales
        sizes = None if sizes.tensor_type.static_shape == (0,) else sizes
    attrs = _linear(node)
    dx = b.op("irgrad.ResizeGrad", dy, b.shape_of(x), roi, scales, sizes, **attrs) if b.needs(x) else None
    return [dx, *position_cotangents(b, {**node.op.defaults, **attrs}, x, roi, scales, dy)]


@resize_grad.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> list[Value | Zero | None]:
    """The inner product of dx with the result is that of dy with dx resized."""
    dy, roi, scales, sizes = node.operand(0), *(node.input(k) for k in range(2, 5))
    attrs = _linear(node)
    ddy = b.op("Resize", dx, roi, scales, sizes, **attrs) if b.needs(dy) else None
    return [ddy, None, *position_cotangents(b, {**node.op.defaults, **attrs}, dx, roi, scales, dy)]


def _linear(node: Node) -> dict[str, Any]:
    """The attributes of a Resize without the value of its extrapolated elements, which no operand reaches."""
    return {name: value for name, value in node.attrs.items() if name != "extrapolation_value"}


# --- ResizeGrad in standard operations --------------------------------------------------------------------------------


@resize_grad.lower
def _(b: Builder, node: Node) -> Value:
    """One Einsum per axis with its matrix: a constant where sizes are known, else what Resize makes of an identity matrix.

    Raises:
        UnsupportedOpError: the rank is unknown, or sizes are which have to keep their ratio.
    """
    dy, shape = node.operand(0), node.operand(1)
    length = shape.tensor_type.static_shape
    rank = dy.rank if dy.rank is not None or length is None else length[0]
    if rank is None:
        raise UnsupportedOpError("the gradient of a Resize of unknown rank cannot be told in standard operations")
    axes = "".join(chr(ord("a") + axis) for axis in range(rank))
    dx = b.cast(dy, accumulation_dtype(dy.dtype))
    for axis, matrix in _matrices(b, node, rank, dx):
        dx = b.op("Einsum", dx, matrix, equation=f"{axes},{axes[axis]}z->{axes.replace(axes[axis], 'z')}")
    return b.cast(dx, dy.dtype)


def _matrices(b: Builder, node: Node, rank: int, like: Value) -> list[tuple[int, Value]]:
    """The axes along which something changes, each with its matrix of shape [length, size] in the dtype of `like`."""
    attrs = {**node.op.defaults, **_linear(node)}
    shape, roi, scales, sizes = (node.input(k) for k in range(1, 5))
    assert shape is not None
    axes = axes_of(attrs, rank)
    arrays = [_array_of(operand) for operand in (roi, scales, sizes)]
    told = all((a is None) == (v is None) for v, a in zip((roi, scales, sizes), arrays, strict=True))
    known = int_contents(shape)
    if told and known is not None:
        return [(axis, b.constant(taps.dense(), like.dtype)) for axis, taps, _ in reversed(_steps(attrs, known, *arrays))]
    if sizes is not None and attrs["keep_aspect_ratio_policy"] != "stretch":
        raise UnsupportedOpError(
            "the gradient of a Resize that keeps the aspect ratio of sizes which are known at run time only cannot be told "
            "in standard operations; fix the sizes of its operand"
        )
    at_rest = _unchanged(shape, roi, scales, sizes, axes)
    matrices = []
    for k, axis in enumerate(axes):
        size = None if shape.contents is None else shape.contents[axis]
        if axis in at_rest:
            continue
        if told and isinstance(size, int):
            alone = [None if a is None else a.reshape(-1, len(axes))[:, k] for a in arrays]
            steps = _steps({**attrs, "axes": None}, [size], *alone)
            matrices += [(axis, b.constant(taps.dense(), like.dtype)) for _, taps, _ in steps]
        else:
            matrices.append((axis, _made(b, node, k, axis, like)))
    return matrices


def _array_of(operand: Value | None) -> np.ndarray | None:
    """The elements of an operand that is a constant, or integers that are known."""
    if operand is None:
        return None
    contents = int_contents(operand)
    return operand.constant if contents is None else np.array(contents, np.int64)


def _unchanged(shape: Value, roi: Value | None, scales: Value | None, sizes: Value | None, axes: Sequence[int]) -> set[int]:
    """The axes along which nothing changes whatever the sizes are."""
    if roi is not None:
        return set()
    if scales is not None:
        ratios = _array_of(scales)
        return set() if ratios is None else {axis for axis, ratio in zip(axes, ratios, strict=True) if ratio == 1}
    old, new = shape.contents, None if sizes is None else sizes.contents
    if old is None or new is None:
        return set()
    return {axis for axis, size in zip(axes, new, strict=True) if size is not None and size == old[axis]}


def _made(b: Builder, node: Node, position: int, axis: int, like: Value) -> Value:
    """The matrix of an axis, made at run time: the columns of an identity matrix, each resized."""
    shape, roi, scales, sizes = (node.input(k) for k in range(1, 5))
    assert shape is not None

    def picked(operand: Value | None) -> Value | None:
        return None if operand is None else b.op("Gather", operand, b.ints([position]))

    size = b.op("Gather", shape, b.ints([axis]))
    square = b.op("ConstantOfShape", b.op("Concat", size, size, axis=0), value=np.zeros(1, like.dtype))
    ends = roi
    if roi is not None:
        region = b.op("Gather", b.op("Reshape", roi, b.ints([2, -1])), b.ints([position]), axis=1)
        ends = b.op("Reshape", region, b.ints([2]))
    return b.op("Resize", b.op("EyeLike", square), ends, picked(scales), picked(sizes), **{**_linear(node), "axes": (0,)})
