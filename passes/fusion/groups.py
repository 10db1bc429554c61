"""Which nodes become one: groups that grow by sweeps over the graph.

A group must be convex: no path may leave it and come back. In a sweep from the start of the graph, each cluster (a group,
or a node by itself) has a level, higher than those of all clusters that it reads from. Two clusters of the same level
therefore have no path between them, and a cluster may join one that it reads from if all else that it reads is lower.
Sweeps from the end do the same with those that read its results. Both take turns until nothing changes. No question is ever
asked of pairs of nodes, so that the time grows with the number of edges.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping

from irgrad.graph import Graph, Node, Role, Value
from irgrad.passes.fusion.clusters import Cluster, Limits, elements, is_small, merged
from irgrad.passes.fusion.members import NotFusible
from irgrad.passes.fusion.rules import RuleTable
from irgrad.runtime.liveness import needed_nodes

__all__ = ["Groups"]

_ROUNDS = 8
_SIBLINGS = 4  # other readers of a value, the last ones before it, that a cluster is tried to be joined with
_BUNDLE = 256  # operands of a bundle of small updates


class Groups:
    """The clusters of a graph.

    Args:
        graph: it is not changed.
        table: the rules.
        limits: how large groups may get.
        min_elements: groups over fewer elements are not made.
        bundle: join small updates of parameters, whatever they run over.
    """

    def __init__(self, graph: Graph, table: RuleTable, limits: Limits, min_elements: int, bundle: bool) -> None:
        self._limits = limits
        self._min = min_elements
        self._of: dict[Node, Cluster] = {}
        self._joins = 0
        for index, node in enumerate(needed_nodes(graph)):
            try:
                cluster = Cluster(index, node, table.member(node))
            except NotFusible as reason:
                cluster = Cluster(index, node, None, str(reason))
            self._of[node] = cluster
        for _ in range(_ROUNDS):
            if not (self._sweep(forward=True) | self._sweep(forward=False)):
                break
        self.bundles: list[Cluster] = self._bundled() if bundle else []

    def chosen(self) -> list[Cluster]:
        """The clusters that are worth to be one node, in order."""
        return [c for c in self._clusters() if self.reason(c) is None]

    def reasons(self) -> dict[Node, str]:
        """Node → why it becomes no part of a group."""
        found = {}
        for node, cluster in self._of.items():
            reason = self.reason(cluster)
            if reason is not None:
                found[node] = reason
        return found

    def reason(self, cluster: Cluster) -> str | None:
        """Why a cluster is not made one node; None where it is."""
        if cluster in self.bundles:
            return None
        if cluster.space is None:
            return cluster.why
        total = elements(cluster.space)
        if total is not None and total < self._min:
            return f"it runs over {total} elements, fewer than {self._min}"
        if len(cluster.nodes) > 1:
            return None
        return f"nothing can be joined to it{': ' if cluster.why else ''}{cluster.why}"

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def _clusters(self) -> list[Cluster]:
        return sorted(set(self._of.values()), key=lambda c: c.index)

    def _before(self, cluster: Cluster) -> list[Cluster]:
        """The clusters that a cluster reads from."""
        makers = (value.producer for value in cluster.inputs)
        return self._distinct((maker for maker in makers if maker is not None and maker in self._of), cluster)

    def _after(self, cluster: Cluster) -> list[Cluster]:
        """The clusters that read from a cluster."""
        users = (user for value in cluster.outputs for user in value.users if user in self._of)
        return self._distinct(users, cluster)

    def _distinct(self, nodes: Iterable[Node], cluster: Cluster) -> list[Cluster]:
        return sorted({self._of[node] for node in nodes} - {cluster}, key=lambda c: c.index)

    def _order(self) -> list[Cluster]:
        """The clusters in an order in which each comes after those that it reads from."""
        clusters = self._clusters()
        waits = {cluster: len(self._before(cluster)) for cluster in clusters}
        ready = [cluster.index for cluster in clusters if not waits[cluster]]
        by_index = {cluster.index: cluster for cluster in clusters}
        heapq.heapify(ready)
        order = []
        while ready:
            cluster = by_index[heapq.heappop(ready)]
            order.append(cluster)
            for user in self._after(cluster):
                waits[user] -= 1
                if not waits[user]:
                    heapq.heappush(ready, user.index)
        assert len(order) == len(clusters), "groups must be convex"
        return order

    def _sweep(self, *, forward: bool) -> bool:
        """Join clusters with those that they read from (or, backwards, that read from them); True if any were."""
        neighbours = self._before if forward else self._after
        order = self._order() if forward else self._order()[::-1]
        before = self._joins
        readers: dict[Value, deque[Node]] = {}
        for cluster in order:
            near, mine, node = neighbours(cluster), list(cluster.inputs), cluster.nodes[0]
            top = max((c.level for c in near), default=-1)
            joined = None
            if cluster.fusible and near:
                joined = self._joined_with_all(cluster, [c for c in near if c.level == top])
            if joined is None and cluster.fusible and forward:
                joined = self._joined_with_sibling(cluster, top + 1, readers)
            if joined is None:
                cluster.level = top + 1
            for value in mine if forward else ():
                readers.setdefault(value, deque(maxlen=_SIBLINGS)).append(node)
        return self._joins > before

    def _joined_with_all(self, cluster: Cluster, others: list[Cluster]) -> Cluster | None:
        """The cluster with all of some others, which are of one level; None, and nothing done, where that cannot be."""
        if not all(other.fusible for other in others):
            return None
        level = others[0].level
        together = others[0]
        if len(others) > 1:
            if sum(len(other.nodes) for other in others) + len(cluster.nodes) > self._limits.nodes:
                return None
            for other in others[1:]:
                result = self._join(together, other, level)
                if result is None:
                    return None
                together = result
        return self._join(together, cluster, level)

    def _joined_with_sibling(self, cluster: Cluster, least: int, readers: Mapping[Value, Iterable[Node]]) -> Cluster | None:
        """The cluster with one that reads a value that it reads as well, of a level that is high enough."""
        for value in sorted(cluster.inputs, key=lambda v: v.name):
            if value.shape != cluster.space:
                continue  # to read it once instead of twice would save nothing
            for other in dict.fromkeys(self._of[node] for node in readers.get(value, ())):
                if other is not cluster and other.fusible and other.level >= least:
                    result = self._join(other, cluster, other.level)
                    if result is not None:
                        return result
        return None

    def _join(self, a: Cluster, b: Cluster, level: int) -> Cluster | None:
        result = merged(a, b, self._limits)
        if isinstance(result, str):
            a.why, b.why = (c.why or f"with {o.nodes[0].name!r}, {result}" for c, o in ((a, b), (b, a)))
            return None
        for node in (b if result is a else a).nodes:
            self._of[node] = result
        result.level = level
        self._joins += 1
        return result

    # --- bundles ------------------------------------------------------------------------------------------------------

    def _bundled(self) -> list[Cluster]:
        """Groups that update small parameters, joined where they are of one level; those that came to be."""
        for cluster in self._order():
            cluster.level = max((c.level + 1 for c in self._before(cluster)), default=0)
        open_: dict[int, Cluster] = {}
        found: dict[Cluster, None] = {}
        for cluster in self._clusters():
            small = cluster.space is not None and is_small(cluster.space)
            if cluster.role is not Role.UPDATE or not small or len(cluster.nodes) < 2:
                continue
            bundle = open_.setdefault(cluster.level, cluster)
            if bundle is cluster:
                continue
            fits = len(bundle.nodes) + len(cluster.nodes) <= self._limits.nodes
            if not fits or len(bundle.inputs) + len(cluster.inputs) > _BUNDLE:
                open_[cluster.level] = cluster
                continue
            bundle.take(cluster)
            for node in cluster.nodes:
                self._of[node] = bundle
            found[bundle] = None
        return list(found)
