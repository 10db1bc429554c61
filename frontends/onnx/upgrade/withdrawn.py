"""Experimental operations of the first opsets, which opset 10 withdrew or made standard ones.

The installed onnx no longer defines them. What they meant is in the file onnx/defs/experiments/defs.cc of onnx 1.0 to 1.4;
converters from Core ML and Caffe2 wrote them into models that are still about.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.graph import Value

__all__: list[str] = []

_INT64 = np.dtype(np.int64)


@adapter("Affine", since=10)
def affine_10(b: Builder, node: OldNode) -> list[Value]:
    """The function alpha · x + beta."""
    scaled = b.op("Mul", node.operand(0), node.attrs.get("alpha", 1.0))
    return [b.op("Add", scaled, node.attrs.get("beta", 0.0))]


@adapter("ScaledTanh", since=10)
def scaled_tanh_10(b: Builder, node: OldNode) -> list[Value]:
    """The function alpha · tanh(beta · x)."""
    return [_scaled(b, node, "Tanh")]


@adapter("ParametricSoftplus", since=10)
def parametric_softplus_10(b: Builder, node: OldNode) -> list[Value]:
    """The function alpha · log(1 + exp(beta · x))."""
    return [_scaled(b, node, "Softplus")]


def _scaled(b: Builder, node: OldNode, function: str) -> Value:
    alpha, beta = node.take("alpha"), node.take("beta")
    return b.op("Mul", b.op(function, b.op("Mul", node.operand(0), beta)), alpha)


@adapter("Scale", since=10)
def scale_10(b: Builder, node: OldNode) -> list[Value]:
    """The function scale · x."""
    return [b.op("Mul", node.operand(0), node.attrs.get("scale", 1.0))]


@adapter("ImageScaler", since=10)
def image_scaler_10(b: Builder, node: OldNode) -> list[Value]:
    """The function scale · x + bias, with one bias for each channel of an image [N, C, H, W]."""
    data = node.operand(0)
    bias = np.array(node.attrs.get("bias", (0.0,)), data.dtype).reshape(-1, 1, 1)
    return [b.op("Add", b.op("Mul", data, node.attrs.get("scale", 1.0)), bias)]


@adapter("Crop", since=10)
def crop_10(b: Builder, node: OldNode) -> list[Value]:
    """An image [N, C, H, W] without its borders, or the part of it that begins there and has the size `scale`."""
    left, top, right, bottom = node.take("border")
    size = node.attrs.get("scale")
    unbounded = int(np.iinfo(np.int64).max)
    ends = [top + size[0], left + size[1]] if size else [-bottom or unbounded, -right or unbounded]
    return [b.op("Slice", node.operand(0), b.ints([top, left]), b.ints(ends), b.ints([2, 3]))]


@adapter("DynamicSlice", since=10)
def dynamic_slice_10(b: Builder, node: OldNode) -> None:
    """What Slice is since opset 10."""
    node.op = "Slice"


@adapter("FC", since=10)
def fully_connected_10(b: Builder, node: OldNode) -> list[Value]:
    """The product x · wᵀ + b, where x and w are flattened to matrices."""
    data = b.op("Flatten", node.operand(0), axis=node.attrs.get("axis", 1))
    weights = b.op("Flatten", node.operand(1), axis=node.attrs.get("axis_w", 1))
    return [b.op("Gemm", data, weights, node.operand(2), transB=1)]


@adapter("ConstantFill", since=10)
def constant_fill_10(b: Builder, node: OldNode) -> list[Value]:
    """A tensor whose elements are all `value`."""
    dtype = helper.tensor_dtype_to_np_dtype(node.attrs.get("dtype", TensorProto.FLOAT))
    value = np.array([node.attrs.get("value", 0.0)], dtype)
    return [b.op("ConstantOfShape", _wanted_shape(b, node), value=value)]


@adapter("GivenTensorFill", since=10)
def given_tensor_fill_10(b: Builder, node: OldNode) -> list[Value]:
    """A tensor of the given `values`."""
    values = b.constant(np.array(node.take("values"), np.float32))
    return [b.op("Reshape", values, _wanted_shape(b, node))]


def _wanted_shape(b: Builder, node: OldNode) -> Value:
    """The shape that the operand has (or holds, with `input_as_shape`) and `extra_shape`, or else the attribute `shape`."""
    like = node.input(0)
    if like is None:
        return b.ints(node.take("shape"))
    shape = b.cast(like, _INT64) if node.attrs.get("input_as_shape") else b.shape_of(like)
    extra = node.attrs.get("extra_shape", ())
    return b.op("Concat", shape, b.ints(extra), axis=0) if extra else shape


@adapter("ThresholdedRelu", since=10)
def thresholded_relu_10(b: Builder, node: OldNode) -> None:
    """A standard operation from then on, which means the same."""


@adapter("MeanVarianceNormalization", since=9)
def mean_variance_normalization_9(b: Builder, node: OldNode) -> list[Value] | None:
    """The axes of an image [N, C, H, W] to normalise along are given as such; variance is always normalised."""
    axes = (0, 1, 2, 3) if node.attrs.pop("across_channels", 0) else (0, 2, 3)
    if node.attrs.pop("normalize_variance", 1):
        node.attrs["axes"] = axes
        return None
    data = node.operand(0)
    return [b.op("Sub", data, b.op("ReduceMean", data, b.ints(axes)))]
