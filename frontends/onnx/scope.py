"""The scope that nodes of a file are read in, and what passes between the scopes of a graph and of its subgraphs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto

from irgrad.errors import DanglingNameError, DuplicateNameError, ModelError
from irgrad.frontends.onnx.calls import FunctionKey
from irgrad.frontends.onnx.declared import loosened
from irgrad.frontends.onnx.external import ExternalData
from irgrad.graph import Graph, Node, Value
from irgrad.types import Type, is_differentiable

__all__ = [
    "Context",
    "Scope",
    "add_constant",
    "captured_as",
    "inside",
    "is_plain_constant",
    "move_parameters_out",
    "outputs_of",
    "share_guesses",
    "without_shapes",
]

Scope: TypeAlias = "dict[str, Value | None]"
"""Name in the file → value; None for an operand that is absent (an optional input of a function)."""


@dataclass(frozen=True)
class Context:
    """What holds for all nodes of one scope.

    Attributes:
        versions: domain → opset.
        attributes: those of the function call whose body this is; None outside of functions.
        declared: name → type that the file declares.
        prefix: of the names that are made here; a path of function calls.
        symbols: whether declared symbolic dimensions hold here, see `declared_types`.
        nodes: name in the file → node, of the graph that is being filled.
        labels: the prefixes that are taken in that graph.
        guessed: the values whose type is a guess, since they are computed from results of custom operations for which the
            file declares no type.
        own: whether irgrad wrote the file, so that its marks say what the graph was (see `irgrad.frontends.onnx.marks`).
        exact: whether it is as it was written, so that the types that it declares are those that the values had.
        kept: calls of functions that are operations of irgrad's → the operation.
        known: name → type and known elements, where the file says them exactly.
        captured: the inputs that stand for captured values, of the graph that is being filled.
    """

    versions: Mapping[str, int]
    external: ExternalData = field(default_factory=lambda: ExternalData(None))
    functions: Mapping[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)
    attributes: Mapping[str, AttributeProto] | None = None
    declared: Mapping[str, Type] = field(default_factory=dict)
    prefix: str = ""
    symbols: bool = True
    nodes: dict[str, Node] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    guessed: set[Value | None] = field(default_factory=set)
    own: bool = False
    exact: bool = False
    kept: Mapping[FunctionKey, str] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    captured: Sequence[Value] = ()

    def label(self, name: str) -> str:
        """A prefix for one function call that no other call has."""
        label, count = f"{self.prefix}{name}/", 0
        while label in self.labels:
            count += 1
            label = f"{self.prefix}{name}_{count}/"
        self.labels.add(label)
        return label


@contextmanager
def inside(where: str) -> Iterator[None]:
    """Say in errors that what is wrong lies inside of something."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"in {where}: {error}") from error.__cause__


def add_constant(graph: Graph, array: np.ndarray, name: str, *, parameter: bool) -> Value:
    """A new constant, called so if that is free; a parameter only where its dtype can be differentiated."""
    return graph.add_constant(array, graph.fresh_name(name), parameter=parameter and is_differentiable(array.dtype))


def outputs_of(proto: onnx.GraphProto, scope: Scope, *, unique: bool) -> dict[str, Value]:
    """Name → value of what a graph returns.

    Args:
        proto: the graph.
        scope: where its values are.
        unique: a name that is listed twice is an error, and is not just told apart.

    Raises:
        DanglingNameError: an output is made by nothing.
        DuplicateNameError: a name is listed twice.
    """
    outputs: dict[str, Value] = {}
    for info in proto.output:
        result, name, count = scope.get(info.name), info.name, 0
        if result is None:
            raise DanglingNameError(f"the output {info.name!r} of the graph {proto.name!r} is not made by any node")
        if unique and name in outputs:
            raise DuplicateNameError(f"the graph {proto.name!r} lists the output {info.name!r} twice")
        while name in outputs:  # the outputs of a subgraph are told apart by position
            count += 1
            name = f"{info.name}_{count}"
        outputs[name] = result
    return outputs


# --- subgraphs --------------------------------------------------------------------------------------------------------


def captured_as(graph: Graph, name: str, value: Value | None) -> Value | None:
    """What a value of the scope around a subgraph is inside of it."""
    if value is None:
        return None
    if is_plain_constant(value):
        assert value.constant is not None
        return graph.add_constant(value.constant, graph.fresh_name(name))
    inner = graph.add_input(graph.fresh_name(name), value.type)
    inner.contents = value.contents
    return inner


def is_plain_constant(value: Value | None) -> bool:
    """Whether a value is a constant that nobody will change: it is copied into subgraphs instead of being captured."""
    return value is not None and value.constant is not None and not value.is_parameter


@contextmanager
def without_shapes(values: Collection[Value | None]) -> Iterator[None]:
    """Within the block, nothing is known of the shapes and contents of the values."""
    kept = {value: (value.type, value.contents) for value in values if value is not None}
    for value, (type, _) in kept.items():
        value.graph.set_type(value, loosened(type))
        value.contents = None
    try:
        yield
    finally:
        for value, (type, contents) in kept.items():
            value.graph.set_type(value, type)
            value.contents = contents


def share_guesses(captured: Sequence[Value], subgraphs: Sequence[Graph], guessed: Collection[Value | None]) -> None:
    """Where the type of a captured value is a guess, take what the subgraphs took it for: they know more."""
    for position, value in enumerate(captured, -len(captured)):
        if value not in guessed:
            continue
        inner = [list(graph.inputs.values())[position] for graph in subgraphs]
        value.graph.set_type(value, next((v.type for v in inner if v.type != value.type), value.type))
        for twin in inner:
            twin.graph.set_type(twin, value.type)


def move_parameters_out(graph: Graph, subgraphs: Sequence[Graph], prefix: str) -> list[Value]:
    """Make the parameters of subgraphs captured constants of the graph around them: those constants."""
    moved: list[Value] = []
    for owner in subgraphs:
        for value, array in list(owner.constants.items()):
            if not value.is_parameter:
                continue
            moved.append(add_constant(graph, array, prefix + value.name, parameter=True))
            for subgraph in subgraphs:
                inner = subgraph.add_input(subgraph.fresh_name(value.name), moved[-1].type)
                if subgraph is owner:
                    subgraph.replace_all_uses(value, inner)
                    subgraph.erase(value)
                    subgraph.rename(inner, value.name)
    return moved
