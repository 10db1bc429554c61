"""Applying rules to a graph until none fits any more."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from irgrad.builder import Builder
from irgrad.errors import IrgradError, PassError, TypeInferenceError
from irgrad.graph import Graph, Node, Value
from irgrad.pattern import Match, Rule
from irgrad.types import merge_types, types_compatible

__all__ = ["Miss", "RecordingBuilder", "RewriteReport", "is_named", "rewrite", "take_place"]


@dataclass(frozen=True)
class Miss:
    """A node that is of the operation at a rule's root, and why the rule did not fit it."""

    rule: str
    node: str
    reason: str


@dataclass
class RewriteReport:
    """What `rewrite` did.

    Attributes:
        applied: name of a rule → how often it was applied; rules that never were are left out.
        attempts: how many pairs of rule and node were tried.
        misses: the near misses that remain, where they were asked for.
    """

    applied: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    misses: list[Miss] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.applied)


def rewrite(graph: Graph, rules: Sequence[Rule], *, explain: bool = False, limit: int | None = None) -> RewriteReport:
    """Apply rules to the nodes of a graph (not of its subgraphs) until none fits any more.

    A root is replaced by what the rule emits: at its place in the program order, with its role and origin. The new node
    takes over the root's name and its results those of the root's outputs; a value that was there before keeps its own name
    instead. A value that `graph.gradients` names keeps existing under its name. Nodes inside the pattern that lose their
    last use go away. Where a replacement has no type, the rule counts as one that does not fit.

    After a change only those nodes are looked at again to which it can matter, so that the cost grows with the size of the
    graph and the number of changes.

    Args:
        graph: changed in place.
        rules: where several fit a node, the first is applied.
        explain: collect near misses.
        limit: an error is raised after this many applications; 10 for each node, and 1000, by default.

    Raises:
        PassError: a rule's function failed, or returned what cannot take the root's place; the rules do not come to an end.
    """
    rewriter = _Rewriter(graph, rules, explain)
    rewriter.run(1000 + 10 * len(graph) if limit is None else limit)
    return rewriter.report


def take_place(old: Value, new: Value) -> None:
    """Make all users of `old` use `new`, which takes over what was known of `old`.

    Types of inputs and constants stay what they are.
    """
    if new.producer is not None:
        new.graph.set_type(new, merge_types(new.type, old.type))
        if new.contents is None:
            new.contents = old.contents
    new.graph.replace_all_uses(old, new)


class RecordingBuilder(Builder):
    """A builder that remembers the nodes that it made."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.made: list[Node] = []

    def node(self, *args: Any, **kwargs: Any) -> Node:
        self.made.append(super().node(*args, **kwargs))
        return self.made[-1]


class _Rewriter:
    def __init__(self, graph: Graph, rules: Sequence[Rule], explain: bool) -> None:
        self.graph = graph
        self.report = RewriteReport()
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            for name in rule.pattern.names:
                self._rules.setdefault(name, []).append(rule)
        self._depth = max((rule.pattern.depth for rule in rules), default=0)
        self._exclusive = any(rule.exclusive for rule in rules)
        self._builder = RecordingBuilder(graph)
        self._queue: deque[Node] = deque()
        self._queued: set[Node] = set()
        self._misses: dict[tuple[str, str], str] | None = {} if explain else None

    def run(self, limit: int) -> None:
        self._enqueue(self.graph.nodes())
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            if not _is_present(node) or _is_unused(node) or node.op.qualified_name not in self._rules:
                continue
            if self._visit(node) and self.report.applied.total() > limit:
                names = ", ".join(f"{name} ({count} times)" for name, count in self.report.applied.most_common())
                raise PassError(f"the rules do not come to an end; applied were {names}")
        if self._misses is not None:
            self.report.misses = [Miss(*key, why) for key, why in self._misses.items() if self.graph.has_node(key[1])]

    def _enqueue(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node not in self._queued:
                self._queued.add(node)
                self._queue.append(node)

    def _visit(self, node: Node) -> bool:
        for rule in self._rules[node.op.qualified_name]:
            self.report.attempts += 1
            reasons: list[str] | None = None if self._misses is None else []
            try:
                match = rule.match(node, reasons)
                if match is not None and self._apply(rule, match, reasons):
                    return True
            except Exception as error:
                told = str(error) if isinstance(error, IrgradError) else f"{type(error).__name__} ({error})"
                raise PassError(f"the rule {rule.name!r} failed at the node {node.name!r}: {told}") from error
            if self._misses is not None and reasons:
                self._misses[rule.name, node.name] = "; ".join(dict.fromkeys(reasons))
        return False

    def _apply(self, rule: Rule, match: Match, reasons: list[str] | None) -> bool:
        root, b = match.root, self._builder
        b.take_after(root)
        b.made = []
        constants = len(self.graph.constants)
        try:
            results = rule.emit(b, match)
        except TypeInferenceError as error:
            # What is known of a graph that cannot run (a branch that is never taken) may contradict itself.
            self._take_back(constants)
            if reasons is not None:
                reasons.append(f"its replacement has no type: {error}")
            return False
        pairs = _pairs(root, results)
        affected: dict[Node, None] = dict.fromkeys(b.made)
        for old, new in pairs:
            affected.update(dict.fromkeys(old.users))
            take_place(old, new)
        self.report.applied[rule.name] += 1
        # A value that was there before has its own name; a named one that it stands in for stays, unused.
        new_names = {new: old.name for old, new in pairs if new.producer in b.made}
        lost = [old for old, new in pairs if is_named(old) and new_names.get(new) != old.name]
        if not lost:
            self._erase(root, affected)
            for new, name in new_names.items():
                self.graph.rename(new, name)
                if new.producer is not None and not self.graph.has_node(root.name):
                    self.graph.rename(new.producer, root.name)
        for made in reversed(b.made):
            if _is_present(made) and _is_unused(made) and not any(map(is_named, made.outputs)):
                self._erase(made, affected)
        self._reconsider(affected)
        return True

    def _take_back(self, constants: int) -> None:
        """Erase the nodes that a replacement has made so far, and the constants after so many."""
        for node in reversed(self._builder.made):
            self.graph.erase(node)
        for value in list(self.graph.constants)[constants:]:
            self.graph.erase(value)

    def _erase(self, node: Node, affected: dict[Node, None]) -> None:
        """Erase a node, and then those before it that nothing uses any more."""
        waiting = [node]
        while waiting:
            dead = waiting.pop()
            operands = dict.fromkeys(value for value in dead.inputs if value is not None)
            self.graph.erase(dead)
            affected.pop(dead, None)
            for value in operands:
                maker = value.producer
                if maker is not None and _is_unused(maker) and not any(map(is_named, maker.outputs)):
                    # Another output of it may have brought it here already.
                    waiting += [maker] if maker not in waiting else []
                if self._exclusive and len(value.users) == 1:
                    affected.update(dict.fromkeys(value.users))

    def _reconsider(self, affected: dict[Node, None]) -> None:
        """Queue the nodes that a changed operand can matter to: users of users, as far up as the deepest pattern reaches."""
        level = list(affected)
        for _ in range(self._depth):
            self._enqueue(level)
            level = list(dict.fromkeys(user for node in level for value in node.outputs for user in value.users))


def is_named(value: Value) -> bool:
    """Whether `Graph.gradients` names a value, so that it has to keep existing under its name."""
    return value.name in value.graph.gradients


def _is_present(node: Node) -> bool:
    return node.graph.has_node(node.name) and node.graph.node(node.name) is node


def _is_unused(node: Node) -> bool:
    return not any(value.is_output or value.users for value in node.outputs)


def _pairs(root: Node, results: tuple[Value | None, ...]) -> list[tuple[Value, Value]]:
    """Each output of the root with what takes its place."""
    if len(results) != len(root.outputs):
        raise PassError(f"it returned {len(results)} results for {len(root.outputs)} outputs")
    pairs = []
    for old, new in zip(root.outputs, results, strict=True):
        if new is None:
            if old.users or old.is_output or is_named(old):
                raise PassError(f"it returned nothing in place of {old!r}, which is used")
        elif new is old or not isinstance(new, Value):
            raise PassError(f"it returned {new!r} in place of {old!r}")
        elif not types_compatible(old.type, new.type):
            raise PassError(f"it would put {new!r} in place of {old!r}")
        else:
            pairs.append((old, new))
    return pairs
