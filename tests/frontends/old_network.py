"""One network, written in the words of any opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.frontends.old_models import model_of

F32 = np.float32


def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(F32)}


def network(opset: int) -> onnx.ModelProto:
    """Convolution, normalisation, pooling, resizing, reshaping, a head and its best two classes, in one opset's words."""
    writer = _Writer(opset)
    results = writer.head(writer.moved(writer.features("x")))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    return model_of(writer.nodes, opset, inputs, outputs, writer.initializers)


class _Writer:
    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(1)

    # --- the parts ----------------------------------------------------------------------------------------------------

    def features(self, x: str) -> str:
        x = self.node("Conv", x, self.weight(4, 3, 3, 3), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        statistics = [self.weight(4), self.weight(4), self.weight(4), self.array(np.array([0.5, 1, 1.5, 2], F32))]
        x = self.node("BatchNormalization", x, *statistics, **self.before(7, is_test=1), **self.consumed([0, 0, 0, 1, 1]))
        x = self.node("LeakyRelu", x, alpha=0.1, **self.consumed([1]))
        x = self.node("Dropout", x, **self.before(12, ratio=0.4), **self.before(7, is_test=1), **self.consumed([1]))
        x = self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = self.per_channel("Add", x, self._random.standard_normal(4).astype(F32))
        x = self.per_channel("Mul", x, self._random.standard_normal(4).astype(F32))
        x = self.per_channel("PRelu", x, np.array([0.1, 0.2, 0.3, 0.4], F32))
        x = self.clip(x, -1.0, 2.0)
        return self.upsample(x, 2.0)

    def moved(self, x: str) -> str:
        x = self.moved_by("Slice", x, {"starts": [1, -7], "ends": [1000, -1], "axes": [2, 3]}, since=10)
        x = self.pad(x, [0, 0, 1, 0, 0, 0, 0, 2], 0.5)
        x = self.moved_by("ReduceMean", x, {"axes": [3]}, since=18, keepdims=0)
        x = self.moved_by("Unsqueeze", x, {"axes": [1]}, since=13)
        x = self.moved_by("Squeeze", x, {"axes": [1]}, since=13)
        first, second = self.nodes_of("Split", 2, x, **({"num_outputs": 2} if self.opset >= 18 else {}), axis=1)
        x = self.node("Concat", second, first, axis=1)
        if self.opset < 5:
            return self.node("Reshape", x, shape=[0, -1], **self.consumed([0]))
        return self.node("Reshape", x, self.ints([0, -1]))

    def head(self, x: str) -> list[str]:
        x = self.node("Gemm", x, self.weight(32, 5), self.weight(5), **self.before(7, broadcast=1))
        x = self.node("Softmax", x) if self.opset < 13 else self.node("Softmax", x, axis=1)
        values, indices = self.nodes_of("TopK", 2, x, **self.before(10, k=2)) if self.opset < 10 else self.topk(x)
        to: Any = "DOUBLE" if self.opset < 6 else TensorProto.DOUBLE
        return [self.node("Cast", values, to=to), indices]

    # --- operations in the words of the opset -------------------------------------------------------------------------

    def per_channel(self, op: str, x: str, numbers: np.ndarray) -> str:
        if self.opset >= 7:
            return self.node(op, x, self.array(numbers[:, None, None]))
        attrs = {"broadcast": 1, "axis": 1} if op != "PRelu" else {}
        return self.node(op, x, self.array(numbers), **attrs, **self.consumed([1, 0]))

    def clip(self, x: str, low: float, high: float) -> str:
        if self.opset < 11:
            return self.node("Clip", x, min=low, max=high, **self.consumed([1]))
        return self.node("Clip", x, self.array(np.array(low, F32)), self.array(np.array(high, F32)))

    def upsample(self, x: str, scale: float) -> str:
        scales = [1.0, 1.0, scale, scale]
        if self.opset < 7:
            return self.node("Upsample", x, height_scale=scale, width_scale=scale)
        if self.opset < 9:
            return self.node("Upsample", x, scales=scales)
        operand = self.array(np.array(scales, F32))
        if self.opset < 11:
            return self.node("Upsample" if self.opset == 9 else "Resize", x, operand)
        roi = self.array(np.array([], F32)) if self.opset < 13 else ""
        return self.node("Resize", x, roi, operand, coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    def pad(self, x: str, pads: list[int], fill: float) -> str:
        if self.opset < 11:
            return self.node("Pad", x, value=fill, **{"pads" if self.opset >= 2 else "paddings": pads})
        return self.node("Pad", x, self.ints(pads), self.array(np.array(fill, F32)))

    def moved_by(self, op: str, x: str, numbers: dict[str, list[int]], since: int, **attrs: Any) -> str:
        """An operation whose lists of integers became operands with opset `since`."""
        if self.opset < since:
            return self.node(op, x, **numbers, **attrs)
        return self.node(op, x, *map(self.ints, numbers.values()), **attrs)

    def topk(self, x: str) -> list[str]:
        return self.nodes_of("TopK", 2, x, self.ints([2]))

    # --- the means ----------------------------------------------------------------------------------------------------

    def before(self, since: int, **attrs: Any) -> dict[str, Any]:
        return attrs if self.opset < since else {}

    def consumed(self, flags: list[int]) -> dict[str, Any]:
        return self.before(6, consumed_inputs=flags)

    def node(self, op: str, *operands: str, **attrs: Any) -> str:
        return self.nodes_of(op, 1, *operands, **attrs)[0]

    def nodes_of(self, op: str, count: int, *operands: str, **attrs: Any) -> list[str]:
        outputs = [f"v{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(helper.make_node(op, operands, outputs, **attrs))
        return outputs

    def array(self, array: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, values: list[int]) -> str:
        return self.array(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        return self.array(self._random.standard_normal(shape).astype(F32))
