"""Graphs that take and return nothing but tensors: sequences and optionals at the edges of one, taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnx import helper

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.runtime import compile
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["Unpacked"]


class Unpacked:
    """A graph of tensors that computes what another one does for feeds of some structure.

    Sequences have the lengths, and optionals hold something or nothing, as they do for these feeds. The elements of the
    sequence `s` are called "s[0]", "s[1]" and so on, what the optional `o` holds is called "o!".

    Args:
        graph: left as it is; one that has tensors only serves itself.
        feeds: its feeds.

    Attributes:
        graph: the graph of tensors.
        feeds: the feeds, as it takes them.
    """

    def __init__(self, graph: Graph, feeds: Mapping[str, Any]) -> None:
        self.graph = graph
        self.feeds = dict(feeds)
        self._parts: dict[str, list[str]] = {}
        inputs = [name for name, value in graph.inputs.items() if not isinstance(value.type, TensorType)]
        outputs = [name for name, value in graph.outputs.items() if not isinstance(value.type, TensorType)]
        if not inputs and not outputs:
            return
        results = compile(graph)(feeds) if outputs else {}
        self.graph = graph.copy()
        b = Builder(self.graph)
        known: dict[Value, dict[str, Value]] = {}
        for value in [self.graph.value(name) for name in inputs]:
            made, parts = self._assembled(b, value.name, value.type, self.feeds.pop(value.name))
            self._parts[value.name] = [value.name + suffix for suffix in parts]
            known[made] = parts
            self.graph.replace_all_uses(value, made)
            self.graph.erase(value)
        returned: dict[str, Value] = {}
        for name, value in self.graph.outputs.items():
            parts = known[value] if value in known else self._taken_apart(b, value, results.get(name))
            self._parts[name] = [name + suffix for suffix in parts]
            returned.update({name + suffix: part for suffix, part in parts.items()})
        self.graph.set_outputs(returned)

    def names(self, names: Iterable[str]) -> list[str]:
        """Names of inputs and outputs, with the names of the parts for what was taken apart."""
        return [part for name in names for part in self._parts.get(name, [name])]

    def _assembled(self, b: Builder, name: str, type: Type, feed: Any) -> tuple[Value, dict[str, Value]]:
        """A value made of new inputs, which are fed with its parts; these by suffixes of its name."""
        if isinstance(type, TensorType):
            self.feeds[name] = feed
            value = self.graph.add_input(name, type)
            return value, {"": value}
        if isinstance(type, OptionalType):
            if feed is None:
                return b.op("Optional", type=type.element), {}
            held, parts = self._assembled(b, name + "!", type.element, feed)
            return b.op("Optional", held), {"!" + suffix: part for suffix, part in parts.items()}
        if not feed:
            return b.op("SequenceEmpty", dtype=int(helper.np_dtype_to_tensor_dtype(_dtype(type)))), {}
        made = [self._assembled(b, f"{name}[{k}]", type.element, element)[0] for k, element in enumerate(feed)]
        return b.op("SequenceConstruct", *made), {f"[{k}]": element for k, element in enumerate(made)}

    def _taken_apart(self, b: Builder, value: Value, result: Any) -> dict[str, Value]:
        """The tensors that a value is made of, by suffixes of its name, for a result of that structure."""
        if isinstance(value.type, TensorType):
            return {"": value}
        if isinstance(value.type, OptionalType):
            parts = {} if result is None else self._taken_apart(b, b.op("OptionalGetElement", value), result)
            return {"!" + suffix: part for suffix, part in parts.items()}
        places = [b.constant(np.array(k, np.int64)) for k in range(len(result))]
        return {f"[{k}]": b.op("SequenceAt", value, place) for k, place in enumerate(places)}


def _dtype(type: SequenceType) -> np.dtype:
    assert isinstance(type.element, TensorType)
    return type.element.dtype
