"""Reading the text form of a graph, see `irgrad.text`."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from irgrad.builder import call_of
from irgrad.contents import infer_contents
from irgrad.errors import GraphError
from irgrad.graph import OPSET, Expansion, Graph, Role, Value
from irgrad.infer import infer_types
from irgrad.literals import array_from_base64, array_from_elements, float_from_text
from irgrad.op import Op, find_op
from irgrad.text_lexer import Lexer
from irgrad.types import Dim, OptionalType, SequenceType, TensorType, Type, dtype_from_name

__all__ = ["parse_text", "parse_type"]

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_ROLES = {role.value: role for role in Role}
_PROTOS = ("GraphProto", "SparseTensorProto", "TensorProto", "TypeProto")


def parse_text(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """Read the text form of a graph.

    The types of results may be left out where inference finds them; comments run from ``#`` to the end of the line.

    Args:
        text: one graph.
        constants: the arrays of the constants whose elements the text leaves out, by name; for a constant of a subgraph the
            name is ``result.attribute/name``. Arrays of other names are ignored.

    Raises:
        TextError: the text is misspelt, a name is unknown or taken, or an array is missing or does not fit its type; the
            message begins with line and column.
    """
    parser = _Parser(text, constants or {})
    parser.word("graph")
    graph = parser.graph("")
    if parser.kind != "end":
        parser.fail("the end of the text was expected")
    return graph


def parse_type(text: str) -> tuple[Type, tuple[Dim, ...] | None]:
    """Read a type, and behind it in braces the elements of a small integer tensor, as far as they are known.

    Raises:
        TextError: the text is no type.
    """
    parser = _Parser(text, {})
    type, known = parser.type(), parser.known_contents()
    if parser.kind != "end":
        parser.fail("the end of the text was expected")
    return type, known


class _Parser(Lexer):
    """Recursive descent; the recursion is over nesting, never over the length of a graph."""

    def __init__(self, text: str, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(text)
        self._arrays = arrays
        self._ops: dict[str, Op] = {}

    # --- the graph ----------------------------------------------------------------------------------------------------

    def graph(self, path: str) -> Graph:
        """What follows the word "graph"; `path` stands before the names of its constants in `arrays`."""
        with self.nested():
            graph = Graph(self.name("the graph"), OPSET)
            if self.at_word("opset"):
                self.advance()
                graph.opset = self.integer("an opset")
            self.expect("{")
            outputs: dict[str, Value] = {}
            while not self.at("}"):
                if self.kind == "value" or self.at("("):
                    self.node(graph, path)
                elif self.kind == "word":
                    self.statement(graph, outputs, path)
                else:
                    self.fail("a statement or '}' was expected")
            self.advance()
        graph.set_outputs(outputs)
        return graph

    def statement(self, graph: Graph, outputs: dict[str, Value], path: str) -> None:
        start = self.start
        keyword = self.token
        if keyword not in ("input", "param", "const", "output", "gradient", "meta"):
            self.fail("input, param, const, output, gradient, meta or a node was expected")
        self.advance()
        if keyword == "input":
            name = self.value_name()
            self.expect(":")
            type = self.type()
            with self.errors_at(start):
                value = graph.add_input(name, type)
            value.contents = self.known_contents()
        elif keyword in ("param", "const"):
            self.constant(graph, path, parameter=keyword == "param")
        elif keyword == "output":
            name = self.name("an output")
            value = self.operand(graph) if self.accept("=") else self.named(graph, name, start)
            if name in outputs:
                self.fail(f"the output {name!r} is listed twice", start)
            outputs[name] = value
        elif keyword == "gradient":
            name = self.name("a value")
            self.expect("=")
            gradient = self.name("an output")
            if gradient not in outputs:
                self.fail(f"the gradient {gradient!r} is none of the outputs above", start)
            graph.gradients[name] = gradient
        else:
            key = self.name("a property")
            self.expect("=")
            graph.metadata[key] = self.string()

    def constant(self, graph: Graph, path: str, *, parameter: bool) -> None:
        start = self.start
        name = self.value_name()
        self.expect(":")
        type = self.type()
        if not isinstance(type, TensorType) or type.static_shape is None:
            self.fail("a constant needs a tensor type with a static shape", start)
        array = self.array(type) if self.at("{") else None
        if array is None:
            array = self._arrays.get(path + name)
            if array is None:
                self.fail(f"the elements of %{name} are left out here: give them as constants[{path + name!r}]", start)
            if TensorType.of(array) != type:
                self.fail(f"constants[{path + name!r}] is {TensorType.of(array)}, not {type}", start)
        with self.errors_at(start):
            graph.add_constant(array, name, parameter=parameter)

    def named(self, graph: Graph, name: str, at: int) -> Value:
        try:
            return graph.value(name)
        except GraphError as error:
            self.fail(f"{error}; values are defined before they are used", at)

    def operand(self, graph: Graph) -> Value:
        start = self.start
        return self.named(graph, self.value_name(), start)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def node(self, graph: Graph, path: str) -> None:
        start = self.start
        results = self.results()
        self.expect("=")
        op_name = self.name("an operation")
        op = self._ops.get(op_name)
        if op is None:
            domain, _, short = op_name.rpartition(".")
            op = self._ops[op_name] = find_op(short, domain)
        name = results[0][0] if results else None
        inputs, attrs = self.arguments(graph, f"{path}{name}.")
        if self.accept("@"):
            name = self.name("a node")
        role = _ROLES[self.advance()] if self.kind == "word" and self.token in _ROLES else Role.FORWARD
        origin = self.name("a node") if self.accept_word("of") else None
        rule = self.name("an operation") if self.accept_word("by") else None
        expansion = self.expansion() if self.accept_word("via") else None
        changed_by = self.name("a pass") if self.accept_word("after") else None
        types = [type for _, type, _ in results]
        contents = [known for _, _, known in results]
        with self.errors_at(start):
            if None in types:
                inferred = infer_types(call_of(op, attrs, inputs, len(results)))
                types = [b if a is None else a for a, b in zip(types, inferred, strict=True)]
                found = infer_contents(call_of(op, attrs, inputs, len(results), [t for t in types if t is not None]))
                contents = [b if a is None else a for a, b in zip(contents, found, strict=True)]
            made = graph.add_node(
                op,
                inputs,
                [t for t in types if t is not None],
                attrs,
                name=name,
                output_names=[n for n, _, _ in results],
                role=role,
                origin=origin,
                rule=rule,
                expansion=expansion,
            )
            made.changed_by = changed_by
        for value, known in zip(made.outputs, contents, strict=True):
            value.contents = known

    def expansion(self) -> Expansion:
        """The operation and the name of a node that was expanded."""
        op = self.name("an operation")
        self.expect("@")
        return Expansion(op, self.name("a node"))

    def results(self) -> list[tuple[str, Type | None, tuple[Dim, ...] | None]]:
        """Name, type and known contents of each result; the types may be left out."""
        if self.accept("("):
            self.expect(")")
            return []
        results: list[tuple[str, Type | None, tuple[Dim, ...] | None]] = []
        while True:
            name = self.value_name()
            if self.accept(":"):
                type = self.type()
                results.append((name, type, self.known_contents()))
            else:
                results.append((name, None, None))
            if not self.accept(","):
                return results

    def arguments(self, graph: Graph, path: str) -> tuple[list[Value | None], dict[str, Any]]:
        """Operands and attributes."""
        inputs: list[Value | None] = []
        attrs: dict[str, Any] = {}
        self.expect("(")
        while not self.accept(")"):
            if self.kind == "value":
                inputs.append(self.operand(graph))
            elif self.at_word("_"):
                self.advance()
                inputs.append(None)
            else:
                start = self.start
                key = self.name("an attribute")
                self.expect("=")
                if key in attrs:
                    self.fail(f"the attribute {key!r} is given twice", start)
                attrs[key] = self.attribute(path + key)
            if not self.at(")"):
                self.expect(",")
        return inputs, attrs

    # --- attributes ---------------------------------------------------------------------------------------------------

    def attribute(self, path: str) -> Any:
        if self.kind == "string":
            return self.string()
        if self.accept("["):
            items: list[Any] = []
            with self.nested():
                while not self.accept("]"):
                    items.append(self.attribute(f"{path}.{len(items)}"))
                    if not self.at("]"):
                        self.expect(",")
            return tuple(items)
        if self.kind != "word":
            self.fail("the value of an attribute was expected")
        if self.token == "none":
            self.advance()
            return None
        if self.token == "bytes":
            self.advance()
            return self.base64()
        if self.token == "proto":
            self.advance()
            return self.proto()
        if self.token == "graph":
            self.advance()
            return self.graph(path + "/")
        if self.token[0] in "+-.0123456789" or self.token in ("inf", "nan"):
            return self.number()
        start = self.start
        type = self.type()
        if not self.at("{"):
            return type
        if not isinstance(type, TensorType) or type.static_shape is None:
            self.fail("an array needs a tensor type with a static shape", start)
        array = self.array(type)
        if array is None:
            self.fail("the elements of this attribute are left out; print the graph with constants='full'", start)
        return array

    def number(self) -> int | float:
        start, token = self.start, self.advance()
        try:
            return int(token) if _INTEGER.match(token) else float_from_text(token)
        except ValueError:
            self.fail(f"{token!r} is no number", start)

    def integer(self, what: str) -> int:
        number = self.number() if self.kind == "word" and _INTEGER.match(self.token) else None
        if not isinstance(number, int):
            self.fail(f"{what} was expected")
        return number

    def base64(self) -> bytes:
        start = self.start
        try:
            return base64.b64decode(self.string(), validate=True)
        except binascii.Error as error:
            self.fail(f"this is not base64: {error}", start)

    def proto(self) -> Any:
        start = self.start
        name = self.name("a protobuf message")
        if name not in _PROTOS:
            self.fail(f"{name!r} is none of {', '.join(_PROTOS)}", start)
        message = getattr(onnx, name)()
        raw = self.base64()
        try:
            message.ParseFromString(raw)
        except Exception as error:  # protobuf's own class for this differs between its implementations
            self.fail(f"these bytes are no {name}: {error}", start)
        return message

    # --- types and elements -------------------------------------------------------------------------------------------

    def type(self) -> Type:
        start = self.start
        if self.kind != "word":
            self.fail("a type was expected")
        name = self.advance()
        if name in ("seq", "optional") and self.accept("("):
            with self.nested():
                element = self.type()
            self.expect(")")
            return SequenceType(element) if name == "seq" else OptionalType(element)
        with self.errors_at(start):
            dtype = dtype_from_name(name)
        self.expect("[")
        if self.at_word("*"):
            self.advance()
            self.expect("]")
            return TensorType(dtype, None)
        shape = self.dims("]")
        if any(isinstance(dim, int) and dim < 0 for dim in shape):
            self.fail(f"the shape {list(shape)} has a negative dimension", start)
        return TensorType(dtype, shape)

    def dims(self, end: str) -> tuple[Dim, ...]:
        dims: list[Dim] = []
        while not self.accept(end):
            if self.kind == "string":
                dims.append(self.string())
            elif self.kind != "word":
                self.fail("a dimension (a number, a name or ?) was expected")
            elif self.token == "?":
                self.advance()
                dims.append(None)
            else:
                dims.append(self.integer("a number") if _INTEGER.match(self.token) else self.advance())
            if not self.at(end):
                self.expect(",")
        return tuple(dims)

    def known_contents(self) -> tuple[Dim, ...] | None:
        return self.dims("}") if self.accept("{") else None

    def array(self, type: TensorType) -> np.ndarray | None:
        """The elements in braces; None where they are left out."""
        start = self.start
        self.expect("{")
        shape = type.static_shape
        assert shape is not None
        if self.at_word("..."):
            self.advance()
            self.expect("}")
            return None
        if self.at_word("base64"):
            self.advance()
            text = self.string()
            with self.errors_at(start):
                array = array_from_base64(type.dtype, shape, text)
            self.expect("}")
            return array
        elements: list[str] = []
        while not self.accept("}"):
            if self.kind != ("string" if type.dtype == object else "word"):
                self.fail("an element of the array was expected")
            elements.append(self.string() if self.kind == "string" else self.advance())
            if not self.at("}"):
                self.expect(",")
        with self.errors_at(start):
            return array_from_elements(type.dtype, shape, elements)
