"""Small ONNX models for the tests of the reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from irgrad.frontend import load
from irgrad.graph import Graph
from irgrad.runtime import compile

node = helper.make_node


def value(name: str, shape: Sequence[int | str | None] | None = (2, 3), elem: int = TensorProto.FLOAT) -> ValueInfoProto:
    """The declaration of a tensor."""
    return helper.make_tensor_value_info(name, elem, shape)


def scalar(name: str, elem: int = TensorProto.FLOAT) -> ValueInfoProto:
    return value(name, (), elem)


def array(name: str, data: Any, dtype: Any = np.float32) -> TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(data, dtype), name)


def graph(
    nodes: Iterable[NodeProto],
    inputs: Iterable[ValueInfoProto] = (),
    outputs: Iterable[ValueInfoProto] = (),
    initializers: Iterable[TensorProto] = (),
    **options: Any,
) -> GraphProto:
    return helper.make_graph(
        list(nodes), options.pop("name", "g"), list(inputs), list(outputs), list(initializers), **options
    )


def model(
    nodes: Iterable[NodeProto],
    inputs: Iterable[ValueInfoProto] = (),
    outputs: Iterable[ValueInfoProto] = (),
    initializers: Iterable[TensorProto] = (),
    *,
    opsets: Any = 21,
    functions: Iterable[onnx.FunctionProto] = (),
    ir_version: int = 10,
    **options: Any,
) -> ModelProto:
    """A model.

    Args:
        nodes: of its graph.
        inputs: of its graph.
        outputs: of its graph.
        initializers: of its graph.
        opsets: the version of the standard opset, or domain → version.
        functions: model-local functions.
        ir_version: of the file format.
        options: further fields of the graph.
    """
    made = helper.make_model(
        graph(nodes, inputs, outputs, initializers, **options),
        opset_imports=imports(opsets),
        functions=list(functions),
    )
    made.ir_version = ir_version
    return made


def imports(opsets: Any) -> list[onnx.OperatorSetIdProto]:
    versions = {"": opsets} if isinstance(opsets, int) else opsets
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def function(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    nodes: Sequence[NodeProto],
    *,
    opsets: Any = 21,
    **options: Any,
) -> onnx.FunctionProto:
    """A function of the domain "local"."""
    return helper.make_function("local", name, inputs, outputs, nodes, imports(opsets), **options)


def call(callee: str, inputs: Sequence[str], outputs: Sequence[str], **options: Any) -> NodeProto:
    """A node that calls a function of the domain "local"."""
    return node(callee, inputs, outputs, domain="local", **options)


def reference(name: str, attribute: str, kind: int) -> onnx.AttributeProto:
    """An attribute of a node in a function that refers to an attribute of the function."""
    return onnx.AttributeProto(name=name, ref_attr_name=attribute, type=kind)  # type: ignore[arg-type]


def external(name: str, location: str, dims: Sequence[int], elem: int = TensorProto.FLOAT, **entries: int) -> TensorProto:
    """An initializer whose data lies in a file."""
    tensor = TensorProto(name=name, dims=dims, data_type=elem, data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **{k: str(v) for k, v in entries.items()}}.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def saved(made: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


FLAG = scalar("flag", TensorProto.BOOL)


def branches(then: list[onnx.NodeProto], other: list[onnx.NodeProto]) -> dict[str, onnx.GraphProto]:
    """The branches of an If that return their value "r"."""
    untyped = [onnx.ValueInfoProto(name="r")]
    return {"then_branch": graph(then, [], untyped, name="yes"), "else_branch": graph(other, [], untyped, name="no")}


def run(made: Any, *feeds: Any) -> list[Any]:
    """The outputs of a model for its inputs in order."""
    read = made if isinstance(made, Graph) else load(made)
    return list(compile(read)(dict(zip(read.inputs, feeds, strict=True))).values())
