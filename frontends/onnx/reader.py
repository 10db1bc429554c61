"""From a ModelProto to a `Graph`: names resolved, nodes upgraded and typed, functions inlined, subgraphs closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, defs

from irgrad.builder import Builder
from irgrad.errors import (
    CyclicModelError,
    DanglingNameError,
    DuplicateNameError,
    FunctionRecursionError,
    GraphError,
    ModelTypeError,
    TypeInferenceError,
    UnsupportedOpsetError,
)
from irgrad.frontends.onnx.tensors import tensor_to_array
from irgrad.frontends.onnx.upgrade import OldNode, upgrade
from irgrad.graph import OPSET, Graph, Value
from irgrad.op import find_op
from irgrad.proto import attribute_from_proto
from irgrad.types import TensorType, Type, is_differentiable, type_from_proto

__all__ = ["Scope", "emit_nodes", "read_model"]

Scope: TypeAlias = "dict[str, Value | None]"
"""Name in the file → value; None for an operand that is absent (an optional input of a function)."""

_LARGEST_FILL = 2**31  # bytes: a larger ConstantOfShape stays a node instead of becoming a weight

FunctionKey: TypeAlias = "tuple[str, str, str]"


@dataclass(frozen=True)
class _Context:
    """What holds for all nodes of one scope."""

    versions: Mapping[str, int]
    folder: Path | None = None
    functions: Mapping[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)
    calls: tuple[FunctionKey, ...] = ()
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    declared: Mapping[str, Type] = field(default_factory=dict)
    prefix: str = ""


def read_model(model: onnx.ModelProto, folder: Path | None = None) -> Graph:
    """The graph of a model, written in today's opset.

    Args:
        model: any opset; it is not changed.
        folder: where external data may lie.

    Raises:
        ModelError: the model is defective; the subclass says how.
    """
    context = _Context(_versions(model.opset_import), folder, _functions(model))
    graph = Graph(model.graph.name or "graph")
    graph.metadata = _metadata(model)
    _read_graph(graph, model.graph, {}, context)
    return graph


def emit_nodes(
    b: Builder,
    nodes: Iterable[onnx.NodeProto],
    scope: Scope,
    versions: Mapping[str, int],
    *,
    attributes: Mapping[str, AttributeProto],
    prefix: str,
) -> None:
    """Emit the nodes of a function body; their results are added to `scope`."""
    _emit(b, list(nodes), scope, _Context(versions, attributes=attributes, prefix=prefix))


# --- models and graphs ------------------------------------------------------------------------------------------------


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain == "" and not 1 <= entry.version <= OPSET:
            raise UnsupportedOpsetError(f"the model imports ai.onnx opset {entry.version}; opsets 1 to {OPSET} are known")
        versions[domain] = entry.version
    # Before opset_import existed (IR version 2 and earlier), models were written in opset 1.
    return versions or {"": 1}


def _functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    functions: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in functions:
            raise DuplicateNameError(f"the model defines the function {function.domain}.{function.name} twice")
        functions[key] = function
    return functions


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    found = {
        "producer": " ".join(t for t in (model.producer_name, model.producer_version) if t),
        "domain": model.domain,
        "model_version": str(model.model_version) if model.model_version else "",
        "doc": model.doc_string or model.graph.doc_string,
        **{f"property:{p.key}": p.value for p in model.metadata_props},
    }
    return {key: value for key, value in found.items() if value}


def _read_graph(graph: Graph, proto: onnx.GraphProto, captured: Mapping[str, Value], context: _Context) -> None:
    """Fill `graph` from a GraphProto; values of the outer scope that it reads become further inputs."""
    context = replace(context, declared={**context.declared, **_declared(proto)})
    scope: Scope = {}
    initializers = {t.name for t in proto.initializer} | {t.values.name for t in proto.sparse_initializer}
    _refuse_duplicates(proto)
    for info in proto.input:
        if info.name in initializers:
            continue  # a default value: it becomes a parameter, which may be fed
        type = _input_type(info)
        scope[info.name] = graph.add_input(info.name, type)
    for tensor in proto.initializer:
        scope[tensor.name] = _constant(graph, tensor_to_array(tensor, context.folder), tensor.name, parameter=True)
    for sparse in proto.sparse_initializer:
        array = _dense(sparse, context.folder)
        scope[sparse.values.name] = _constant(graph, array, sparse.values.name, parameter=True)
    for name, value in captured.items():
        inner = graph.add_input(graph.fresh_name(name), value.type)
        inner.contents = value.contents
        scope.setdefault(name, inner)
    _emit(Builder(graph), list(proto.node), scope, context)
    outputs: dict[str, Value] = {}
    for info in proto.output:
        result = scope.get(info.name)
        if result is None:
            raise DanglingNameError(f"the output {info.name!r} of the graph {proto.name!r} is not made by any node")
        if info.name in outputs:
            raise DuplicateNameError(f"the graph {proto.name!r} lists the output {info.name!r} twice")
        outputs[info.name] = result
    graph.set_outputs(outputs)


def _refuse_duplicates(proto: onnx.GraphProto) -> None:
    for kind, names in (
        ("input", [i.name for i in proto.input]),
        ("initializer", [t.name for t in proto.initializer] + [t.values.name for t in proto.sparse_initializer]),
    ):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise DuplicateNameError(f"the graph {proto.name!r} has two {kind}s named {name!r}")
            seen.add(name)


def _input_type(info: onnx.ValueInfoProto) -> Type:
    type = type_from_proto(info.type)
    if type is None:
        raise ModelTypeError(f"the input {info.name!r} declares no element type")
    return type


def _declared(proto: onnx.GraphProto) -> dict[str, Type]:
    found = {}
    for info in (*proto.value_info, *proto.output):
        type = type_from_proto(info.type)
        if type is not None:
            found[info.name] = type
    return found


def _constant(graph: Graph, array: np.ndarray, name: str, *, parameter: bool) -> Value:
    name = graph.fresh_name(name)
    return graph.add_constant(array, name, parameter=parameter and is_differentiable(array.dtype))


def _dense(sparse: onnx.SparseTensorProto, folder: Path | None) -> np.ndarray:
    values = tensor_to_array(sparse.values, folder)
    indices = tensor_to_array(sparse.indices, folder)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return array


# --- nodes ------------------------------------------------------------------------------------------------------------


def _emit(b: Builder, nodes: list[onnx.NodeProto], scope: Scope, context: _Context) -> None:
    for node in _ordered(nodes, scope, context):
        results = _emit_node(b, node, scope, context)
        for name, value in zip(node.output, results, strict=False):
            if name:
                scope[name] = value


def _ordered(nodes: list[onnx.NodeProto], scope: Scope, context: _Context) -> list[onnx.NodeProto]:
    """The nodes in an order in which names are defined before they are used (the file's own, where it is one)."""
    maker: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in maker or name in scope:
                raise DuplicateNameError(f"the name {name!r} is defined twice; once by {_shown(node)}")
            maker[name] = position
    reads = [[n for n in node.input if n] + _free_names_of(node) for node in nodes]
    waits: list[int] = []
    readers: dict[int, list[int]] = {}
    for position, names in enumerate(reads):
        makers = {maker[name] for name in names if name in maker}
        for name in names:
            if name not in maker and name not in scope:
                raise DanglingNameError(f"{_shown(nodes[position])} reads {name!r}, which nothing defines")
        waits.append(len(makers))
        for made_by in makers:
            readers.setdefault(made_by, []).append(position)
    if all(all(maker[n] < position for n in names if n in maker) for position, names in enumerate(reads)):
        return nodes
    order: list[int] = []
    ready = [position for position, count in enumerate(waits) if not count]
    while ready:
        position = ready.pop()
        order.append(position)
        for reader in readers.get(position, ()):
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if len(order) != len(nodes):
        stuck = next(p for p, count in enumerate(waits) if count)
        raise CyclicModelError(f"the nodes depend on each other in a circle; {_shown(nodes[stuck])} is on it or behind it")
    return [nodes[position] for position in order]


def _emit_node(b: Builder, proto: onnx.NodeProto, scope: Scope, context: _Context) -> Sequence[Value | None]:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    attributes = _resolved(proto, context)
    function = context.functions.get((proto.domain, proto.op_type, proto.overload))
    if function is not None:
        return _inline(b, proto, function, attributes, scope, context)
    version = context.versions.get(domain)
    if version is None:
        if domain == "" or defs.has(proto.op_type, domain):
            raise UnsupportedOpsetError(
                f"{_shown(proto)} is of the domain {domain or 'ai.onnx'!r}, which the model does not import"
            )
        version = 1
    inputs = [scope[name] if name else None for name in proto.input]
    while inputs and inputs[-1] is None:
        inputs.pop()
    if domain == "" and proto.op_type == "Constant":
        return [_constant_node(b, proto, attributes, context)]
    attrs, captured = _attributes(b, proto, attributes, scope, context)
    filled = _filled_weight(b, proto, inputs, attrs) if domain == "" else None
    if filled is not None:
        return [filled]
    names = [name or None for name in proto.output]
    node = OldNode(
        proto.op_type,
        domain,
        version,
        [*inputs, *captured],
        attrs,
        n_outputs=max(1, len(proto.output)),
        used=tuple(bool(n) for n in proto.output),
    )
    try:
        results = upgrade(b, node)
        if results is None:
            name = b.graph.fresh_name(context.prefix + (proto.name or node.op), node=True)
            made = b.node(
                find_op(node.op, node.domain),
                node.inputs,
                node.attrs,
                outputs=node.n_outputs,
                name=name,
                output_names=[None if n is None else b.graph.fresh_name(context.prefix + n) for n in names],
            )
            results = made.outputs
        else:
            _name_results(b.graph, results, names, context.prefix)
    except (TypeInferenceError, GraphError, AssertionError) as error:
        raise ModelTypeError(f"{_shown(proto)} is not valid: {error}") from error
    for name, value in zip(proto.output, results, strict=False):
        _complete_type(value, context.declared.get(name))
    return results


def _name_results(graph: Graph, results: Sequence[Value], names: Sequence[str | None], prefix: str) -> None:
    for value, name in zip(results, names, strict=False):
        if name is not None and value.producer is not None and not graph.has_value(prefix + name):
            graph.rename(value, prefix + name)


def _complete_type(value: Value, declared: Type | None) -> None:
    """Fill what inference left open with what the file declares."""
    have = value.type
    if not (isinstance(have, TensorType) and isinstance(declared, TensorType)) or have.dtype != declared.dtype:
        return
    if declared.shape is None:
        return
    if have.shape is None:
        value.graph.set_type(value, declared)
    elif len(have.shape) == len(declared.shape) and None in have.shape:
        shape = tuple(d if h is None else h for h, d in zip(have.shape, declared.shape, strict=True))
        value.graph.set_type(value, have.with_shape(shape))


def _inline(
    b: Builder,
    proto: onnx.NodeProto,
    function: onnx.FunctionProto,
    attributes: Mapping[str, AttributeProto],
    scope: Scope,
    context: _Context,
) -> Sequence[Value | None]:
    key = (function.domain, function.name, function.overload)
    if key in context.calls:
        chain = " → ".join(f"{d}.{n}" if d else n for d, n, _ in (*context.calls[context.calls.index(key) :], key))
        raise FunctionRecursionError(f"the model's function {function.name!r} calls itself: {chain}")
    inner: Scope = {}
    for position, name in enumerate(function.input):
        given = proto.input[position] if position < len(proto.input) else ""
        inner[name] = scope[given] if given else None
    bound = dict(attributes)
    for default in function.attribute_proto:
        bound.setdefault(default.name, default)
    label = proto.name or b.graph.fresh_name(function.name, node=True)
    inside = replace(
        context,
        versions=_versions(function.opset_import) if function.opset_import else context.versions,
        calls=(*context.calls, key),
        attributes=bound,
        declared={},
        prefix=f"{context.prefix}{label}/",
    )
    _emit(b, list(function.node), inner, inside)
    results: list[Value | None] = []
    for position, name in enumerate(function.output):
        value = inner.get(name)
        if value is None:
            raise DanglingNameError(f"the function {function.name!r} returns {name!r}, which nothing in it defines")
        wanted = proto.output[position] if position < len(proto.output) else ""
        if wanted and value.producer is not None and not b.graph.has_value(context.prefix + wanted):
            b.graph.rename(value, context.prefix + wanted)
        results.append(value)
    return results


# --- attributes -------------------------------------------------------------------------------------------------------


def _resolved(proto: onnx.NodeProto, context: _Context) -> dict[str, AttributeProto]:
    """The node's attributes, references to those of the enclosing function replaced by what they refer to."""
    found: dict[str, AttributeProto] = {}
    for attribute in proto.attribute:
        if attribute.ref_attr_name:
            target = context.attributes.get(attribute.ref_attr_name)
            if target is not None:
                renamed = AttributeProto()
                renamed.CopyFrom(target)
                renamed.name = attribute.name
                found[attribute.name] = renamed
        else:
            found[attribute.name] = attribute
    return found


def _attributes(
    b: Builder, proto: onnx.NodeProto, attributes: Mapping[str, AttributeProto], scope: Scope, context: _Context
) -> tuple[dict[str, Any], list[Value]]:
    """Attribute values, subgraphs made graphs; and the outer values that the subgraphs capture, in order."""
    attrs: dict[str, Any] = {}
    captured: dict[str, Value] = {}
    graphs = [a for a in attributes.values() if a.type == AttributeProto.GRAPH]
    for attribute in graphs:
        for name in _free_names(attribute.g):
            value = scope.get(name)
            if value is None:
                raise DanglingNameError(f"a subgraph of {_shown(proto)} reads {name!r}, which nothing defines")
            captured[name] = value
    for attribute in attributes.values():
        if attribute.type == AttributeProto.GRAPH:
            inner = Graph(attribute.g.name or attribute.name)
            _read_graph(inner, attribute.g, captured, context)
            attrs[attribute.name] = inner
        elif attribute.type == AttributeProto.TENSOR:
            attrs[attribute.name] = tensor_to_array(attribute.t, context.folder)
        else:
            attrs[attribute.name] = attribute_from_proto(attribute)
    if graphs:
        attrs["captured"] = len(captured)
    return attrs, list(captured.values())


def _free_names_of(node: onnx.NodeProto) -> list[str]:
    return [n for a in node.attribute if a.type == AttributeProto.GRAPH for n in _free_names(a.g)]


def _free_names(graph: onnx.GraphProto) -> list[str]:
    """The names that a subgraph reads from the scope around it, in order of first use."""
    bound = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    bound |= {t.values.name for t in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output if name}
    free: dict[str, None] = {}
    for node in graph.node:
        for name in (*node.input, *_free_names_of(node)):
            if name and name not in bound:
                free[name] = None
    for info in graph.output:
        if info.name not in bound:
            free[info.name] = None
    return list(free)


# --- constants --------------------------------------------------------------------------------------------------------


def _constant_node(b: Builder, proto: onnx.NodeProto, attributes: Mapping[str, AttributeProto], context: _Context) -> Value:
    given = list(attributes.values())
    if len(given) != 1:
        raise ModelTypeError(f"{_shown(proto)} must have exactly one attribute that holds its value, it has {len(given)}")
    attribute = given[0]
    if attribute.type == AttributeProto.TENSOR:
        array = tensor_to_array(attribute.t, context.folder)
    elif attribute.type == AttributeProto.SPARSE_TENSOR:
        array = _dense(attribute.sparse_tensor, context.folder)
    else:
        value = attribute_from_proto(attribute)
        dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        if attribute.name not in dtypes and attribute.name not in ("value_string", "value_strings"):
            raise ModelTypeError(f"{_shown(proto)} has the attribute {attribute.name!r}, which no Constant has")
        array = np.array(value, dtypes.get(attribute.name, object))
    return _constant(b.graph, array, context.prefix + proto.output[0], parameter=array.size > 1)


def _filled_weight(
    b: Builder, proto: onnx.NodeProto, inputs: Sequence[Value | None], attrs: Mapping[str, Any]
) -> Value | None:
    """A ConstantOfShape whose shape is a constant, as the constant that it makes; None for any other node."""
    if proto.op_type != "ConstantOfShape" or len(inputs) != 1 or inputs[0] is None or inputs[0].constant is None:
        return None
    fill = np.asarray(attrs.get("value", np.zeros(1, np.float32)))
    shape = [int(d) for d in inputs[0].constant.reshape(-1)]
    size = 1
    for dim in shape:
        size *= dim
    if fill.size != 1 or min(shape, default=0) < 0 or size * fill.itemsize > _LARGEST_FILL:
        return None
    array = np.full(shape, fill.reshape(-1)[0], fill.dtype)
    return _constant(b.graph, array, proto.output[0], parameter=array.size > 1)


def _shown(proto: onnx.NodeProto) -> str:
    op = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
    return (
        f"the node {proto.name!r} ({op})"
        if proto.name
        else f"the node that makes {proto.output[0] if proto.output else '?'!r} ({op})"
    )
