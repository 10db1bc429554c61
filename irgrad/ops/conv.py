"""Convolutions and their adjoints.

``y = Conv(x, w)`` is bilinear. Its adjoint in x is `irgrad.ConvInputGrad`, in w `irgrad.ConvWeightGrad`; the three are
closed under differentiation, and ConvTranspose is the adjoint in x under another name, with the sizes given another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable, WorkspaceKernel
from irgrad.ops import costs
from irgrad.ops.channels import sum_per_channel
from irgrad.ops.conv_lowering import crop, lower_input_grad, lower_weight_grad, runtime_transposed_pads
from irgrad.ops.convolution import select
from irgrad.ops.convolution.problem import Problem
from irgrad.ops.dims import shape_operand
from irgrad.ops.windows import (
    Windows,
    count_dims,
    image_dims,
    per_axis,
    spatial_rank,
    transposed_pads,
    transposed_windows,
    windows_of,
)
from irgrad.runtime.workspace import planned, widened
from irgrad.types import Dim, Type, multiply_dims

ops = OpTable()

_DEFAULTS = {"auto_pad": "NOTSET", "group": 1}
_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _attributes(node: Node) -> dict[str, Any]:
    """The attributes that the adjoints of a convolution share with it."""
    return {name: node.attrs[name] for name in _ATTRIBUTES if name in node.attrs}


# --- types ------------------------------------------------------------------------------------------------------------


def _operand_dims(call: Call) -> tuple[tuple[Dim, ...], tuple[Dim, ...]] | None:
    """The dimensions of the operands x and w, which must have the same rank; None where that is not known."""
    x, w = call.tensor(0).shape, call.tensor(1).shape
    rank = spatial_rank(call.attrs, call.tensor(0), call.tensor(1))
    if rank is None:
        return None
    if rank < 1:
        raise TypeInferenceError(f"{call.op.name} takes operands of at least three axes, not {call.tensor(0)}")
    for operand in (x, w):
        if operand is not None and len(operand) != rank + 2:
            raise TypeInferenceError(f"the images {call.tensor(0)} and the weights {call.tensor(1)} have not the same rank")
    unknown: tuple[Dim, ...] = (None,) * (rank + 2)
    return x or unknown, w or unknown


def _kernel_dims(call: Call, w: Sequence[Dim]) -> tuple[Dim, ...]:
    """The spatial dimensions of the weights, by their shape and by the attribute kernel_shape."""
    declared: Sequence[Dim] = call.attrs.get("kernel_shape") or (None,) * (len(w) - 2)
    if len(declared) != len(w) - 2 or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(declared, w[2:], strict=True)
    ):
        raise TypeInferenceError(f"kernel_shape is {tuple(declared)}, but the weights are {call.tensor(1)}")
    return tuple(a if b is None else b for a, b in zip(declared, w[2:], strict=True))


def _check_channels(call: Call, channels: Dim, per_group: Dim, filters: Dim) -> None:
    """Check that `channels`, `per_group` for each group of them, and the number of filters fit to the groups."""
    group = call.attrs["group"]
    if group < 1:
        raise TypeInferenceError(f"group is {group}; it must be at least 1")
    if isinstance(channels, int) and isinstance(per_group, int) and channels != per_group * group:
        raise TypeInferenceError(
            f"the weights {call.tensor(1)} take {per_group * group} channels in {group} group(s), but there are {channels}"
        )
    if isinstance(filters, int) and filters % group:
        raise TypeInferenceError(f"{filters} channels do not divide into {group} groups")


# --- kernels ----------------------------------------------------------------------------------------------------------


def _shape(call: Call, index: int) -> tuple[int, ...]:
    shape = call.tensor(index).static_shape
    assert shape is not None
    return shape


def _problem(call: Call, images: int, channels: int, filters: int, windows: Windows) -> Problem:
    return Problem(images, channels, filters, call.attrs["group"], windows, call.tensor(0).dtype)


def _without_shape(kernel: WorkspaceKernel) -> WorkspaceKernel:
    """A kernel of two operands that takes a shape, which it knows, as a third."""
    function = kernel.function

    def run(a: np.ndarray, b: np.ndarray, shape: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> Any:
        return function(a, b, out=out, work=work)

    return WorkspaceKernel(run, kernel.workspace)


# --- Conv -------------------------------------------------------------------------------------------------------------

conv = ops.define("Conv", cost=costs.convolution)


@conv.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    x, w = _shape(call, 0), _shape(call, 1)
    return select.forward(_problem(call, x[0], x[1], w[0], windows_of(call.attrs, x[2:], w[2:])))


@conv.infer
def _(call: Call) -> Sequence[Type]:
    operands = _operand_dims(call)
    if operands is None:
        return [call.tensor(0).with_shape(None)]
    x, w = operands
    kernel = _kernel_dims(call, w)
    _check_channels(call, x[1], w[1], w[0])
    return [call.tensor(0).with_shape((x[0], w[0], *count_dims(call.attrs, x[2:], kernel)))]


@conv.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    x, w, bias = node.operand(0), node.operand(1), node.input(2)
    attrs = _attributes(node)
    dx = b.op("irgrad.ConvInputGrad", dy, w, b.shape_of(x), **attrs) if b.needs(x) else None
    dw = b.op("irgrad.ConvWeightGrad", x, dy, b.shape_of(w), **attrs) if b.needs(w) else None
    return [dx, dw] if bias is None else [dx, dw, _bias_adjoint(b, bias, dy)]


def _bias_adjoint(b: AdjointBuilder, bias: Value, dy: Value) -> Value | None:
    return sum_per_channel(b, dy) if b.needs(bias) else None


# --- the adjoint in the images ----------------------------------------------------------------------------------------

conv_input_grad = ops.define("ConvInputGrad", domain=IRGRAD_DOMAIN, defaults=_DEFAULTS, cost=costs.conv_input_grad)
"""``ConvInputGrad(dy, w, x_shape)``: the cotangent of x, of shape x_shape, where dy is that of Conv(x, w).

Attributes: those of Conv.
"""


@conv_input_grad.prepare
@planned(2)
@widened
def _(call: Call) -> Kernel:
    x, w = call.constants[2].tolist(), _shape(call, 1)
    return _without_shape(select.image_adjoint(_problem(call, x[0], x[1], w[0], windows_of(call.attrs, x[2:], w[2:]))))


@conv_input_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 2))]


@conv_input_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> list[Value | None]:
    dy, w, attrs = node.operand(0), node.operand(1), _attributes(node)
    return [
        b.op("Conv", c, w, **attrs) if b.needs(dy) else None,
        b.op("irgrad.ConvWeightGrad", c, dy, b.shape_of(w), **attrs) if b.needs(w) else None,
        None,
    ]


@conv_input_grad.lower
def _(b: Builder, node: Node) -> Value:
    return lower_input_grad(b, node.operand(0), node.operand(1), node.operand(2), node.attrs)


# --- the adjoint in the weights ---------------------------------------------------------------------------------------

conv_weight_grad = ops.define("ConvWeightGrad", domain=IRGRAD_DOMAIN, defaults=_DEFAULTS, cost=costs.conv_weight_grad)
"""``ConvWeightGrad(x, dy, w_shape)``: the cotangent of w, of shape w_shape, where dy is that of Conv(x, w).

Attributes: those of Conv.
"""


@conv_weight_grad.prepare
@planned(2)
@widened
def _(call: Call) -> Kernel:
    x, w = _shape(call, 0), call.constants[2].tolist()
    return _without_shape(select.weight_adjoint(_problem(call, x[0], x[1], w[0], windows_of(call.attrs, x[2:], w[2:]))))


@conv_weight_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 2))]


@conv_weight_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> list[Value | None]:
    x, dy, attrs = node.operand(0), node.operand(1), _attributes(node)
    return [
        b.op("irgrad.ConvInputGrad", dy, c, b.shape_of(x), **attrs) if b.needs(x) else None,
        b.op("Conv", x, c, **attrs) if b.needs(dy) else None,
        None,
    ]


@conv_weight_grad.lower
def _(b: Builder, node: Node) -> Value:
    return lower_weight_grad(b, node.operand(0), node.operand(1), node.operand(2), node.attrs)


# --- ConvTranspose ----------------------------------------------------------------------------------------------------

conv_transpose = ops.define("ConvTranspose", cost=costs.conv_transpose)


@conv_transpose.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    x, w = _shape(call, 0), _shape(call, 1)
    windows = transposed_windows(call.attrs, x[2:], w[2:])
    return select.image_adjoint(_problem(call, x[0], w[1] * call.attrs["group"], w[0], windows))


@conv_transpose.infer
def _(call: Call) -> Sequence[Type]:
    operands = _operand_dims(call)
    if operands is None:
        return [call.tensor(0).with_shape(None)]
    x, w = operands
    kernel = _kernel_dims(call, w)
    _check_channels(call, x[1], None, w[0])
    if isinstance(x[1], int) and isinstance(w[0], int) and x[1] != w[0]:
        raise TypeInferenceError(f"the weights {call.tensor(1)} take {w[0]} channels, but there are {x[1]}")
    channels = multiply_dims(w[1], call.attrs["group"])
    return [call.tensor(0).with_shape((x[0], channels, *image_dims(call.attrs, x[2:], kernel)))]


@conv_transpose.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """The adjoint of the adjoint of a convolution is that convolution, over what of dy its windows reach."""
    x, w, bias = node.operand(0), node.operand(1), node.input(2)
    dx = dw = None
    if b.needs(x) or b.needs(w):
        image, attrs = _as_image(b, node, dy)
        dx = b.op("Conv", image, w, **attrs) if b.needs(x) else None
        dw = b.op("irgrad.ConvWeightGrad", image, x, b.shape_of(w), **attrs) if b.needs(w) else None
    return [dx, dw] if bias is None else [dx, dw, _bias_adjoint(b, bias, dy)]


def _as_image(b: Builder, node: Node, dy: Value) -> tuple[Value, Mapping[str, Any]]:
    """The cotangent of a ConvTranspose as the image of a convolution, and the attributes of that.

    The convolution's result must have the size of the node's input. Elements that no window reaches (output_padding) can
    make it larger, so they count as padding taken back, or are cut off where there is more of them than padding.
    """
    x, w = node.operand(0), node.operand(1)
    rank = spatial_rank(node.attrs, x, w, dy)
    if rank is None:
        raise UnsupportedOpError("the rank of its operands must be known at compile time; declare their shapes")
    attrs = {name: value for name, value in _attributes(node).items() if name not in ("auto_pad", "pads")}
    kernel = node.attr("kernel_shape") or (w.shape[2:] if w.shape is not None else (None,) * rank)
    known = tuple(k for k in kernel if isinstance(k, int))
    counts = x.shape[2:] if x.shape is not None else (None,) * rank
    pads = transposed_pads(node.attrs, counts, known if len(known) == rank else None)
    if pads is None:
        return runtime_transposed_pads(b, node, dy, rank), attrs
    extra = per_axis(node.attrs, "output_padding", rank, 0)
    strides = per_axis(node.attrs, "strides", rank, 1)
    begins, ends = [begin for begin, _ in pads], [end - more for (_, end), more in zip(pads, extra, strict=True)]
    # A convolution ignores what is left after its last window, as long as no further window fits there.
    beyond = [0 if 0 <= -end < stride else min(end, 0) for end, stride in zip(ends, strides, strict=True)]
    image = crop(b, dy, [max(-begin, 0) for begin in begins], [-n for n in beyond])
    padding = (*(max(begin, 0) for begin in begins), *(max(end, 0) for end in ends))
    return image, attrs | ({"pads": padding} if any(padding) else {})
