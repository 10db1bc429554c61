"""Models of one node in an older opset, and what they must come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from irgrad.frontend import load
from irgrad.graph import OPSET
from irgrad.runtime import compile


@dataclass(frozen=True)
class OldCase:
    """One node, written in an older opset.

    Attributes:
        op: its operation.
        opset: the opset that it is written in.
        operands: arrays, None for an absent operand.
        attrs: attributes.
        oracle: function of the operands that returns the expected results; onnx.reference on the same file by default.
        outputs: how many outputs the node has.
        constant: positions of the operands that are initializers instead of inputs.
        id: what makes the case special.
        covers: further operations whose adapters it exercises, where the node is renamed on its way up.
        checked: whether onnx.checker knows the operation.
        rtol: tolerance of the comparison.
    """

    op: str
    opset: int
    operands: Sequence[np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    oracle: Callable[..., Any] | None = None
    outputs: int = 1
    constant: Sequence[int] = ()
    id: str = ""
    covers: Sequence[str] = ()
    checked: bool = True
    rtol: float = 1e-6

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.op, str(self.opset), self.id)))

    def model(self, *, dynamic: bool = False) -> onnx.ModelProto:
        """The file; with ``dynamic`` no size of an input is known."""
        names = ["" if a is None else f"x{k}" for k, a in enumerate(self.operands)]
        outputs = [f"y{k}" for k in range(self.outputs)]
        inputs, initializers = [], []
        for k, (name, array) in enumerate(zip(names, self.operands, strict=True)):
            if array is not None and k in self.constant:
                initializers.append(numpy_helper.from_array(array, name))
            elif array is not None:
                shape = [None] * array.ndim if dynamic else array.shape
                inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        node = helper.make_node(self.op, names, outputs, name="old", **self.attrs)
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        return model_of([node], self.opset, inputs, results, initializers)

    def check(self) -> None:
        """Have onnx.checker look at the node: it is valid in its opset."""
        if self.checked:
            check_node(self.model().graph.node[0], self.opset)

    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{k}": a for k, a in enumerate(self.operands) if a is not None and k not in self.constant}

    def expected(self) -> list[np.ndarray]:
        if self.oracle is None:
            results: Any = ReferenceEvaluator(self.model()).run(None, self.feeds())
        else:
            results = self.oracle(*self.operands)
        return list(results) if isinstance(results, (list, tuple)) else [results]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    opset: int,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model of one opset."""
    graph = helper.make_graph(list(nodes), "old", list(inputs), list(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)


def check_node(node: onnx.NodeProto, opset: int) -> None:
    """Have onnx.checker look at a node of one opset."""
    context = type(onnx.checker.DEFAULT_CONTEXT)()
    context.ir_version, context.opset_imports = 8, {"": opset}
    onnx.checker.check_node(node, context)


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    """The results of a model, run by irgrad."""
    return list(compile(load(model))(feeds).values())


def today(op: str, **attrs: Any) -> Callable[..., Any]:
    """An oracle: onnx.reference on an operation of today's opset."""

    def oracle(*operands: np.ndarray) -> Any:
        return ReferenceEvaluator(OldCase(op, OPSET, operands, attrs).model()).run(
            None, OldCase(op, OPSET, operands).feeds()
        )

    return oracle
