"""The body of a backward node while it is made: a graph that captures values of the graph around it as it goes."""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import Builder
from irgrad.graph import Graph, Role, Value
from irgrad.types import Type, merge_types, types_compatible

__all__ = ["BackwardBody", "set_named_outputs"]


class BackwardBody:
    """A graph that will be the body of a backward node.

    Args:
        name: of the graph.
        origin: the name of the forward node.

    Attributes:
        graph: the graph.
        b: emits nodes in it.
        captured: value of the graph around it → the input that stands for it, in order.
    """

    def __init__(self, name: str, origin: str) -> None:
        self.graph = Graph(name)
        self.b = Builder(self.graph, role=Role.BACKWARD, origin=origin)
        self.captured: dict[Value, Value] = {}
        self._constants: dict[Value, Value] = {}

    def input(self, name: str, type: Type) -> Value:
        """A further input; all of those that are not captured come before anything is."""
        assert not self.captured
        return self.graph.add_input(self.graph.fresh_name(name), type)

    def capture(self, value: Value, type: Type | None = None) -> Value:
        """What stands for a value of the graph around this one; a constant is copied.

        Args:
            value: the value.
            type: what is known of it here besides.
        """
        if value.constant is not None and not value.is_parameter:
            if value not in self._constants:
                self._constants[value] = self.b.constant(value.constant)
            return self._constants[value]
        if value not in self.captured:
            known = value.type if type is None or not types_compatible(value.type, type) else merge_types(value.type, type)
            self.captured[value] = self.graph.add_input(self.graph.fresh_name(value.name), known)
            self.captured[value].contents = value.contents
        return self.captured[value]


def set_named_outputs(graph: Graph, values: Sequence[Value], names: Sequence[str] = ()) -> None:
    """Let a graph return values, of which some may be the same, in order; the first ones under given names."""
    outputs = dict(zip(names, values, strict=False))
    for value in values[len(names) :]:
        name, count = value.name, 0
        while name in outputs:
            count += 1
            name = f"{value.name}_{count}"
        outputs[name] = value
    graph.set_outputs(outputs)
