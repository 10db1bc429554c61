"""The passes that make groups and take them apart again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Node
from irgrad.passes.autodiff.expand import put_in_place
from irgrad.passes.fusion.bodies import Group, put
from irgrad.passes.fusion.clusters import Limits
from irgrad.passes.fusion.groups import Groups
from irgrad.passes.fusion.rules import FusionRule, RuleTable
from irgrad.pipeline import Instrument, Pass
from irgrad.runtime.tiles import WHOLE

__all__ = ["Fuse", "FusionReasons", "Unfuse", "explain"]

_FUSED = "irgrad.Fused"


@dataclass(frozen=True)
class Fuse(Pass):
    """Join nodes that run over the same space to nodes of `irgrad.Fused`, which run tile by tile.

    Elementwise chains with what they broadcast; operations along rows (softmax, normalisations, losses) with the elementwise
    ones around them; batch normalisation with its activation; sums over samples of what is computed anyway (gradients of
    biases and scales); updates of parameters. Results of elementwise groups do not change by a single bit; sums may, since
    they are formed of partial sums.

    Outputs, gradients and values with gradients stay what they are under their names. The nodes inside of a group keep their
    roles, origins and rules.

    Attributes:
        min_elements: groups over fewer elements are left alone.
        skip: names of rules that are switched off: map, rows, channels, reductions, losses, updates.
        mixed_roles: join forward, backward and other nodes too.
        max_nodes: nodes of a group.
        max_operands: values that a group reads.
        max_outputs: values that others read of it.
        more: further rules, for operations of plugins; they come before irgrad's own.
    """

    name: ClassVar[str] = "fuse"
    min_elements: int = WHOLE
    skip: Sequence[str] = ()
    mixed_roles: bool = False
    max_nodes: int = 200
    max_operands: int = 32
    max_outputs: int = 16
    more: Sequence[FusionRule] = ()

    def requires(self, graph: Graph) -> None:
        for option in ("max_nodes", "max_operands", "max_outputs"):
            if getattr(self, option) < 1:
                raise PassError(f"{option} must be at least 1, not {getattr(self, option)}")
        self._table()

    def run(self, graph: Graph) -> bool:
        changed = False
        for inner in _outside_of_groups(graph):
            chosen = self.groups(inner).chosen()
            places = {node: place for place, node in enumerate(inner.nodes())} if chosen else {}
            for group in [Group.of(cluster, places) for cluster in chosen]:
                put(inner, group)
            changed |= bool(chosen)
        return changed

    def groups(self, graph: Graph) -> Groups:
        """The groups that the pass would make of the nodes of a graph (not of its subgraphs), which is not changed."""
        limits = Limits(self.max_nodes, self.max_operands, self.max_outputs, self.mixed_roles)
        return Groups(graph, self._table(), limits, self.min_elements, bundle="updates" not in self.skip)

    def _table(self) -> RuleTable:
        return RuleTable(self.more, [name for name in self.skip if name != "updates"])


def _outside_of_groups(graph: Graph) -> Iterator[Graph]:
    """The graph and all graphs inside it that are no bodies of groups; each may be changed before the next is asked for."""
    waiting = [graph]
    for current in waiting:
        yield current
        waiting += [g for node in current.nodes() if node.op.qualified_name != _FUSED for g in node.subgraphs]


def explain(graph: Graph, fuse: Fuse | None = None) -> list[tuple[Node, str]]:
    """The nodes of a graph, and of those inside it, that `fuse` would leave as they are, in order, and why.

    Args:
        graph: it is not changed.
        fuse: the pass with its options; the defaults otherwise.
    """
    pass_ = fuse or Fuse()
    pass_.requires(graph)
    found = []
    for inner in _outside_of_groups(graph):
        reasons = pass_.groups(inner).reasons()
        found += [(node, reasons[node]) for node in inner.nodes() if node in reasons]
    return found


class FusionReasons(Instrument):
    """Collects which nodes each `fuse` of a pipeline leaves as they are, and why; ``str()`` is a line for each.

    Attributes:
        found: names of nodes and reasons.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def before(self, pass_: Pass, graph: Graph) -> None:
        if isinstance(pass_, Fuse):
            self.found += [(f"{node.name} ({node.op.qualified_name})", reason) for node, reason in explain(graph, pass_)]

    def __str__(self) -> str:
        return "\n".join(f"not fused: {node}: {reason}" for node, reason in self.found) or "not fused: nothing"


@dataclass(frozen=True)
class Unfuse(Pass):
    """Take groups apart: put the nodes inside of `irgrad.Fused` in its place, with the roles and origins that they had."""

    name: ClassVar[str] = "unfuse"

    def run(self, graph: Graph) -> bool:
        changed = False
        for inner in graph.walk():
            for node in inner.nodes():
                if node.op.qualified_name == _FUSED:
                    inner.rename(node, inner.fresh_name(f"{node.name}_fused", node=True))  # a node inside has the name
                    b = Builder(inner)
                    b.take_after(node)
                    put_in_place(inner, node, node.op.lowered(b, node))
                    changed = True
        return changed
