"""The names that values have in a file: unique across all scopes, and an output of a graph is a value of that name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from irgrad.errors import ExportError
from irgrad.frontends.onnx.marks import OPERAND
from irgrad.graph import Graph, Node, Value
from irgrad.op import find_op

__all__ = ["FileNames", "captured_inputs", "file_names"]


@dataclass
class FileNames:
    """How things are called in a file.

    Attributes:
        values: value → its name, those of subgraphs included.
        passing: the Identity nodes that were added for the file's sake → what they pass on: OPERAND, or the number of a
            captured value that is captured twice.
        outputs: subgraph → the names of its outputs, before values that are to be returned took them over.
    """

    values: dict[Value, str] = field(default_factory=dict)
    passing: dict[Node, str] = field(default_factory=dict)
    outputs: dict[Graph, list[str]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def unique(self, hint: str) -> str:
        """A name like `hint` that nothing in the file has yet."""
        name, count = hint, 0
        while name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        return name


def captured_inputs(node: Node, subgraph: Graph) -> list[tuple[Value, Value]]:
    """The values that the subgraph of a node captures, each with the input that stands for it."""
    count = node.attr("captured", 0)
    outer = [v for v in node.inputs[len(node.inputs) - count :] if v is not None]
    return list(zip(outer, list(subgraph.inputs.values())[len(subgraph.inputs) - count :], strict=True))


def file_names(graph: Graph) -> FileNames:
    """Choose all names for a graph and those inside it.

    Inputs, outputs and, where they can, all values of the outermost graph keep theirs. Where an output is none of the
    results of its graph's own nodes under its own name, an Identity is added: in a subgraph ONNX allows nothing else.

    Args:
        graph: one of the writer's own, which is changed in place.

    Raises:
        ExportError: an output has the name of an input that it is not.
    """
    names = FileNames(_taken={value.name for value in graph.values()} | set(graph.outputs))
    inputs = graph.inputs
    for name, value in graph.outputs.items():
        if name in inputs and inputs[name] is not value:
            raise ExportError(
                f"the graph has an input {name!r} and another value as the output {name!r}; in a file one name is one "
                "value, so give that output another name"
            )
    reserved = _name_outputs(graph, names, outermost=True)
    for value in graph.values():
        if value not in names.values:
            names.values[value] = names.unique(value.name) if value.name in reserved else value.name
    _name_inside(graph, names)
    return names


def _name_inside(graph: Graph, names: FileNames) -> None:
    for node in graph.nodes():
        for subgraph in node.subgraphs:
            _name_captured(subgraph, captured_inputs(node, subgraph), names)
            _name_outputs(subgraph, names, outermost=False)
            for value in subgraph.values():
                if value not in names.values:
                    names.values[value] = names.unique(value.name)
            _name_inside(subgraph, names)


def _name_captured(subgraph: Graph, captured: Sequence[tuple[Value, Value]], names: FileNames) -> None:
    """Captured values are read under the name that they have outside."""
    first: dict[Value, Value] = {}
    for number, (outer, inner) in enumerate(captured):
        names.values[inner] = names.values[outer]
        if outer not in first:
            first[outer] = inner
        elif inner.users or inner.is_output:
            twin = _pass_on(subgraph, first[outer], inner.name, names, str(number))
            subgraph.replace_all_uses(inner, twin)


def _name_outputs(graph: Graph, names: FileNames, *, outermost: bool) -> Mapping[str, Value]:
    """Let each output be a value of its name (of a name that is free, in a subgraph): name → value."""
    owners: dict[Value, str] = {}
    for name, value in graph.outputs.items():
        if value.name == name and (outermost or value.producer is not None):
            owners[value] = name
    outputs = {}
    for name, value in graph.outputs.items():
        if owners.get(value) != name:
            if value in owners or value.producer is None:
                value = _pass_on(graph, value, name, names, OPERAND)
            owners[value] = name
        outputs[name] = value
    names.outputs[graph] = list(outputs)
    graph.set_outputs(outputs)
    for value, name in owners.items():
        names.values[value] = name if outermost else names.unique(name)
    return outputs


def _pass_on(graph: Graph, value: Value, hint: str, names: FileNames, what: str) -> Value:
    node = graph.add_node(find_op("Identity"), [value], [value.type], name=graph.fresh_name(f"pass_on/{hint}", node=True))
    names.passing[node] = what
    return node.outputs[0]
