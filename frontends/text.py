"""The frontend for graphs in their own text form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irgrad.files import read_text
from irgrad.graph import Graph
from irgrad.text import parse_text

__all__ = ["TextFrontend"]


class TextFrontend:
    """Reads files that end in ``.ir``: what ``irgrad opt -o FILE.ir`` and ``to_text(graph, "full")`` write."""

    def accepts(self, source: Any) -> bool:
        return isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".ir"

    def load(self, source: Any) -> Graph:
        """Read a graph.

        Raises:
            TextError: the text is misspelt, or leaves out the elements of a constant.
            UsageError: the file cannot be read.
        """
        return parse_text(read_text(source))
