"""Where the time of a run goes: by node, by operation, by role, by scope and by fused group."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Protocol, TypeVar, runtime_checkable

from irgrad.builder import typed_call
from irgrad.drawing.scopes import anchors, scopes
from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.graph import Graph, Node, Role
from irgrad.runtime import Executable, compile, fast

__all__ = ["NodeTime", "Profile", "Share", "Times", "measure", "profile"]

K = TypeVar("K", bound=Hashable)

_WARM = 3  # runs before it counts: plans are made in the first, compilers start after some
_LEAST = 0.01  # share of the time below which a branch of the tree is not told by itself
_BAR = 20  # characters of a full bar


@dataclass(frozen=True)
class Times:
    """Seconds of a call that was measured again and again.

    Attributes:
        median: half of the calls took less.
        low, high: a quarter took less, a quarter took more.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Those of some measurements."""
        low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else list(seconds) * 3
        return cls(middle, low, high)


def measure(function: Callable[[], Any], runs: int) -> Times:
    """Call a function so many times, after some calls that do not count and after what compiles behind them has ended."""
    for _ in range(_WARM):
        function()
    fast.wait()
    taken = []
    for _ in range(runs):
        began = perf_counter()
        function()
        taken.append(perf_counter() - began)
    return Times.of(taken)


@dataclass(frozen=True)
class NodeTime:
    """A node that ran.

    Attributes:
        node: its name.
        op: the qualified name of its operation.
        role: which part of the graph it belongs to.
        origin: the forward node that it was made for, or None.
        scope: which part of the model it belongs to, outermost first.
        group: the name of what has been fused in it; None where it is no fused group.
        seconds: the median over the runs.
        flops, read, written: its arithmetic and the bytes that go in and out; None where data decides them.
    """

    node: str
    op: str
    role: Role
    origin: str | None
    scope: tuple[str, ...]
    group: str | None
    seconds: float
    flops: int | None
    read: int | None
    written: int | None

    @property
    def bytes(self) -> int | None:
        """What it reads and writes."""
        return None if self.read is None or self.written is None else self.read + self.written


@dataclass
class Share:
    """What some nodes took together, those of unknown cost counted by time only."""

    nodes: int = 0
    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0

    def add(self, row: NodeTime) -> None:
        """Count a node."""
        self.nodes += 1
        self.seconds += row.seconds
        self.flops += row.flops or 0
        self.bytes += row.bytes or 0


@dataclass(frozen=True)
class Profile:
    """What the nodes of a graph took.

    Attributes:
        rows: the nodes that ran, in order. Those that follow from shapes and constants, and mere views, are not among them.
        step: a whole run, measured without the clock in between.
        overhead: seconds of a run outside of its nodes' kernels: checking feeds, calling, handing results out.
        runs: how many times each was measured.
    """

    rows: tuple[NodeTime, ...] = field(repr=False)
    step: Times
    overhead: float
    runs: int

    @property
    def seconds(self) -> float:
        """What all nodes took."""
        return sum(row.seconds for row in self.rows)

    def slowest(self) -> list[NodeTime]:
        """The nodes, the slowest first."""
        return sorted(self.rows, key=lambda row: -row.seconds)

    def by_op(self) -> dict[str, Share]:
        """Operation → what its nodes took, the slowest first."""
        return _shares((row.op, row) for row in self.rows)

    def by_role(self) -> dict[Role, Share]:
        """Role → what its nodes took, the slowest first."""
        return _shares((row.role, row) for row in self.rows)

    def by_group(self) -> dict[str, Share]:
        """What is fused → what such groups took, the slowest first."""
        return _shares((row.group, row) for row in self.rows if row.group is not None)

    def by_scope(self) -> dict[tuple[str, ...], Share]:
        """Part of the model → what its nodes took, those of parts inside of it not counted, the slowest first."""
        return _shares((row.scope, row) for row in self.rows)

    def tree(self, least: float = _LEAST) -> str:
        """The time by role, scope and operation, as a flame graph in text.

        Args:
            least: branches that take a smaller share of the time are told together.
        """
        root = _Branch("all nodes")
        for row in self.rows:
            root.grow((row.role.value, *row.scope, row.op), row)
        return "\n".join(root.lines(self.seconds or 1.0, least))

    def chrome(self) -> dict[str, Any]:
        """The run as a trace in Chrome's format, for chrome://tracing or ui.perfetto.dev: one line, and one for each role.

        The nodes follow each other without gaps, each with its median time. (Format: "Trace Event Format", Google.)
        """
        events: list[dict[str, Any]] = [_named("process_name", "irgrad", 0)]
        lanes = {role: lane for lane, role in enumerate(Role, 1)}
        events += [_named("thread_name", role.value, lane) for role, lane in lanes.items() if role in self.by_role()]
        now = 0.0
        for row in self.rows:
            told: dict[str, Any] = {"op": row.op, "origin": row.origin, "scope": "/".join(row.scope), "fused": row.group}
            told |= {"flops": row.flops, "bytes read": row.read, "bytes written": row.written}
            event = {"name": row.node, "cat": row.op, "ph": "X", "pid": 1, "tid": lanes[row.role]}
            known = {key: value for key, value in told.items() if value not in (None, "")}
            events.append({**event, "ts": 1e6 * now, "dur": 1e6 * row.seconds, "args": known})
            now += row.seconds
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save(self, path: str | Path) -> None:
        """Write `chrome` to a file.

        Raises:
            UsageError: the file cannot be written.
        """
        with replacing(Path(path)) as file:
            file.write(json.dumps(self.chrome()).encode())

    def __str__(self) -> str:
        return self.tree()


@runtime_checkable
class Timed(Executable, Protocol):
    """An executable graph that tells the time of each node, as the numpy executor's does."""

    def timed(self, feeds: Mapping[str, Any], clock: Callable[[], float]) -> tuple[dict[str, Any], list[tuple[Node, float]]]:
        """See `irgrad.runtime.executable.NumpyExecutable.timed`."""
        ...


def profile(graph: Graph | Executable, feeds: Mapping[str, Any], *, runs: int = 10, **options: Any) -> Profile:
    """Run a graph again and again, and see which nodes the time goes to.

    Args:
        graph: a graph, which is compiled for numpy, or an executable one, which must be able to tell (numpy's is).
        feeds: as for `irgrad.compile`'s result.
        runs: how many runs are measured, after some that do not count.
        options: those of the executor, for a graph.

    Raises:
        FeedError, ExecutionError: see `irgrad.runtime.executor.Executable.__call__`.
        UsageError: the executable does not tell the time of nodes, or options are given with it.
    """
    if isinstance(graph, Graph):
        executable = compile(graph, **options)
    elif options:
        raise UsageError(f"the option {next(iter(options))} is for a graph; this one is compiled already")
    else:
        executable = graph
    if not isinstance(executable, Timed):
        raise UsageError("this executor does not tell the time of single nodes; profile the graph on executor='numpy'")
    if runs < 1:
        raise UsageError(f"runs must be at least 1, not {runs}")
    step = measure(lambda: executable(feeds), runs)
    taken: dict[Node, list[float]] = {}
    outside = []
    clock = _cost_of_the_clock()
    for _ in range(runs):
        began = perf_counter()
        times = executable.timed(feeds, perf_counter)[1]
        outside.append(perf_counter() - began - sum(seconds for _, seconds in times) - clock * len(times))
        for node, seconds in times:
            taken.setdefault(node, []).append(seconds)
    rows = _rows({node: median(seconds) for node, seconds in taken.items()})
    return Profile(tuple(rows), step, max(0.0, median(outside)), runs)


def _cost_of_the_clock() -> float:
    """Seconds that reading the clock takes."""
    return min(abs(perf_counter() - perf_counter()) for _ in range(1000))


def _rows(times: Mapping[Node, float]) -> Iterator[NodeTime]:
    if not times:
        return
    graph = next(iter(times)).graph
    forward = [node for node in graph.nodes() if node.role is Role.FORWARD]
    paths = scopes(forward)
    anchored = anchors(graph, forward)
    for node, seconds in times.items():
        cost = node.op.cost_of(typed_call(node))
        body = node.attrs.get("body") if node.op.qualified_name == "irgrad.Fused" else None
        yield NodeTime(
            node.name,
            node.op.qualified_name,
            node.role,
            node.origin,
            paths.get(anchored.get(node, node), ()),
            body.name if isinstance(body, Graph) else None,
            seconds,
            *((None, None, None) if cost is None else (cost.flops, cost.read, cost.written)),
        )


def _shares(rows: Iterable[tuple[K, NodeTime]]) -> dict[K, Share]:
    found: dict[K, Share] = {}
    for key, row in rows:
        found.setdefault(key, Share()).add(row)
    return dict(sorted(found.items(), key=lambda item: -item[1].seconds))


class _Branch:
    """A part of the tree, with what is inside of it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._share = Share()
        self._inside: dict[str, _Branch] = {}

    def grow(self, path: Sequence[str], row: NodeTime) -> None:
        self._share.add(row)
        if path:
            self._inside.setdefault(path[0], _Branch(path[0])).grow(path[1:], row)

    def lines(self, total: float, least: float, depth: int = 0) -> Iterator[str]:
        yield _line(self._name, self._share, total, depth)
        inside = sorted(self._inside.values(), key=lambda branch: -branch._share.seconds)
        shown = [branch for branch in inside if branch._share.seconds >= least * total]
        for branch in shown:
            yield from branch.lines(total, least, depth + 1)
        rest = Share()
        for branch in inside[len(shown) :]:
            rest.nodes += branch._share.nodes
            rest.seconds += branch._share.seconds
        if rest.nodes:
            yield _line("others", rest, total, depth + 1)


def _line(name: str, share: Share, total: float, depth: int) -> str:
    part = share.seconds / total
    bar = "█" * round(_BAR * part)
    nodes = "node" if share.nodes == 1 else "nodes"
    return f"{1e3 * share.seconds:>10.3f} ms {part:>4.0%}  {bar:<{_BAR}}  {'  ' * depth}{name} ({share.nodes:,} {nodes})"


def _named(kind: str, name: str, lane: int) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}}
