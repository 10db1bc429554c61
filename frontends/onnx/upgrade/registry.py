"""The table of adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from irgrad.builder import Builder
from irgrad.graph import Value

__all__ = ["Adapter", "OldNode", "adapter", "adapters_of"]


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
