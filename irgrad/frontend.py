"""What a frontend is: a reader that turns some kind of source into a `Graph`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from irgrad.errors import UsageError
from irgrad.graph import Graph
from irgrad.plugin import registry

__all__ = ["Frontend", "load"]


@runtime_checkable
class Frontend(Protocol):
    """A reader of one kind of source."""

    def accepts(self, source: Any) -> bool:
        """Whether `load` is the one to try: judged by type, suffix or first bytes, without reading it all."""
        ...

    def load(self, source: Any, **options: Any) -> Graph:
        """Read a source.

        Raises:
            ModelError: it is defective; the subclass says how.
        """
        ...


def load(source: Any, frontend: str | None = None, **options: Any) -> Graph:
    """Read a model into a graph.

    Args:
        source: a path, bytes, a ModelProto, or whatever else an installed frontend accepts.
        frontend: the name of the frontend to use; by default the first that accepts the source: those of plugins are asked
            before irgrad's own, which take nearly any file, and otherwise by name.
        options: what that frontend takes.

    Raises:
        UsageError: no frontend accepts the source.
        ModelError: the model is defective; the subclass says how.
    """
    if frontend is not None:
        graph = registry.get("frontends", frontend).load(source, **options)
        assert isinstance(graph, Graph)
        return graph
    names = sorted(registry.names("frontends"), key=lambda name: (registry.provider("frontends", name) == "irgrad", name))
    for name in names:
        candidate = registry.get("frontends", name)
        if candidate.accepts(source):
            graph = candidate.load(source, **options)
            assert isinstance(graph, Graph)
            return graph
    shown = repr(source) if isinstance(source, (str, bytes)) and len(source) < 80 else f"a {type(source).__name__}"
    raise UsageError(f"no frontend reads {shown}; there are: {', '.join(names)}")
