"""Checking a graph against the invariants that every pass relies on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import defs

from irgrad.builder import call_of
from irgrad.contents import infer_contents
from irgrad.errors import IrgradError, VerifyError
from irgrad.graph import Expansion, Graph, Node, Role, Value
from irgrad.infer import infer_types
from irgrad.text import line_of
from irgrad.types import OptionalType, SequenceType, TensorType, as_known_to_be_there, dims_differ, types_compatible

__all__ = ["verify"]

Problems: TypeAlias = "Iterator[tuple[str, Node | Value | None]]"

_SHOWN = 20
_PLAIN = (int, float, str, bytes, np.ndarray, TensorType, SequenceType, OptionalType)
_PROTOS = (onnx.GraphProto, onnx.SparseTensorProto, onnx.TensorProto, onnx.TypeProto)


def verify(graph: Graph, *, types: bool = False) -> None:
    """Check every invariant of a graph and of the graphs inside it.

    Edges match operands and outputs; a value has one producer or is an input or a constant; names are unique; the graph is
    bipartite and acyclic; values are typed, constants as their arrays are; roles, attributes and numbers of operands are
    what the operations take; gradients name a value and an output of the same kind.

    Args:
        graph: it is not changed.
        types: also infer the type of every result anew and compare (this costs far more than all the rest).

    Raises:
        VerifyError: something does not hold; the message gives all problems with the lines that they are about.
    """
    problems: list[str] = []
    shown: list[str] = []
    seen: set[int] = set()
    waiting: list[tuple[str, Graph]] = [("", graph)]
    while waiting:
        where, current = waiting.pop(0)
        for sentence, thing in _shared(current) if id(current) in seen else _problems(current, types):
            problems.append(where + sentence)
            if len(problems) <= _SHOWN:
                shown += [f"  - {where}{sentence}"] + ([] if thing is None else [f"      {_line(thing)}"])
        if id(current) not in seen:
            seen.add(id(current))
            waiting += [(where + place, inner) for place, inner in _inside(current)]
    if problems:
        more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        count = "1 invariant" if len(problems) == 1 else f"{len(problems)} invariants"
        raise VerifyError("\n".join([f"the graph {graph.name!r} breaks {count}:", *shown, *more]), problems)


def _line(thing: Node | Value) -> str:
    try:
        return line_of(thing)
    except Exception:  # a thing that is broken enough has no line
        return f"%{thing._name}" if isinstance(thing, Value) else repr(thing._name)


def _inside(graph: Graph) -> Iterator[tuple[str, Graph]]:
    for node in graph._node_names.values():
        for key, value in node.attrs.items():
            if isinstance(value, Graph):
                yield f"in {key!r} of the node {node._name!r}: ", value


def _shared(graph: Graph) -> Problems:
    yield f"the graph {graph.name!r} is the attribute of more than one node", None


def _problems(graph: Graph, types: bool) -> Problems:
    broken = False
    for problem in (*_vertices(graph), *_edges(graph), *_order(graph)):
        broken = True
        yield problem
    if broken:
        return  # what follows takes the structure for granted
    for value in graph.values():
        yield from _value(value)
    for node in graph.nodes():
        yield from _node(node)
        if types:
            yield from _inferred(node)
    yield from _interface(graph)


# --- structure --------------------------------------------------------------------------------------------------------


def _vertices(graph: Graph) -> Problems:
    """Every vertex is registered under its name, and everything registered is a vertex."""
    for kind, table in ((Node, graph._node_names), (Value, graph._values)):
        what = kind.__name__.lower()
        registered: Counter[Any] = Counter(table.values())
        for name, thing in table.items():
            if thing not in graph._dag:
                yield f"the {what} {name!r} is registered but not in the graph", None
            if thing._name != name:
                yield f"the {what} {thing._name!r} is registered under the name {name!r}", None
            if registered[thing] > 1:
                yield f"the {what} {thing._name!r} is registered more than once", None
        for thing in graph._dag:
            if isinstance(thing, kind):
                if thing not in registered:
                    other = table.get(thing._name)
                    reason = "it is not registered" if other is None else "another one has that name"
                    yield f"the {what} {thing._name!r} is in the graph, but {reason}", thing
                if thing._graph is not graph:
                    yield f"the {what} {thing._name!r} belongs to another graph", thing
    for thing in graph._dag:
        if not isinstance(thing, (Node, Value)):
            yield f"{thing!r} is in the graph, which is neither a node nor a value", None


def _edges(graph: Graph) -> Problems:
    """Edges are what the nodes list as operands and outputs; every value has one origin."""
    dag = graph._dag
    for tail, head in dag.edges:
        if isinstance(tail, Node) == isinstance(head, Node):
            yield f"an edge leads from {tail!r} to {head!r}, but edges join nodes and values", None
    for node in dag:
        if isinstance(node, Node):
            yield from _mismatch(node, "operand", node._inputs, dag.pred[node])
            yield from _mismatch(node, "output", node._outputs, dag.succ[node])
            if len(set(node._outputs)) != len(node._outputs):
                yield f"the node {node._name!r} lists an output twice", node
    entries = Counter([*graph._inputs, *graph._constants])
    for value in dag:
        if not isinstance(value, Value):
            continue
        makers = [node for node in dag.pred[value] if isinstance(node, Node)]
        if len(makers) > 1:
            yield f"%{value._name} has {len(makers)} producers: {', '.join(repr(m._name) for m in makers)}", value
        elif makers and value in entries:
            yield f"%{value._name} is made by the node {makers[0]._name!r} and also an input or a constant", value
        elif not makers and value not in entries:
            yield f"%{value._name} is made by no node and is neither an input nor a constant", value
    for value, count in entries.items():
        if value not in dag:
            yield f"%{value._name} is an input or a constant but not in the graph", None
        elif count > 1:
            yield f"%{value._name} is listed {count} times among the inputs and constants", value


def _mismatch(node: Node, what: str, listed: Iterable[Value | None], edges: Iterable[Any]) -> Problems:
    present = {value: None for value in listed if value is not None}
    joined = dict.fromkeys(edges)
    for value in present:
        if value not in joined:
            yield f"%{value._name} is an {what} of the node {node._name!r}, but no edge says so", node
    for value in joined:
        if value not in present and isinstance(value, Value):
            yield f"an edge joins %{value._name} and the node {node._name!r}, which does not list it as an {what}", node


def _order(graph: Graph) -> Problems:
    """The graph is acyclic, and the order that it remembers is one."""
    dag = graph._dag
    waits = {vertex: len(dag.pred[vertex]) for vertex in dag}
    ready = [vertex for vertex, count in waits.items() if not count]
    for vertex in ready:
        for after in dag.succ[vertex]:
            waits[after] -= 1
            if not waits[after]:
                ready.append(after)
    if len(ready) != len(waits):
        nodes = [vertex for vertex in _cycle(dag, waits) if isinstance(vertex, Node)]
        yield f"the graph has a cycle through {', '.join(repr(n._name) for n in nodes[:10])}", nodes[0] if nodes else None
        return
    if graph._order is not None:
        place = {node: position for position, node in enumerate(graph._order)}
        if place.keys() != set(graph._node_names.values()):
            yield "the remembered order of the nodes is not that of the nodes that there are", None
            return
        for node in graph._order:
            for value in node._inputs:
                maker = None if value is None else next(iter(dag.pred[value]), None)
                if maker is not None and place[maker] >= place[node]:
                    yield f"the node {node._name!r} stands before {maker._name!r}, which it depends on", node


def _cycle(dag: Any, waits: dict[Any, int]) -> list[Any]:
    """The vertices of one cycle: walking backwards among those that still wait must come to one."""
    vertex = next(v for v, count in waits.items() if count)
    trail: dict[Any, int] = {}
    while vertex not in trail:
        trail[vertex] = len(trail)
        vertex = next(before for before in dag.pred[vertex] if waits[before])
    return list(trail)[trail[vertex] :][::-1]


# --- values and nodes -------------------------------------------------------------------------------------------------


def _value(value: Value) -> Problems:
    sentence = _type_problem(value._type)
    if sentence is not None:
        yield f"%{value._name} {sentence}", value
        return
    array = value.constant
    if array is not None and (not isinstance(array, np.ndarray) or TensorType.of(array) != value._type):
        have = TensorType.of(array) if isinstance(array, np.ndarray) else type(array).__name__
        yield f"%{value._name} is typed {value._type}, but its array is {have}", value
    if value.is_parameter and array is None:
        yield f"%{value._name} is marked as a parameter but is no constant", value
    if value.contents is not None:
        shape = value._type.static_shape if isinstance(value._type, TensorType) else None
        if not isinstance(value._type, TensorType) or value._type.dtype.kind not in "iub":
            yield f"%{value._name} has known contents but is {value._type}, no integers", value
        elif shape is not None and int(np.prod(shape)) != len(value.contents):
            yield f"%{value._name} is {value._type} but has {len(value.contents)} known elements", value


def _type_problem(type: object) -> str | None:
    while isinstance(type, (SequenceType, OptionalType)):
        type = type.element
    if not isinstance(type, TensorType):
        return "has no type" if type is None else f"is typed {type!r}, which is no type"
    if not isinstance(type.dtype, np.dtype):
        return f"has the dtype {type.dtype!r}, which is no numpy dtype"
    if type.shape is not None and not (isinstance(type.shape, tuple) and all(map(_is_dim, type.shape))):
        return f"has the shape {type.shape!r}, in which something is no dimension"
    return None


def _is_dim(dim: object) -> bool:
    if isinstance(dim, (str, int)):
        return bool(dim) if isinstance(dim, str) else not isinstance(dim, bool) and dim >= 0
    return dim is None


def _node(node: Node) -> Problems:
    where = f"the node {node._name!r}"
    if not isinstance(node.role, Role):
        yield f"{where} has the role {node.role!r}, which is none", node
    if not isinstance(node.origin, (str, type(None))):
        yield f"{where} has an origin that is no name: {node.origin!r}", node
    if not isinstance(node.rule, (str, type(None))):
        yield f"{where} has a rule that is no name: {node.rule!r}", node
    if not isinstance(node.expansion, (Expansion, type(None))):
        yield f"{where} has an expansion that is none: {node.expansion!r}", node
    for key, value in node.attrs.items():
        if not _is_attribute(value):
            yield f"the attribute {key!r} of {where} is of a kind that no attribute has: {type(value).__name__}", node
    captured = node.attrs.get("captured", 0)
    if not isinstance(captured, int) or not 0 <= captured <= len(node._inputs):
        yield f"{where} says that it captures {captured!r} of its {len(node._inputs)} operands", node
        return
    for inner in node.subgraphs:
        yield from _captures(node, inner, captured)
    if node.op.schema is not None:
        yield from _counts(node, node.op.schema, captured)


def _is_attribute(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(item, (*_PLAIN, *_PROTOS)) for item in value)
    return isinstance(value, (*_PLAIN, *_PROTOS, Graph))


def _captures(node: Node, inner: Graph, captured: int) -> Problems:
    """The values that a subgraph captures are its last inputs and the node's last operands."""
    inputs = inner._inputs
    if len(inputs) < captured:
        yield (
            f"the node {node._name!r} captures {captured} values, its subgraph {inner.name!r} has {len(inputs)} inputs",
            node,
        )
        return
    first = len(node._inputs) - captured
    for outer, value in zip(node._inputs[first:], inputs[len(inputs) - captured :], strict=True):
        if outer is None or not types_compatible(outer._type, value._type):
            given = "absent" if outer is None else f"%{outer._name}: {outer._type}"
            yield f"the subgraph {inner.name!r} of the node {node._name!r} captures {value!r}, which is {given} there", node


def _counts(node: Node, schema: defs.OpSchema, captured: int) -> Problems:
    given = len(node._inputs) - captured
    if not schema.min_input <= given <= schema.max_input:
        yield f"{_takes(node, 'operands', schema.min_input, schema.max_input)}, not {given}", node
    if not schema.min_output <= len(node._outputs) <= schema.max_output:
        yield f"{_takes(node, 'outputs', schema.min_output, schema.max_output)}, not {len(node._outputs)}", node
    for position, value in enumerate(node._inputs[:given]):
        formal = schema.inputs[min(position, len(schema.inputs) - 1)] if schema.inputs else None
        if value is None and formal is not None and formal.option == defs.OpSchema.FormalParameterOption.Single:
            yield f"the operand {formal.name!r} of the node {node._name!r} must not be absent", node


def _takes(node: Node, what: str, least: int, most: int) -> str:
    count = f"{least}" if least == most else f"at least {least}" if most >= 2**31 - 1 else f"{least} to {most}"
    return f"the node {node._name!r} ({node.op.qualified_name}) takes {count} {what}"


# --- inferred types ---------------------------------------------------------------------------------------------------


def _inferred(node: Node) -> Problems:
    if node.op.schema is None and node.op.infer_rule is None:
        return  # of an opaque operation nothing is known
    stated = [value._type for value in node._outputs]
    try:
        types = infer_types(call_of(node.op, node.attrs, node._inputs, len(stated)))
        contents = infer_contents(call_of(node.op, node.attrs, node._inputs, len(stated), stated))
    except IrgradError as error:
        yield f"at the node {node._name!r}: {error}", node
        return
    for value, type, known in zip(node._outputs, types, contents, strict=True):
        if not types_compatible(value._type, as_known_to_be_there(type, value._type)):
            yield f"%{value._name} is typed {value._type}, but its node gives {type}", node
        if known is not None and value.contents is not None and any(map(dims_differ, known, value.contents)):
            yield f"%{value._name} is said to hold {value.contents}, but its node gives {known}", node


# --- outputs and gradients --------------------------------------------------------------------------------------------


def _interface(graph: Graph) -> Problems:
    for name, value in graph._outputs.items():
        if not isinstance(name, str) or value not in graph._dag:
            yield f"the output {name!r} is %{value._name}, which is not in the graph", None
    if graph._returned != set(graph._outputs.values()):
        yield "what the graph remembers of which values are outputs is out of date", None
    for name, gradient in graph.gradients.items():
        of = graph._outputs.get(name, graph._values.get(name))
        output = graph._outputs.get(gradient)
        if of is None:
            yield f"there is a gradient {gradient!r} of %{name}, but no such value", None
        if output is None:
            yield f"the gradient of %{name} is said to be the output {gradient!r}, but there is none", None
        elif of is not None and not types_compatible(of._type, output._type):
            yield f"%{name} is {of._type}, but its gradient {gradient!r} is {output._type}", output
