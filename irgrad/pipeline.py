"""Passes and pipelines of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.graph import Graph

__all__ = ["Pass"]


@dataclass(frozen=True)
class Pass:
    """A transformation of a graph. Derive a frozen dataclass whose fields are the options of the pass.

    Attributes:
        name: what pipelines call it.
    """

    name: ClassVar[str] = ""

    def requires(self, graph: Graph) -> None:
        """Raise PassError where the graph does not meet what this pass takes for granted."""

    def run(self, graph: Graph) -> bool:
        """Change the graph in place; True exactly if anything changed."""
        raise NotImplementedError

    def ensures(self, graph: Graph) -> None:
        """Raise PassError where the graph lacks what this pass promises."""
