"""Drawing a graph to a file or a text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from irgrad.drawing.dot import dot_of
from irgrad.drawing.graphviz import picture
from irgrad.drawing.layout import diagram_of
from irgrad.drawing.mermaid import mermaid_of
from irgrad.drawing.options import Around, Collapse, Options
from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.graph import Graph, Role

__all__ = ["FORMATS", "draw", "to_dot", "to_mermaid"]

PICTURES = {".svg": "svg", ".png": "png", ".pdf": "pdf"}
FORMATS = (*PICTURES, ".dot", ".gv", ".mmd", ".md")
"""What the name of a drawing may end in."""


def draw(
    graph: Graph,
    path: str | Path,
    *,
    around: Around | Sequence[Around] | None = None,
    radius: int = 2,
    roles: Role | str | Collection[Role | str] | None = None,
    only: str | Sequence[str] | None = None,
    collapse: Collapse = "auto",
    depth: int = 1,
    shapes: bool = True,
    origins: bool = False,
    timeout: float = 120,
) -> None:
    """Draw a graph to a file, whose name says the format.

    Forward nodes stand in one column, from top to bottom, and backward ones in another beside it, from bottom to top, each
    at the height of what it was made for. Recomputed nodes and updates are in the backward column, in colours of their own.

    Args:
        graph: any graph.
        path: a file that ends in .svg, .png or .pdf (these need the program ``dot`` of Graphviz), .dot or .gv (the language
            of that), .mmd (Mermaid) or .md (Mermaid in a block of Markdown).
        around: draw only what is near these nodes or values (or their names).
        radius: how many nodes away that is.
        roles: draw only nodes of these roles: "forward", "backward", "recompute", "update".
        only: draw only nodes whose name, or that of the forward node that they were made for, matches one of these patterns
            with ``*`` and ``?``.
        collapse: "auto" puts nodes of one scope into one box (by the ``/`` in the names of nodes, otherwise by the names of
            parameters, otherwise by bottlenecks of the model), as far as it takes for about 60 boxes; "none" draws each
            node; a number draws the scopes that many levels deep.
        depth: how many levels of subgraphs (of If, Loop and Scan) are drawn inside.
        shapes: write types on the edges.
        origins: draw a dotted line from each node to those made for it.
        timeout: the most seconds that Graphviz may take.

    Raises:
        UsageError: the file's ending says no format, an option does not fit the graph, nothing is left to draw, the file
            cannot be written, or Graphviz is not there, fails or takes too long.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{str(path)!r} does not say a format to draw in: let it end in {', '.join(FORMATS)}")
    diagram = diagram_of(graph, Options(around, radius, roles, only, collapse, depth, shapes, origins))
    if suffix in PICTURES:
        data = picture(dot_of(diagram), PICTURES[suffix], timeout)
    elif suffix in (".dot", ".gv"):
        data = dot_of(diagram).encode()
    elif suffix == ".mmd":
        data = mermaid_of(diagram).encode()
    else:
        data = f"```mermaid\n{mermaid_of(diagram)}```\n".encode()
    with replacing(path) as file:
        file.write(data)


def to_dot(graph: Graph, options: Options | None = None) -> str:
    """The drawing of a graph as a text in DOT.

    Raises:
        UsageError: an option does not fit the graph.
    """
    return dot_of(diagram_of(graph, options or Options()))


def to_mermaid(graph: Graph, options: Options | None = None) -> str:
    """The drawing of a graph as a text in Mermaid; see `to_dot`."""
    return mermaid_of(diagram_of(graph, options or Options()))
