"""Whether two attributes, or two graphs, are the same."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from irgrad.graph import Graph, Node, Value
from irgrad.literals import array_bytes
from irgrad.types import OptionalType, SequenceType, TensorType, dtype_name

__all__ = ["array_key", "attribute_key", "graphs_equal"]


def array_key(array: np.ndarray) -> Hashable:
    """Equal for two arrays exactly when dtype, shape and all elements, bit by bit, are."""
    content = tuple(map(repr, array.reshape(-1))) if array.dtype == object else array_bytes(array)
    return "array", dtype_name(array.dtype), array.shape, content


def attribute_key(value: Any) -> Hashable:
    """Equal for two attributes exactly when they mean the same.

    Lists and tuples mean the same, so do bools and ints (ONNX has no boolean attributes); an int and a float do not.
    A subgraph equals itself only.
    """
    if isinstance(value, (bool, int, np.integer, np.bool_)):
        return "int", int(value)
    if isinstance(value, (float, np.floating)):
        return "float", "nan" if value != value else struct.pack("<d", value)
    if isinstance(value, (str, bytes)) or value is None:
        return type(value).__name__, value
    if isinstance(value, (tuple, list)):
        return "list", tuple(map(attribute_key, value))
    if isinstance(value, np.ndarray):
        return array_key(value)
    if isinstance(value, (TensorType, SequenceType, OptionalType)):
        return "type", value
    if isinstance(value, Graph):
        return "graph", id(value)
    return type(value).__name__, value.SerializeToString(deterministic=True)


def graphs_equal(a: Graph, b: Graph) -> str | None:
    """Compare two graphs: names, types, order, attributes, roles and arrays, subgraphs included.

    Returns:
        None where they are the same, otherwise the first difference in one sentence.
    """
    return next(_differences(a, b), None)


def _differences(a: Graph, b: Graph) -> Iterator[str]:
    for what in ("name", "opset", "metadata"):
        if getattr(a, what) != getattr(b, what):
            yield f"the {what} is {getattr(a, what)!r} in one graph and {getattr(b, what)!r} in the other"
    yield from _lists("inputs", list(a.inputs), list(b.inputs))
    for x, y in zip(a.inputs.values(), b.inputs.values(), strict=True):
        yield from _values(x, y)
    yield from _lists("constants", [v.name for v in a.constants], [v.name for v in b.constants])
    for (x, left), (y, right) in zip(a.constants.items(), b.constants.items(), strict=True):
        yield from _values(x, y)
        if array_key(left) != array_key(right):
            yield f"the constant %{x.name} holds other elements"
        if x.is_parameter != y.is_parameter:
            yield f"the constant %{x.name} is a parameter in only one of the graphs"
    yield from _lists("nodes", [n.name for n in a.nodes()], [n.name for n in b.nodes()])
    for m, n in zip(a.nodes(), b.nodes(), strict=True):
        yield from _nodes(m, n)
    yield from _lists("outputs", _named(a.outputs), _named(b.outputs))
    yield from _lists("gradients", list(a.gradients.items()), list(b.gradients.items()))


def _named(outputs: Mapping[str, Value]) -> list[tuple[str, str]]:
    return [(name, value.name) for name, value in outputs.items()]


def _lists(what: str, a: Sequence[object], b: Sequence[object]) -> Iterator[str]:
    for position, (x, y) in enumerate(zip_longest(a, b)):
        if x != y:
            yield f"the {what} differ at position {position}: {x!r} in one graph, {y!r} in the other"


def _values(a: Value, b: Value) -> Iterator[str]:
    if a.type != b.type or a.contents != b.contents:
        yield f"%{a.name} is {a.type} {a.contents or ''} in one graph and {b.type} {b.contents or ''} in the other"


def _nodes(a: Node, b: Node) -> Iterator[str]:
    where = f"the node {a.name!r}"
    for what, x, y in (
        ("operation", a.op.qualified_name, b.op.qualified_name),
        ("operands", [v and v.name for v in a.inputs], [v and v.name for v in b.inputs]),
        ("results", [v.name for v in a.outputs], [v.name for v in b.outputs]),
        ("role", a.role, b.role),
        ("origin", a.origin, b.origin),
        ("rule", a.rule, b.rule),
        ("expansion", a.expansion, b.expansion),
        ("attributes", sorted(a.attrs), sorted(b.attrs)),
    ):
        if x != y:
            yield f"the {what} of {where} are {x!r} in one graph and {y!r} in the other"
    for mine, other in zip(a.outputs, b.outputs, strict=True):
        yield from _values(mine, other)
    for key in a.attrs:
        yield from _attributes(f"{key!r} of {where}", a.attrs[key], b.attrs[key])


def _attributes(where: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, Graph) and isinstance(b, Graph):
        yield from (f"in the attribute {where}: {difference}" for difference in _differences(a, b))
    elif isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)) and len(a) == len(b):
        for x, y in zip(a, b, strict=True):
            yield from _attributes(where, x, y)
    elif attribute_key(a) != attribute_key(b):
        yield f"the attribute {where} is {a!r} in one graph and {b!r} in the other"
