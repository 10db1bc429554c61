"""From a ModelProto to a `Graph`: names resolved, nodes checked, upgraded and typed, functions inlined, subgraphs closed.

A subgraph becomes a `Graph` attribute. What it reads of the scope around it is made explicit: the captured values are the
last operands of its node and the last inputs of each of its subgraphs, and the attribute "captured" says how many they are.
Parameters that lie in a subgraph are moved out of it and captured, so that the graph knows all of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto

from irgrad.builder import Builder
from irgrad.errors import (
    DanglingNameError,
    DuplicateNameError,
    GraphError,
    ModelError,
    ModelSizeError,
    ModelTypeError,
    TypeInferenceError,
    UnsupportedOpsetError,
)
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.attributes import constant_of, filled_array, resolved_attributes, value_of
from irgrad.frontends.onnx.calls import (
    check_calls,
    domain_of,
    expansion_of,
    function_key,
    functions_of,
    kept_operations,
)
from irgrad.frontends.onnx.check import adopt_types, check_attributes, check_operands, rules_of, shown
from irgrad.frontends.onnx.declared import (
    LoopInputs,
    check_ir_version,
    complete_type,
    declared_types,
    input_type,
    loop_inputs,
    metadata_of,
    note_node,
    versions_of,
)
from irgrad.frontends.onnx.external import ExternalData
from irgrad.frontends.onnx.initializers import add_initializers
from irgrad.frontends.onnx.names import check_names, free_names, ordered, restore_names
from irgrad.frontends.onnx.scope import (
    Context,
    Scope,
    add_constant,
    captured_as,
    inside,
    is_plain_constant,
    move_parameters_out,
    outputs_of,
    share_guesses,
    without_shapes,
)
from irgrad.frontends.onnx.upgrade import OldNode, upgrade
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.types import Type

__all__ = ["Scope", "emit_nodes", "read_model"]

_STUMBLES = (LookupError, TypeError, ValueError, ArithmeticError)


def read_model(model: onnx.ModelProto, folder: Path | None = None) -> Graph:
    """The graph of a model, written in today's opset.

    Args:
        model: any opset; it is not changed.
        folder: where external data may lie.

    Raises:
        ModelError: the model is defective; the subclass says how.
    """
    try:
        return _read_model(model, ExternalData(folder))
    except RecursionError:
        raise ModelSizeError("the model's subgraphs nest too deeply") from None
    except ModelError as error:
        if str(error).isprintable():
            raise
        # The names in a file may hold anything, line breaks too; a message is one line.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
        raise type(error)(text) from error.__cause__


def _read_model(model: onnx.ModelProto, external: ExternalData) -> Graph:
    check_ir_version(model)
    functions = functions_of(model)
    check_calls(model, functions)
    versions = versions_of(model.opset_import, "the model", model.ir_version)
    graph = Graph(_label_of(model.graph, "graph"))
    own = marks.is_own(model)
    graph.metadata = metadata_of(model, own=own)
    kept = kept_operations(functions) if own else {}
    functions = {key: function for key, function in functions.items() if key not in kept}
    context = Context(versions, external, functions, own=own, exact=own and marks.is_unedited(model), kept=kept)
    _read_graph(graph, model.graph, context)
    return graph


def emit_nodes(
    b: Builder,
    nodes: Iterable[NodeProto],
    scope: Scope,
    versions: Mapping[str, int],
    *,
    attributes: Mapping[str, AttributeProto],
    prefix: str,
) -> None:
    """Emit the nodes of a function body; their results are added to `scope`."""
    _emit(b, list(nodes), scope, Context(versions, attributes=attributes, prefix=prefix))


# --- graphs -----------------------------------------------------------------------------------------------------------


def _label_of(proto: onnx.GraphProto, default: str) -> str:
    return proto.name if isinstance(proto.name, str) and proto.name else default


def _read_graph(
    graph: Graph,
    proto: onnx.GraphProto,
    context: Context,
    outer: Scope | None = None,
    given: Sequence[Type | None] = (),
    captures: Sequence[marks.Capture] | None = None,
) -> None:
    """Fill `graph` from a GraphProto.

    Args:
        graph: an empty graph.
        proto: what it shall be.
        context: of the scope around it.
        outer: for a subgraph, the values of the scope around it that it or its siblings read: they become further inputs
            (constants that are no parameters become constants).
        given: the types of what arrives at the first inputs, where they are known.
        captures: for a subgraph that says so, how it captures those values.
    """
    check_names(proto)
    context = replace(context, **_declared(proto, context), nodes={}, labels=set())
    found = marks.GraphMarks.of(proto) if context.own else marks.GraphMarks()
    scope: Scope = {}
    defaults = {t.name for t in proto.initializer} | {t.values.name for t in proto.sparse_initializer}
    for position, info in enumerate(proto.input):
        if info.name not in defaults:
            known = given[position] if position < len(given) else None
            type = input_type(info, known, symbols=context.symbols, exact=context.exact)
            scope[info.name] = marks.typed(graph.add_input(info.name, type), context.known.get(info.name))
        elif outer is not None:
            raise DuplicateNameError(f"the subgraph {proto.name!r} has the input {info.name!r} as an initializer too")
    add_initializers(graph, proto, scope, context)
    entered = marks.entered(graph, captures or (), outer or {})
    for inner, capture in entered.items():
        scope.setdefault(capture.outer, inner)
    free = set(free_names(proto)) if outer else ()
    for name, value in (outer or {}).items() if captures is None else ():
        stands = captured_as(graph, name, value)
        if name in free:  # what only a sibling reads may be called like something else in here
            scope[name] = stands
        if value in context.guessed:
            context.guessed.add(stands)
    context = replace(context, captured=tuple(entered))
    _emit(Builder(graph), list(proto.node), scope, context)
    restore_names(graph, {} if context.own else scope, context.nodes)
    if context.own:
        found.rename(graph, scope, entered)
    graph.set_outputs(outputs_of(proto, scope, unique=outer is None))
    found.finish(graph)


def _declared(proto: onnx.GraphProto, context: Context) -> dict[str, Any]:
    infos = (*proto.value_info, *proto.output)
    types = declared_types(infos, symbols=context.symbols or context.exact)
    return {"declared": types, "known": marks.exact_types((*proto.input, *infos)) if context.exact else {}}


# --- nodes ------------------------------------------------------------------------------------------------------------


def _emit(b: Builder, nodes: list[NodeProto], scope: Scope, context: Context) -> None:
    for node in ordered(nodes, scope):
        results = _emit_node(b, node, scope, context)
        for name, value in zip(node.output, results, strict=False):
            if name:
                scope[name] = value


def _emit_node(b: Builder, proto: NodeProto, scope: Scope, context: Context) -> Sequence[Value | None]:
    if context.own and marks.passes_on(proto):
        return [marks.passed_on(proto, scope, context.captured)]
    attributes = resolved_attributes(proto, context.attributes)
    function = context.functions.get(function_key(proto))
    if function is not None:
        return _inline(b, proto, function, attributes, scope, context)
    domain = domain_of(proto.domain)
    version = context.versions.get(domain)
    if version is None:
        raise UnsupportedOpsetError(f"{shown(proto)} is of the domain {domain or 'ai.onnx'!r}, which is not imported")
    if not proto.op_type:
        raise ModelTypeError(f"{shown(proto)} does not say which operation it is")
    inputs = [scope[name] if name else None for name in proto.input]
    with inside(shown(proto)):
        rules = rules_of(proto.op_type, domain, version)
    while len(inputs) > (0 if rules is None else rules.fewest) and inputs[-1] is None:
        inputs.pop()
    if rules is not None:
        check_attributes(proto, attributes, rules)
        adopt_types(inputs, rules, context.guessed)
        check_operands(proto, inputs, rules)
    expansion = expansion_of(proto, attributes, inputs, version)
    if expansion is not None:
        return _inline(b, proto, expansion, attributes, scope, context, outer=scope)
    array: np.ndarray | None = None
    attrs = {n: value_of(a, proto, context.external) for n, a in attributes.items() if a.type != AttributeProto.GRAPH}
    if domain == "" and proto.op_type == "Constant" and (context.attributes is not None or not context.own):
        array = constant_of(proto, attrs)
    elif domain == "" and not context.own:
        array = filled_array(proto, inputs, attrs)
    if array is not None:
        return [add_constant(b.graph, array, context.prefix + proto.output[0], parameter=array.size > 1)]
    subgraphs, captured = _subgraphs(b, proto, version, attributes, inputs, scope, context)
    if subgraphs:
        attrs.update(subgraphs, captured=len(captured))
    results = marks.read_operation(proto, attrs, inputs) if context.own else len(proto.output)
    node = OldNode(
        context.kept.get(function_key(proto), proto.op_type),
        domain,
        version,
        [*inputs, *captured],
        attrs,
        n_outputs=max(1, results),
        used=tuple(bool(n) for n in proto.output),
    )
    return _upgraded(b, proto, node, context)


def _upgraded(b: Builder, proto: NodeProto, node: OldNode, context: Context) -> Sequence[Value]:
    """Emit a node in today's opset: its results."""
    graph, operands = b.graph, set(node.inputs)
    names = [f"{context.prefix}{name}" if name else None for name in proto.output]
    label = ""
    returned = [v for a in node.attrs.values() if isinstance(a, Graph) for v in a.outputs.values()]
    guessed = not context.guessed.isdisjoint([*operands, *returned])
    try:
        results = upgrade(b, node)
        if results is None:
            op = find_op(node.op, node.domain)
            guessed |= op.schema is None and op.infer_rule is None
            # Old files leave nodes without names; that of the first result tells more than a number would.
            own = proto.name or next((name for name in proto.output if name), node.op)
            label = graph.fresh_name(context.prefix + own, node=True)
            results = b.node(
                op,
                node.inputs,
                node.attrs,
                outputs=node.n_outputs,
                name=label,
                output_names=[None if n is None or graph.has_value(n) else n for n in names],
            ).outputs
        else:
            for value, wanted in zip(results, names, strict=False):
                if wanted is not None and value not in operands and not graph.has_value(wanted):
                    graph.rename(value, wanted)
    except (ModelTypeError, TypeInferenceError, GraphError, AssertionError, *_STUMBLES) as error:
        # An adapter or a rule takes for granted what its operation promises; what it stumbles over, the file got wrong.
        text = str(error).removeprefix(f"at the node {label!r}: ")
        hint = "; its operands come from a custom operation, so declare their types in the model" if guessed else ""
        raise ModelTypeError(f"{shown(proto)} is not valid: {text}{hint}") from error
    for value, name in zip(results, proto.output, strict=False):
        declared = context.declared.get(name)
        complete_type(value, declared, guessed=guessed, exact=context.exact)
        marks.typed(value, context.known.get(name))
        if guessed and declared is None:
            context.guessed.add(value)
    made = None if not results or results[0] in operands else results[0].producer
    if made is not None:
        if proto.name:
            context.nodes.setdefault(context.prefix + proto.name, made)
        note_node(graph, proto, made.name, own=context.own)
        if context.own:
            marks.apply_node_marks(made, proto)
    return results


# --- functions --------------------------------------------------------------------------------------------------------


def _inline(
    b: Builder,
    proto: NodeProto,
    function: onnx.FunctionProto,
    attributes: Mapping[str, AttributeProto],
    scope: Scope,
    context: Context,
    outer: Scope | None = None,
) -> Sequence[Value | None]:
    """Emit the body of a function in place of a call: its results.

    Args:
        b: where to emit.
        proto: the call.
        function: what is called.
        attributes: those of the call.
        scope: where the operands of the call are.
        context: of the call.
        outer: further names that the body may read: those that subgraphs of the call do.
    """
    defaults = {a.name: a for a in function.attribute_proto}
    unknown = [name for name in attributes if name not in defaults and name not in function.attribute]
    if unknown:
        raise ModelTypeError(f"{shown(proto)} gives the attribute {unknown[0]!r}, which the function does not have")
    for kind, have, most in (
        ("operands", proto.input, len(function.input)),
        ("outputs", proto.output, len(function.output)),
    ):
        if len(have) > most:
            raise ModelTypeError(f"{shown(proto)} has {len(have)} {kind}, but the function has only {most}")
    inner: Scope = {**(outer or {}), **dict.fromkeys(function.input)}
    inner.update({formal: scope[name] for formal, name in zip(function.input, proto.input, strict=False) if name})
    body = replace(
        context,
        attributes={**({} if outer is None else context.attributes or {}), **defaults, **attributes},
        declared=declared_types(function.value_info, symbols=False),
        prefix=context.label(proto.name or function.name) if outer is None else context.prefix,
    )
    with inside(f"the function {function.name!r}, called by {shown(proto)}"):
        if function.opset_import and outer is None:
            body = replace(body, versions=versions_of(function.opset_import, "the function", onnx.IR_VERSION))
        _emit(b, list(function.node), inner, body)
        for name in function.output:
            if inner.get(name) is None:
                raise DanglingNameError(f"the result {name!r} is not made by any node of it")
    results = [inner[name] for name in function.output]
    for value, name in zip(results, proto.output, strict=False):
        wanted = context.prefix + name
        if name and value is not None and value.name.startswith(body.prefix) and not b.graph.has_value(wanted):
            b.graph.rename(value, wanted)
    return results


# --- subgraphs --------------------------------------------------------------------------------------------------------


def _subgraphs(
    b: Builder,
    proto: NodeProto,
    version: int,
    attributes: Mapping[str, AttributeProto],
    inputs: Sequence[Value | None],
    scope: Scope,
    context: Context,
) -> tuple[dict[str, Any], list[Value]]:
    """The subgraphs of a node as graphs, and the values that they capture, in order."""
    protos = {name: a.g for name, a in attributes.items() if a.type == AttributeProto.GRAPH}
    if not protos:
        return {}, []
    inner = replace(context, prefix="", symbols=context.symbols and proto.op_type == "If")
    captures = marks.captures_of(protos.values(), scope) if context.own else None
    if captures is not None:
        read = [_read_as_marked(proto, n, g, scope, inner, c) for (n, g), c in zip(protos.items(), captures, strict=True)]
        return dict(zip(protos, read, strict=True)), [v for c in captures[0] if (v := scope[c.outer]) is not None]
    outer: Scope = {name: scope.get(name) for g in protos.values() for name in free_names(g)}
    scanned = attributes["num_scan_inputs"].i if "num_scan_inputs" in attributes else 0
    graphs: dict[str, Graph] = {}
    for name, g in protos.items():
        with inside(f"the subgraph {name!r} of {shown(proto)}"):
            given = loop_inputs(proto.op_type, version, inputs, scanned, g.input)
            try:
                graphs[name] = _read_body(g, name, inner, outer, given)
            except ModelTypeError as error:
                loose = _read_loosely(g, name, inner, outer) if proto.op_type == "If" else None
                if loose is None:
                    raise error from error.__cause__
                graphs[name] = loose
    captured = [v for v in outer.values() if v is not None and not is_plain_constant(v)]
    share_guesses(captured, list(graphs.values()), context.guessed)
    return dict(graphs), captured + move_parameters_out(b.graph, list(graphs.values()), context.prefix)


def _read_as_marked(
    node: NodeProto,
    name: str,
    proto: onnx.GraphProto,
    outer: Scope,
    context: Context,
    captures: Sequence[marks.Capture],
) -> Graph:
    """The subgraph `name` of a node, which captures what it says that it did."""
    graph = Graph(_label_of(proto, name))
    with inside(f"the subgraph {name!r} of {shown(node)}"):
        _read_graph(graph, proto, context, outer, captures=captures)
    return graph


def _read_body(proto: onnx.GraphProto, name: str, context: Context, outer: Scope, given: LoopInputs) -> Graph:
    """A subgraph, read again as long as what was taken for the types of its states turns out to hold for one trip only."""
    while True:
        graph = Graph(_label_of(proto, name))
        _read_graph(graph, proto, context, outer, given.types)
        corrected = given.corrected([value.type for value in graph.outputs.values()])
        if corrected == given:
            return graph
        given = corrected


def _read_loosely(proto: onnx.GraphProto, name: str, context: Context, outer: Scope) -> Graph | None:
    """A branch of an If that does not type-check, read without knowing the shapes that it captures; None where it fails too.

    ``If(dim == 1, Squeeze(x), x)`` is how exporters write a squeeze. Where the shape of x has been fixed since, the branch
    that will not be taken is often one that could not be.
    """
    graph = Graph(_label_of(proto, name))
    try:
        with without_shapes(outer.values()):
            _read_graph(graph, proto, context, outer)
    except ModelTypeError:
        return None
    return graph
