"""What can be asked of a drawing, and the nodes that it then shows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from irgrad.errors import UsageError, did_you_mean
from irgrad.graph import Graph, Node, Role, Value

__all__ = ["AUTO_BOXES", "Around", "Collapse", "Options", "selected"]

Around: TypeAlias = "Node | Value | str"
Collapse: TypeAlias = "Literal['auto', 'none'] | int"

AUTO_BOXES = 60
"""How many boxes ``collapse="auto"`` draws at most."""


@dataclass(frozen=True)
class Options:
    """The options of a drawing; see `irgrad.drawing.draw`."""

    around: Around | Sequence[Around] | None = None
    radius: int = 2
    roles: Role | str | Collection[Role | str] | None = None
    only: str | Sequence[str] | None = None
    collapse: Collapse = "auto"
    depth: int = 1
    shapes: bool = True
    origins: bool = False

    def __post_init__(self) -> None:
        """Refuse what no drawing has.

        Raises:
            UsageError: an option is out of range.
        """
        if self.collapse not in ("auto", "none") and (
            isinstance(self.collapse, (str, bool)) or not isinstance(self.collapse, int) or self.collapse < 0
        ):
            raise UsageError(f'collapse is "auto", "none" or the depth of the scopes that are drawn, not {self.collapse!r}')
        for name in ("radius", "depth"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is a number from 0 on, not {getattr(self, name)!r}")

    @property
    def filters(self) -> bool:
        """Whether part of the graph is left out."""
        return any(x is not None for x in (self.around, self.roles, self.only))


def selected(graph: Graph, options: Options) -> list[Node]:
    """The nodes that are drawn, in program order: those that pass all filters.

    Raises:
        UsageError: a role is none, `around` names neither a node nor a value, or no node is left.
    """
    chosen = graph.nodes()
    if options.around is not None:
        near = _neighbourhood(graph, options)
        chosen = [node for node in chosen if node in near]
    if options.roles is not None:
        roles = set(_roles(options.roles))
        chosen = [node for node in chosen if node.role in roles]
    if options.only is not None:
        patterns = [options.only] if isinstance(options.only, str) else list(options.only)
        chosen = [n for n in chosen if any(fnmatchcase(name, p) for name in (n.name, n.origin or n.name) for p in patterns)]
    if not chosen and options.filters:
        given = {name: getattr(options, name) for name in ("around", "roles", "only")}
        said = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        raise UsageError(f"there is nothing to draw: no node of the graph {graph.name!r} passes {said}")
    return chosen


def _roles(given: Role | str | Collection[Role | str]) -> Iterator[Role]:
    for role in [given] if isinstance(given, str) else given:
        try:
            yield Role(role)
        except ValueError:
            known = ", ".join(r.value for r in Role)
            raise UsageError(f"there is no role {role!r}; the roles are {known}") from None


def _neighbourhood(graph: Graph, options: Options) -> set[Node]:
    """The nodes at most `radius` steps away, along the edges and against them, though not through constants."""
    given = options.around or ()
    reached = {
        n for around in ([given] if isinstance(given, (Node, Value, str)) else given) for n in _nodes_of(graph, around)
    }
    border = list(reached)
    for _ in range(options.radius):
        border = [other for node in border for other in _neighbours(node) if other not in reached]
        reached.update(border)
    return reached


def _nodes_of(graph: Graph, around: object) -> Iterable[Node]:
    if isinstance(around, str):
        if graph.has_node(around):
            return [graph.node(around)]
        if around in graph.outputs:
            around = graph.outputs[around]
        elif graph.has_value(around):
            around = graph.value(around)
        else:
            known = [*(node.name for node in graph.nodes()), *(value.name for value in graph.values())]
            raise UsageError(f"the graph has neither a node nor a value {around!r}{did_you_mean(around, known)}")
    if not isinstance(around, (Node, Value)) or around.graph is not graph:
        raise UsageError(f"{around!r} is neither a node nor a value of the graph {graph.name!r}")
    if isinstance(around, Node):
        return [around]
    return around.users if around.producer is None else [around.producer]


def _neighbours(node: Node) -> Iterator[Node]:
    for value in node.inputs:
        if value is not None and (producer := value.producer) is not None:
            yield producer
    for value in node.outputs:
        yield from value.users
