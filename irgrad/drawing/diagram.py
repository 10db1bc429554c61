"""A drawing before it has a format: boxes in two columns, edges between them, bodies of control flow inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from irgrad.graph import Role

__all__ = ["Body", "Box", "Column", "Diagram", "Edge", "EdgeKind", "Kind"]


class Column(Enum):
    """One side of a drawing."""

    FORWARD = "forward"
    """What runs first, from top to bottom."""
    BACKWARD = "backward"
    """What runs then (backward, recomputed and update nodes), from bottom to top."""


class Kind(Enum):
    """What a box stands for."""

    NODE = "node"
    GROUP = "group"
    INPUT = "input"
    PARAMETER = "parameter"
    OUTPUT = "output"
    GRADIENT = "gradient"
    ELSEWHERE = "elsewhere"
    """What a filter left out, at the border of what it let through."""


class EdgeKind(Enum):
    """What an edge says."""

    DATA = "data"
    ORIGIN = "origin"
    """Of a node to the one that was made for it."""
    BODY = "body"
    """Of a node to the subgraph that it runs."""


@dataclass(frozen=True, eq=False)
class Box:
    """One box.

    Attributes:
        id: letters, digits and underscores; unique in a drawing.
        kind: what it stands for.
        role: the role of its nodes, or of those that it feeds or that make it.
        title: the operation, or the name of what is no node.
        lines: further lines.
        detail: what is shown in full where the format has room for it (as a tooltip).
    """

    id: str
    kind: Kind
    role: Role
    title: str
    lines: tuple[str, ...] = ()
    detail: str = ""

    @property
    def column(self) -> Column:
        """The column that it is in."""
        return Column.FORWARD if self.role is Role.FORWARD else Column.BACKWARD


@dataclass(frozen=True)
class Edge:
    """An edge between two boxes, or from a box to a body: ids, and what is written on it."""

    source: str
    target: str
    kind: EdgeKind = EdgeKind.DATA
    label: str = ""


@dataclass(frozen=True)
class Body:
    """A subgraph of a node: the id of the frame around it, that of the node's box, and what is inside."""

    id: str
    owner: str
    title: str
    diagram: Diagram


@dataclass
class Diagram:
    """A drawing, or that of a subgraph in one.

    Attributes:
        title: the name of the graph.
        boxes: in program order.
        edges: in the order of their targets.
        aligned: pairs of ids of boxes in different columns that belong beside each other.
        bodies: the subgraphs of nodes.
    """

    title: str
    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    aligned: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)

    def columns(self) -> dict[Column, list[Box]]:
        """The boxes of the columns that there are, from left to right."""
        found = {column: [box for box in self.boxes if box.column is column] for column in Column}
        return {column: boxes for column, boxes in found.items() if boxes}

    def headings(self) -> dict[Column, str]:
        """What stands above each column: the roles that there are in it."""
        columns = self.columns().items()
        return {c: ", ".join(role.value for role in Role if any(b.role is role for b in boxes)) for c, boxes in columns}

    def walk(self) -> Iterator[Diagram]:
        """The diagram and those inside it."""
        yield self
        for body in self.bodies:
            yield from body.diagram.walk()
