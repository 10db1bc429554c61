"""The vertices of a graph: values (tensors) and nodes (operations), and the roles that nodes have.

Both are made and changed by the mutators of `irgrad.graph.Graph` only, which owns all adjacency.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from irgrad.errors import GraphError
from irgrad.types import Dim, Shape, TensorType, Type

if TYPE_CHECKING:
    from irgrad.graph import Graph
    from irgrad.op import Op

__all__ = ["Expansion", "Node", "Operand", "Role", "Value", "active_emitter", "active_pass"]


class Role(str, Enum):
    """What part of a training step a node belongs to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RECOMPUTE = "recompute"
    UPDATE = "update"


class Expansion(NamedTuple):
    """The node that was replaced by what it means, of which another one is a part (or a derivative of a part).

    Attributes:
        op: the qualified name of its operation.
        node: its name, which no node need have any more.
    """

    op: str
    node: str


class Emitter(Protocol):
    """What the operators of `Value` need of a builder."""

    def op(self, name: str, *inputs: Operand, **attrs: Any) -> Value: ...


active_emitter: ContextVar[Emitter | None] = ContextVar("active_emitter", default=None)
"""The builder that the operators of values go through; a builder sets it in its ``with`` block."""

active_pass: ContextVar[str | None] = ContextVar("active_pass", default=None)
"""The name of the pass that is running; a pipeline sets it, and graphs note it on the nodes that they add or change."""


def _emit(name: str, *inputs: Operand) -> Value:
    emitter = active_emitter.get()
    if emitter is None:
        raise GraphError(f"an operator ({name}) was used on values outside the `with` block of a builder")
    return emitter.op(name, *inputs)


class Value:
    """A tensor (or sequence, or optional) of a graph. Made by the graph's mutators only.

    Arithmetic operators add nodes through the builder that is active (see `irgrad.builder`); ``==`` stays identity.
    """

    __slots__ = ("_graph", "_name", "_type", "contents", "is_parameter")

    def __init__(self, graph: Graph, name: str, type: Type) -> None:
        self._graph = graph
        self._name = name
        self._type = type
        self.is_parameter = False
        """True for a constant that is meant to be learned: a float initializer of a model."""
        self.contents: tuple[Dim, ...] | None = None
        """The elements, in order, of a small integer tensor, as far as they are known: a shape under construction."""

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> Type:
        return self._type

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a tensor.

        Raises:
            GraphError: this is a sequence or an optional.
        """
        return self.tensor_type.dtype

    @property
    def shape(self) -> Shape:
        """The shape of a tensor, None where not even its rank is known."""
        return self.tensor_type.shape

    @property
    def rank(self) -> int | None:
        return self.tensor_type.rank

    @property
    def tensor_type(self) -> TensorType:
        """The type, checked to be a tensor's."""
        if not isinstance(self._type, TensorType):
            raise GraphError(f"%{self._name} is a {self._type}, not a tensor")
        return self._type

    @property
    def producer(self) -> Node | None:
        """The node that makes this value; None for an input or a constant."""
        for node in self._graph._pred[self]:
            return node  # type: ignore[no-any-return]
        return None

    @property
    def users(self) -> list[Node]:
        """The nodes that read this value, each once, in the order in which they began to."""
        return list(self._graph._succ[self])

    @property
    def constant(self) -> np.ndarray | None:
        """The array of a constant, otherwise None."""
        return self._graph._constants.get(self)

    @property
    def is_output(self) -> bool:
        """Whether the graph returns this value, under whatever name."""
        return self in self._graph._returned

    def __repr__(self) -> str:
        return f"%{self._name}: {self._type}"

    def __add__(self, other: Operand) -> Value:
        return _emit("Add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return _emit("Add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return _emit("Sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return _emit("Sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return _emit("Mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return _emit("Mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return _emit("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return _emit("Div", other, self)

    def __matmul__(self, other: Operand) -> Value:
        return _emit("MatMul", self, other)

    def __pow__(self, other: Operand) -> Value:
        return _emit("Pow", self, other)

    def __neg__(self) -> Value:
        return _emit("Neg", self)

    def __gt__(self, other: Operand) -> Value:
        return _emit("Greater", self, other)

    def __ge__(self, other: Operand) -> Value:
        return _emit("GreaterOrEqual", self, other)

    def __lt__(self, other: Operand) -> Value:
        return _emit("Less", self, other)

    def __le__(self, other: Operand) -> Value:
        return _emit("LessOrEqual", self, other)


Operand: TypeAlias = "Value | np.ndarray | int | float | bool | None"
"""What a builder takes as an operand: numbers become constants of the other operand's dtype."""


class Node:
    """One application of an operation. Made by `Graph.add_node` only.

    Attributes:
        op: the operation.
        attrs: attributes that were given; `attr` adds the defaults of the schema.
        role: forward, backward, recompute or update.
        rule: the qualified name of the operation whose adjoint rule made this node, or None: a node that no rule made, or
            one that the adjoint pass itself adds (the sum of a value's cotangents, a seed, zeros).
        expansion: what was expanded into this node, or into the node that it was made for; None where nothing was.
        changed_by: the name of the pass that added this node or last changed its operation, operands or results; None where
            it is as it was read or built. Names of passes that ran in a `Pipeline` only.
    """

    __slots__ = (
        "_graph",
        "_inputs",
        "_key",
        "_name",
        "_origin",
        "_outputs",
        "attrs",
        "changed_by",
        "expansion",
        "op",
        "role",
        "rule",
    )

    def __init__(
        self,
        graph: Graph,
        op: Op,
        name: str,
        attrs: Mapping[str, Any],
        role: Role,
        origin: str | None,
        rule: str | None,
        expansion: Expansion | None,
        key: tuple[int, int],
    ) -> None:
        self._graph = graph
        self._name = name
        self._inputs: list[Value | None] = []
        self._outputs: list[Value] = []
        self._key = key
        self.op = op
        self.attrs: dict[str, Any] = dict(attrs)
        self.role = role
        self._origin = origin
        self.rule = rule
        self.expansion = expansion
        self.changed_by = active_pass.get()

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def name(self) -> str:
        return self._name

    @property
    def origin(self) -> str | None:
        """The name of the forward node that this node was made for, or None.

        A name and not a node, so that it survives the rewriting of that node and a trip through a file.
        """
        return self._origin

    @origin.setter
    def origin(self, name: str | None) -> None:
        self._origin = name
        self._graph._by_origin = None

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        """The operands in order; None for an optional one that is absent."""
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(self._outputs)

    def input(self, index: int) -> Value | None:
        """The operand at a position, None where it is absent or the node has fewer."""
        return self._inputs[index] if index < len(self._inputs) else None

    def operand(self, index: int) -> Value:
        """The operand at a position, which must be there.

        Raises:
            GraphError: it is absent.
        """
        value = self.input(index)
        if value is None:
            raise GraphError(f"the node {self._name!r} ({self.op.qualified_name}) has no operand {index}")
        return value

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, else the schema's default for it, else `default`."""
        if name in self.attrs:
            return self.attrs[name]
        return self.op.defaults.get(name, default)

    @property
    def subgraphs(self) -> list[Graph]:
        """The graphs among the attributes: the branches of an If, the body of a Loop or Scan."""
        # A graph holds graphs of its own class; this module stands below the one that defines it.
        return [value for value in self.attrs.values() if isinstance(value, type(self._graph))]

    def __repr__(self) -> str:
        outputs = ", ".join(f"%{v.name}" for v in self._outputs)
        operands = ", ".join("_" if v is None else f"%{v.name}" for v in self._inputs)
        return f"{outputs} = {self.op.qualified_name}({operands})"
