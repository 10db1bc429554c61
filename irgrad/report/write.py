"""`report`: gather, lay out, write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irgrad.files import replacing
from irgrad.graph import Graph
from irgrad.report.facts import gather
from irgrad.report.page import page

__all__ = ["report"]


def report(graph: Graph, path: str | Path, sizes: Mapping[str, int] | None = None, *, title: str | None = None) -> None:
    """Write a page about a graph: what it computes, what that costs, and what lives when.

    It is one HTML file that stands for itself: it loads nothing, and any browser shows it, from a folder or an attachment.
    Everything in it follows from types; nothing is run.

    Args:
        graph: any graph, usually a joint one (of `irgrad.grad`); it is left as it is.
        path: the file, which is written whole or not at all.
        sizes: the size of each symbolic dimension of the inputs.
        title: what the page is headed; the name of the graph by default.

    Raises:
        UsageError: a size is missing or names no dimension, or the path cannot be written.
        TypeInferenceError: a node does not take operands of these sizes; the message names it.
    """
    text = page(gather(graph, sizes), title or graph.name)
    with replacing(path) as file:
        # A name may hold half a surrogate pair, which UTF-8 has no bytes for.
        file.write(text.encode("utf-8", "backslashreplace"))
