"""Adapters: what one is, the table of them, and how they are applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from onnx import defs

from irgrad.builder import Builder
from irgrad.errors import ModelTypeError
from irgrad.graph import OPSET, Value
from irgrad.op import find_op

__all__ = ["Adapter", "OldNode", "adapter", "adapters_of", "emit", "registered", "upgrade"]


@dataclass
class OldNode:
    """A node as a file wrote it, on its way up.

    Attributes:
        op: the operation's name; an adapter may change it.
        domain: "" for the standard operations.
        version: the opset of `domain` that the node is written in.
        inputs: operands, None for an absent one.
        attrs: attributes as `irgrad.proto.attribute_from_proto` gives them, without defaults. An adapter that meets an
            absent attribute has to know the default of the old schema.
        n_outputs: how many outputs the node has.
        used: whether each output is named, hence perhaps used.
    """

    op: str
    domain: str
    version: int
    inputs: list[Value | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    used: tuple[bool, ...] = (True,)

    def input(self, index: int) -> Value | None:
        """The operand at a position, None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def operand(self, index: int) -> Value:
        """The operand at a position, which the operation requires."""
        value = self.input(index)
        assert value is not None, f"{self.op} lacks its operand {index}"
        return value

    def set_input(self, index: int, value: Value | None) -> None:
        """Put an operand at a position, filling up with absent ones before it."""
        self.inputs += [None] * (index + 1 - len(self.inputs))
        self.inputs[index] = value

    def take(self, name: str) -> Any:
        """Remove an attribute, one that the old schema requires, and return its value.

        Raises:
            ModelTypeError: it is absent.
        """
        if name not in self.attrs:
            raise self.error(f"lacks the attribute {name!r}")
        return self.attrs.pop(name)

    def rank(self, index: int) -> int:
        """The rank of an operand whose rank decides what the node means.

        Raises:
            ModelTypeError: it is not known.
        """
        rank = self.operand(index).rank
        if rank is None:
            raise self.error(f"depends on the rank of its operand {index}; declare that operand's shape in the model")
        return rank

    def error(self, problem: str) -> ModelTypeError:
        """An error about this node, to be raised: "Pad of opset 1 `problem`"."""
        return ModelTypeError(f"{self.op} of opset {self.version} {problem}")


Adapter: TypeAlias = "Callable[[Builder, OldNode], Sequence[Value] | None]"
"""Changes the node in place and returns None, or emits all of it through the builder and returns its results."""

_adapters: dict[tuple[str, str], dict[int, Adapter]] = {}


def adapter(*names: str, since: int, domain: str = "") -> Callable[[Adapter], Adapter]:
    """Decorator: the function brings nodes of the named operations from before opset `since` up to `since`."""

    def register(function: Adapter) -> Adapter:
        for name in names:
            table = _adapters.setdefault((domain, name), {})
            if since in table:
                raise ValueError(f"there are two adapters for {name} at opset {since}")
            table[since] = function
        return function

    return register


def adapters_of(domain: str, name: str) -> list[tuple[int, Adapter]]:
    """(opset, adapter) for one operation, oldest change first."""
    return sorted(_adapters.get((domain, name), {}).items())


def registered() -> list[tuple[str, str, int]]:
    """(domain, operation, opset) of every adapter."""
    return sorted((domain, name, since) for (domain, name), table in _adapters.items() for since in table)


def upgrade(b: Builder, node: OldNode) -> Sequence[Value] | None:
    """Bring a node up to date.

    Args:
        b: where an adapter emits what it needs (constants for what used to be attributes, casts, reshapes).
        node: changed in place.

    Returns:
        None where `node` is now written in today's opset, or the results, where an adapter emitted all of it.

    Raises:
        ModelTypeError: the node is not valid in its opset, or uses something that today's opset cannot say.
    """
    pending = True
    while pending:
        name, pending = node.op, False
        for since, adapt in adapters_of(node.domain, name):
            if since <= node.version:
                continue
            results = adapt(b, node)
            node.version = since
            if results is not None:
                return results
            if node.op != name:
                pending = True
                break
    if _withdrawn(node.op, node.domain):
        raise node.error("does not exist: the operation has been withdrawn by then; use the one that replaced it")
    return None


def emit(b: Builder, node: OldNode) -> tuple[Value, ...]:
    """Bring a node up to date and emit it; its results.

    For an adapter that has to work on the results of the node it adapts: it changes the node to the form of its own
    opset, sets `version` to that, and calls this.
    """
    results = upgrade(b, node)
    if results is not None:
        return tuple(results)
    return b.node(find_op(node.op, node.domain), node.inputs, node.attrs, outputs=node.n_outputs).outputs


@cache
def _withdrawn(name: str, domain: str) -> bool:
    if domain != "":
        return False
    return bool(defs.get_schema(name, OPSET).deprecated) if defs.has(name) else (domain, name) in _adapters
