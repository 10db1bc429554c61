"""Canonical forms, by rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.graph import Graph
from irgrad.passes.simplify import arithmetic, branches, layout, sequences
from irgrad.pipeline import Pass
from irgrad.rewrite import rewrite

__all__ = ["Canonicalize"]


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Drop what does nothing, merge what can be merged, and write the same thing the same way.

    No result changes by a single bit (whichever nan it is aside), so no sum is reordered and nothing is assumed to be
    finite. Subgraphs are rewritten too.

    Attributes:
        signed_zeros: whether −0 and 0 are different things; False also drops additions of 0.
    """

    name: ClassVar[str] = "canonicalize"
    signed_zeros: bool = True

    def run(self, graph: Graph) -> bool:
        rules = [*branches.RULES, *sequences.RULES, *arithmetic.RULES, *layout.RULES]
        if not self.signed_zeros:
            rules += arithmetic.SIGNED_ZERO_RULES
        changed = False
        for inner in graph.walk():
            changed |= rewrite(inner, rules).changed
        return changed
