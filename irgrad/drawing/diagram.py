"""A drawing before it has a format: boxes in one column per role, edges between them, bodies of control flow inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from irgrad.graph import Role

__all__ = ["COLUMNS", "Body", "Box", "Diagram", "Edge", "EdgeKind", "Kind"]


COLUMNS = (Role.FORWARD, Role.RECOMPUTE, Role.BACKWARD, Role.UPDATE)
"""Each role has its own column, from left to right in the order in which they take place."""


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
        role: the role of its nodes, or of those that it feeds or that make it; it says which column the box is in.
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

    def columns(self) -> dict[Role, list[Box]]:
        """The boxes of the roles that there are, from left to right."""
        found = {role: [box for box in self.boxes if box.role is role] for role in COLUMNS}
        return {role: boxes for role, boxes in found.items() if boxes}

    def walk(self) -> Iterator[Diagram]:
        """The diagram and those inside it."""
        yield self
        for body in self.bodies:
            yield from body.diagram.walk()
