"""Where the metadata of a graph goes in a file: the inverse of what `irgrad.frontends.onnx.declared` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from irgrad.frontends.onnx import marks

__all__ = ["put_model_remarks", "put_remarks"]

_OF_MODEL = ("producer", "domain", "model_version", "doc")
_LARGEST = 2**63 - 1


def put_model_remarks(metadata: Mapping[str, str], model: onnx.ModelProto) -> None:
    """Write what a graph's metadata says of the model as a whole."""
    for key, text in metadata.items():
        if not _is_of_model(key, text):
            continue
        if key == "producer":
            marks.mark(model, marks.PRODUCER, text)
        elif key == "domain":
            model.domain = text
        elif key == "model_version":
            model.model_version = int(text)
        elif key == "doc":
            model.doc_string = text
        else:
            model.metadata_props.add(key=key.removeprefix("property:"), value=text)


def put_remarks(
    metadata: Mapping[str, str], graph: onnx.GraphProto, nodes: Mapping[str, onnx.NodeProto], *, outermost: bool
) -> None:
    """Write what a graph's metadata says of the graph, its values and its nodes; what has no place of its own is marked.

    Args:
        metadata: that of the graph.
        graph: where it goes.
        nodes: name of a node → its message in there.
        outermost: whether a model has the graph as its own.
    """
    rest = {}
    values: dict[str, list[Any]] = {}
    for value in (*graph.input, *graph.output, *graph.initializer):
        values.setdefault(value.name, []).append(value)
    for key, text in metadata.items():
        kind, _, name = key.partition(":")
        named = values.get(name, []) if kind == "value_doc" else []
        node, entry = _node_of(name, nodes) if kind == "node_property" else (nodes.get(name), "")
        if outermost and _is_of_model(key, text):
            continue
        if outermost and text and key == "graph_doc":
            graph.doc_string = text
        elif outermost and text and kind == "graph_property" and not name.startswith(marks.PREFIX):
            graph.metadata_props.add(key=name, value=text)
        elif outermost and text and named:
            for value in named:
                value.doc_string = text
        elif text and kind == "node_doc" and node is not None:
            node.doc_string = text
        elif kind == "node_property" and node is not None and not entry.startswith(marks.PREFIX):
            node.metadata_props.add(key=entry, value=text)
        else:
            rest[key] = text
    marks.mark_json(graph, marks.METADATA, rest)


def _is_of_model(key: str, text: str) -> bool:
    """Whether a model has a field for what a key of the metadata holds."""
    if key.startswith("property:"):
        return bool(text) and not key.startswith("property:" + marks.PREFIX)
    if key == "model_version":
        return text.isascii() and text.isdigit() and str(int(text)) == text and 0 < int(text) <= _LARGEST
    return bool(text) and key in _OF_MODEL


def _node_of(name: str, nodes: Mapping[str, onnx.NodeProto]) -> tuple[onnx.NodeProto | None, str]:
    """The node and the key that "node:key" names; either may hold colons itself."""
    for position in (k for k, char in enumerate(name) if char == ":"):
        if name[:position] in nodes:
            return nodes[name[:position]], name[position + 1 :]
    return None, ""
