"""What irgrad writes into the metadata of a model, beside what ONNX has a place for, so that it reads its graphs back.

Everything stands in `metadata_props` under keys that begin with "irgrad.": other tools show it and are free to ignore it.
Names of values in a file are unique across all scopes, outputs go by the names of values, and captured values are just read;
where a graph has it otherwise, a mark says how.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx

from irgrad.errors import ModelTypeError, TextError
from irgrad.frontends.onnx.names import free_names
from irgrad.graph import Expansion, Graph, Node, Role, Value
from irgrad.literals import contents_text, type_text
from irgrad.text_parser import parse_type
from irgrad.types import TensorType, as_known_to_be_there, types_compatible

__all__ = [
    "ATTRIBUTES",
    "CAPTURED",
    "DEFAULTS",
    "EXPANSION",
    "FINGERPRINT",
    "FORMAT",
    "GRADIENTS",
    "METADATA",
    "NAMES",
    "OPERAND",
    "OPERANDS",
    "OPERATION",
    "ORIGIN",
    "OUTPUTS",
    "PARAMETER",
    "PASSES_ON",
    "PREFIX",
    "PRODUCER",
    "RESULTS",
    "ROLE",
    "RULE",
    "TYPE",
    "VERSION",
    "Capture",
    "GraphMarks",
    "apply_node_marks",
    "captures_of",
    "entered",
    "exact_types",
    "fingerprint",
    "is_own",
    "is_unedited",
    "mark",
    "mark_json",
    "marks_of",
    "passed_on",
    "passes_on",
    "read_operation",
    "read_parameter",
    "typed",
    "typed_text",
]

PREFIX = "irgrad."
VERSION = "1"

# of the model
FORMAT = "irgrad.format"
FINGERPRINT = "irgrad.fingerprint"  # of all that types follow from, see `fingerprint`
PRODUCER = "irgrad.source"  # what had written the file that the graph came from
# of a graph
GRADIENTS = "irgrad.gradients"  # {value: output}
NAMES = "irgrad.names"  # {name in the file: name in the graph}, where they differ
OUTPUTS = "irgrad.outputs"  # [name in the graph], where they differ from those in the file
CAPTURED = "irgrad.captured"  # of a subgraph: [[name outside, name inside, type where it is another one]]
METADATA = "irgrad.metadata"  # {key: text} of what has no other place
# of a node
ROLE = "irgrad.role"
ORIGIN = "irgrad.origin"
RULE = "irgrad.rule"
EXPANSION = "irgrad.expansion"  # [operation, node]
OPERANDS = "irgrad.operands"  # how many there are, where some at the end are absent
RESULTS = "irgrad.results"  # how many there are, where ONNX wants more
ATTRIBUTES = "irgrad.attributes"  # {name: numbers} that float32 cannot say exactly
DEFAULTS = "irgrad.defaults"  # [name] of attributes that are written although the graph leaves them out
PASSES_ON = "irgrad.passes_on"  # of an Identity that is not in the graph: OPERAND, or the number of a captured value
OPERAND = "operand"
# of a tensor, a value and a function
PARAMETER = "irgrad.parameter"  # "true" or "false", where it is not what the dtype says
TYPE = "irgrad.type"  # type and known elements, where they are not those that the file's declaration leads to
OPERATION = "irgrad.operation"  # the operation whose meaning the function is


# --- writing ----------------------------------------------------------------------------------------------------------


def mark(proto: Any, key: str, text: str) -> None:
    """Add an entry to the metadata of a message."""
    proto.metadata_props.add(key=key, value=text)


def mark_json(proto: Any, key: str, value: Any) -> None:
    """Add an entry that holds JSON; none where the value is empty."""
    if value:
        mark(proto, key, json.dumps(value))


def typed_text(value: Value) -> str:
    """The type of a value and the elements that are known of it."""
    return type_text(value.type) + ("" if value.contents is None else contents_text(value.contents))


def fingerprint(graph: onnx.GraphProto) -> str:
    """What changes where somebody edits the inputs, the nodes or the shape of a weight: then declared types may be stale."""
    found = hashlib.sha256()
    for message in (*graph.input, *graph.node):
        found.update(message.SerializeToString(deterministic=True))
        found.update(b"\0")
    for tensor in graph.initializer:
        found.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\0".encode())
    return found.hexdigest()[:32]


# --- reading ----------------------------------------------------------------------------------------------------------


def marks_of(proto: Any) -> dict[str, str]:
    """The entries of a message that are irgrad's."""
    entries = ((entry.key, entry.value) for entry in proto.metadata_props)
    return {key: text for key, text in entries if isinstance(key, str) and key.startswith(PREFIX) and isinstance(text, str)}


def is_own(model: onnx.ModelProto) -> bool:
    """Whether irgrad wrote a model, in a form that this version reads."""
    return marks_of(model).get(FORMAT) == VERSION


def is_unedited(model: onnx.ModelProto) -> bool:
    """Whether a model of irgrad's is as it was written, so that the types that it declares hold."""
    return is_own(model) and marks_of(model).get(FINGERPRINT) == fingerprint(model.graph)


@dataclass(frozen=True)
class Capture:
    """A captured value: its name outside of a subgraph, its name in there, and its type there where that is another one."""

    outer: str
    inner: str
    type: str | None

    def enter(self, graph: Graph, value: Value) -> Value:
        """The input of the subgraph that stands for the captured value."""
        inner = graph.add_input(graph.fresh_name(self.inner), value.type)
        inner.contents = value.contents
        return typed(inner, self.type)


@dataclass(frozen=True)
class GraphMarks:
    """The marks of a graph.

    Attributes:
        names: name in the file → name in the graph, where they differ.
        outputs: the names of the outputs, where they differ from those in the file.
        gradients: see `Graph.gradients`.
        metadata: see `Graph.metadata`.
        captured: of a subgraph, None where it does not say.
    """

    names: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    gradients: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    captured: tuple[Capture, ...] | None = None

    @classmethod
    def of(cls, proto: onnx.GraphProto) -> GraphMarks:
        """Those of a GraphProto.

        Raises:
            ModelTypeError: one is malformed.
        """
        found = marks_of(proto)
        captured = None
        if CAPTURED in found:
            captured = tuple(_capture(entry) for entry in _json(found[CAPTURED], list, CAPTURED))
        return cls(
            _texts(found, NAMES),
            [_text(name, OUTPUTS) for name in _json(found.get(OUTPUTS, "[]"), list, OUTPUTS)],
            _texts(found, GRADIENTS),
            _texts(found, METADATA),
            captured,
        )

    def rename(self, graph: Graph, scope: Mapping[str, Value | None], captured: Mapping[Value, Capture]) -> None:
        """Give the values of a graph that was read the names that they had.

        Args:
            graph: the graph.
            scope: name in the file → value.
            captured: the inputs that stand for captured values.
        """
        wanted: dict[Value, str] = {}
        for name, value in scope.items():
            if value is not None and value.graph is graph:
                wanted.setdefault(value, self.names.get(name, name))  # further names are those of what passes it on
        wanted.update((inner, capture.inner) for inner, capture in captured.items())
        moving = [value for value, name in wanted.items() if value.name != name]
        for value in moving:
            graph.rename(value, graph.fresh_name("moving"))
        for value in moving:
            graph.rename(value, graph.fresh_name(wanted[value]))

    def finish(self, graph: Graph) -> None:
        """Give the outputs of a graph the names that they had, say which of them are gradients, complete its metadata."""
        graph.metadata.update(self.metadata)
        outputs = graph.outputs
        if len(self.outputs) == len(outputs) == len(set(self.outputs)):
            graph.set_outputs(dict(zip(self.outputs, outputs.values(), strict=True)))
        known = graph.outputs
        for name, output in self.gradients.items():
            of = known.get(name) or (graph.value(name) if graph.has_value(name) else None)
            if of is not None and output in known and types_compatible(of.type, known[output].type):
                graph.gradients[name] = output


def captures_of(subgraphs: Iterable[onnx.GraphProto], scope: Mapping[str, Value | None]) -> list[tuple[Capture, ...]] | None:
    """What the subgraphs of a node say that they capture.

    Returns:
        The captures of each, which are of the same values; None where that is not so, or not all that they read.
    """
    found = []
    for subgraph in subgraphs:
        captured = GraphMarks.of(subgraph).captured
        outer = [] if captured is None else [capture.outer for capture in captured]
        if captured is None or any(scope.get(name) is None for name in outer) or set(free_names(subgraph)) - set(outer):
            return None
        found.append(captured)
    same = all([c.outer for c in captured] == [c.outer for c in found[0]] for captured in found)
    return found if same else None


def entered(graph: Graph, captures: Iterable[Capture], outer: Mapping[str, Value | None]) -> dict[Value, Capture]:
    """The inputs that a subgraph gets for what it captures, in order."""
    return {capture.enter(graph, value): capture for capture in captures if (value := outer[capture.outer]) is not None}


def apply_node_marks(node: Node, proto: onnx.NodeProto) -> None:
    """Set the role of a node that was read, and what is noted of where it comes from.

    Raises:
        ModelTypeError: there is no such role, or a mark is malformed.
    """
    found = marks_of(proto)
    try:
        node.role = Role(found.get(ROLE, node.role))
    except ValueError:
        raise _malformed(ROLE, found[ROLE]) from None
    node.origin = found.get(ORIGIN, node.origin)
    node.rule = found.get(RULE, node.rule)
    if EXPANSION in found:
        expanded = [_text(text, EXPANSION) for text in _json(found[EXPANSION], list, EXPANSION)]
        if len(expanded) != 2:
            raise _malformed(EXPANSION, found[EXPANSION])
        node.expansion = Expansion(*expanded)


def read_operation(proto: onnx.NodeProto, attrs: dict[str, Any], operands: list[Value | None]) -> int:
    """Complete the attributes and the operands of a node by what its marks say of them.

    Returns:
        How many results it has.

    Raises:
        ModelTypeError: a mark is malformed.
    """
    found = marks_of(proto)
    for name, value in _json(found.get(ATTRIBUTES, "{}"), dict, ATTRIBUTES).items():
        exact = tuple(value) if isinstance(value, list) else value
        numbers = exact if isinstance(exact, tuple) else (exact,)
        if not all(isinstance(x, (int, float)) for x in numbers) or not _rounds_to(numbers, attrs.get(name)):
            raise _malformed(ATTRIBUTES, found[ATTRIBUTES])
        attrs[name] = exact
    for name in _json(found.get(DEFAULTS, "[]"), list, DEFAULTS):
        attrs.pop(_text(name, DEFAULTS), None)
    operands += [None] * (_count(found, OPERANDS, 0) - len(operands))
    return min(_count(found, RESULTS, len(proto.output)), len(proto.output))


def _count(found: dict[str, str], key: str, default: int) -> int:
    text = found.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise _malformed(key, text)
    return int(text)


def passes_on(proto: onnx.NodeProto) -> bool:
    """Whether a node is there for the file's sake only."""
    return proto.op_type == "Identity" and len(proto.input) == len(proto.output) == 1 and PASSES_ON in marks_of(proto)


def passed_on(proto: onnx.NodeProto, scope: Mapping[str, Value | None], captured: Sequence[Value]) -> Value | None:
    """The value that such a node passes on: its operand, or the captured value of a number.

    Raises:
        ModelTypeError: there is no such captured value.
    """
    what = marks_of(proto)[PASSES_ON]
    if what == OPERAND:
        return scope[proto.input[0]]
    if not (what.isascii() and what.isdigit() and len(what) < 9 and int(what) < len(captured)):
        raise _malformed(PASSES_ON, what)
    return captured[int(what)]


def read_parameter(proto: Any, default: bool) -> bool:
    """Whether a tensor is a parameter."""
    return {"true": True, "false": False}.get(marks_of(proto).get(PARAMETER, ""), default)


def exact_types(infos: Iterable[onnx.ValueInfoProto]) -> dict[str, str]:
    """Name → type and known elements, where a declaration is marked with them."""
    return {info.name: text for info in infos if (text := marks_of(info).get(TYPE)) is not None}


def typed(value: Value, text: str | None) -> Value:
    """A value, its type and its known elements set where the file says them exactly.

    Raises:
        ModelTypeError: what it says is malformed, or cannot be.
    """
    if text is None:
        return value
    try:
        type, contents = parse_type(text)
    except TextError:
        raise _malformed(TYPE, text) from None
    shape = type.static_shape if isinstance(type, TensorType) else None
    if not types_compatible(as_known_to_be_there(value.type, type), type):
        raise ModelTypeError(f"the value {value.name!r} is said to be {type}, but it is {value.type}")
    if contents is not None and (shape is None or prod(shape) != len(contents)):
        raise _malformed(TYPE, text)
    value.graph.set_type(value, type)
    value.contents = contents
    return value


def _capture(entry: Any) -> Capture:
    if not isinstance(entry, list) or len(entry) != 3:
        raise _malformed(CAPTURED, json.dumps(entry))
    outer, inner, type = entry
    return Capture(_text(outer, CAPTURED), _text(inner, CAPTURED), None if type is None else _text(type, CAPTURED))


def _rounds_to(numbers: Sequence[Any], there: Any) -> bool:
    """Whether exact numbers are what those in the file, which are float32, were rounded from."""
    try:
        with np.errstate(over="ignore"):
            stored = np.array(there, np.float32).reshape(-1)
            return bool(np.array_equal(np.array(numbers, np.float32), stored, equal_nan=True))
    except (TypeError, ValueError, OverflowError):
        return False


def _texts(found: dict[str, str], key: str) -> dict[str, str]:
    return {name: _text(text, key) for name, text in _json(found.get(key, "{}"), dict, key).items()}


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise _malformed(key, json.dumps(value))
    return value


def _json(text: str, kind: type, key: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise _malformed(key, text)
    return value


def _malformed(key: str, text: str) -> ModelTypeError:
    return ModelTypeError(f"the metadata {key!r} holds {text[:80]!r}, which is not what irgrad writes there")
