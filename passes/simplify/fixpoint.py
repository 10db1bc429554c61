"""All simplifications, over and over, until nothing is left to simplify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.errors import PassError
from irgrad.graph import Graph
from irgrad.passes.simplify.canonicalize import Canonicalize
from irgrad.passes.simplify.cse import CommonSubexpressions
from irgrad.passes.simplify.dce import DeadCode
from irgrad.passes.simplify.fold import Fold
from irgrad.pipeline import Pass, run_pass
from irgrad.runtime.specialise import FOLD_LIMIT

__all__ = ["Simplify"]


@dataclass(frozen=True)
class Simplify(Pass):
    """Fold constants, bring nodes into canonical form, merge common subexpressions and remove dead nodes.

    No result changes by a single bit. Names of inputs, parameters and outputs stay, and so do values that have a gradient.

    Attributes:
        limit: see `Fold`.
        signed_zeros: see `Canonicalize`.
        rounds: how often the four may take turns; two or three times are usual.
    """

    name: ClassVar[str] = "simplify"
    limit: int = FOLD_LIMIT
    signed_zeros: bool = True
    rounds: int = 50

    def requires(self, graph: Graph) -> None:
        if self.rounds < 1:
            raise PassError(f"rounds must be at least 1, not {self.rounds}")

    def run(self, graph: Graph) -> bool:
        passes: list[Pass] = [Fold(self.limit), Canonicalize(self.signed_zeros), CommonSubexpressions(), DeadCode()]
        changed = False
        for _ in range(self.rounds):
            again = False
            for pass_ in passes:
                again |= run_pass(pass_, graph)
            changed |= again
            if not again:
                break
        return changed
