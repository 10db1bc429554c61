"""Step-by-step execution: what every node of a graph computes, in order, and which one is the first to make a NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from irgrad.graph import Graph, Node, Role
from irgrad.runtime.executable import NumpyExecutable
from irgrad.runtime.feeds import FeedChecker
from irgrad.types import TensorType, Type

__all__ = ["Statistics", "Step", "Trace", "TracedValue", "trace"]


@dataclass(frozen=True)
class Statistics:
    """What the elements of a value are like; of a sequence, those of all its tensors. Complex numbers count by modulus.

    Attributes:
        elements: how many there are.
        nan: how many of them are NaN.
        inf: how many are infinite.
        zeros: the share that is 0, 0 where there are no elements.
        min, max, mean, std, norm: of the finite elements, std with the number of elements as its divisor, norm the square
            root of the sum of squares; None where no element is finite.
    """

    elements: int
    nan: int
    inf: int
    zeros: float
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    norm: float | None = None

    @property
    def finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return not (self.nan or self.inf)

    @classmethod
    def of(cls, value: Any) -> Statistics | None:
        """Those of an array, a list of such or None; None where there are no numbers."""
        arrays = list(_arrays(value))
        if any(array.dtype.kind in "OSU" for array in arrays) or not arrays:
            return None
        with np.errstate(all="ignore"):
            flat = np.concatenate([_numbers(array) for array in arrays]) if len(arrays) != 1 else _numbers(arrays[0])
            nan, inf = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
            zeros = 1 - np.count_nonzero(flat) / flat.size if flat.size else 0.0
            if nan or inf:
                flat = flat[np.isfinite(flat)]
            if not flat.size:
                return cls(nan + inf, nan, inf, zeros)
            largest = float(np.abs(flat).max())
            scale = largest or 1.0  # squares of large and of tiny numbers must not leave the range
            scaled = flat / scale
            return cls(
                flat.size + nan + inf,
                nan,
                inf,
                zeros,
                float(flat.min()),
                float(flat.max()),
                float(scaled.mean() * scale),
                float(scaled.std() * scale),
                float(np.sqrt(np.dot(scaled, scaled)) * scale),
            )


@dataclass(frozen=True)
class TracedValue:
    """A value as it was in a run.

    Attributes:
        name: its name in the graph.
        type: its type in the run; its declared one where it is no tensor.
        statistics: what its elements are like; None where it has no numbers.
        array: the value itself, where it was to be kept.
    """

    name: str
    type: Type
    statistics: Statistics | None
    array: Any = field(default=None, repr=False, compare=False)

    @property
    def finite(self) -> bool:
        return self.statistics is None or self.statistics.finite

    def __str__(self) -> str:
        told = [f"%{self.name}: {self.type}"]
        s = self.statistics
        if s is not None:
            numbers = {"min": s.min, "max": s.max, "mean": s.mean, "std": s.std, "norm": s.norm}
            told += [f"{name} {number:.6g}" for name, number in numbers.items() if number is not None]
            told.append(f"zeros {s.zeros:.0%}")
            told += [f"{count:,} {name}" for name, count in (("NaN", s.nan), ("Inf", s.inf)) if count]
        return " ".join(told)


@dataclass(frozen=True)
class Step:
    """A node that ran.

    Attributes:
        node: its name.
        op: the qualified name of its operation.
        role: which part of the graph it belongs to.
        origin: the forward node that it was made for, or None.
        outputs: its results.
        breaks: whether it made a NaN or an Inf although all its operands (and attributes) were finite.
    """

    node: str
    op: str
    role: Role
    origin: str | None
    outputs: tuple[TracedValue, ...]
    breaks: bool

    @property
    def forward_node(self) -> str:
        """The forward node that it belongs to, which may be itself."""
        return self.origin or self.node

    @property
    def complaint(self) -> str:
        """What it made that it should not have, in a sentence."""
        found = [value.statistics for value in self.outputs if value.statistics is not None]
        counts = {"NaN": sum(s.nan for s in found), "Inf": sum(s.inf for s in found)}
        made = " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        made_for = f", made for {self.origin!r}" if self.origin else ""
        return f"the {self.role.value} node {self.node!r} ({self.op}{made_for}) makes {made} out of finite operands"

    def __str__(self) -> str:
        made_for = f" for {self.origin}" if self.origin else ""
        return f"{self.node} ({self.op}, {self.role.value}{made_for}): " + "; ".join(map(str, self.outputs))


@dataclass(frozen=True)
class Trace:
    """What a run did.

    Attributes:
        inputs: what was fed, and those constants that are not finite.
        steps: the nodes that ran and were asked for, in order.
        culprit: the first node, asked for or not, that made a NaN or an Inf although all its operands were finite.
        results: what the run returned; None where it was stopped.
    """

    inputs: tuple[TracedValue, ...]
    steps: tuple[Step, ...]
    culprit: Step | None
    results: dict[str, Any] | None = field(repr=False)

    def __str__(self) -> str:
        lines = [*map(str, self.inputs), *map(str, self.steps)]
        return "\n".join([*lines, self.culprit.complaint] if self.culprit else lines)


def trace(
    graph: Graph,
    feeds: Mapping[str, Any],
    *,
    nodes: str | Sequence[str] = "*",
    stop_at_nan: bool = False,
    keep: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Trace:
    """Run a graph once on numpy and look at every value.

    A node of control flow counts as one step, with what is inside of it.

    Args:
        graph: any graph, with or without its backward part; it is left as it is.
        feeds: as for `irgrad.compile`'s result.
        nodes: shell patterns: which nodes are wanted, by their names or those of their origins.
        stop_at_nan: end the run at the first node that makes a NaN or an Inf although all its operands are finite.
        keep: keep the values of the nodes that are wanted.
        on_step: called with each step that is wanted as soon as it is done: what ran is known even where a node fails.

    Raises:
        FeedError, ExecutionError: see `irgrad.runtime.executor.Executable.__call__`.
    """
    patterns = (nodes,) if isinstance(nodes, str) else tuple(nodes)
    tracer = _Tracer(graph, FeedChecker(graph)(feeds), patterns, stop_at_nan, keep, on_step)
    results: dict[str, Any] | None
    try:
        results = NumpyExecutable(graph).watched(feeds, tracer.watch)
    except _StopError:
        results = None
    return Trace(tuple(tracer.inputs), tuple(tracer.steps), tracer.culprit, results)


class _StopError(Exception):
    pass


class _Tracer:
    """Looks at the nodes of one run; the names of values that are not finite are all that it has to remember of them."""

    def __init__(
        self,
        graph: Graph,
        feeds: Mapping[str, Any],
        patterns: Sequence[str],
        stop_at_nan: bool,
        keep: bool,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self._patterns, self._stop, self._keep, self._on_step = patterns, stop_at_nan, keep, on_step
        self.steps: list[Step] = []
        self.culprit: Step | None = None
        fed = {value: feeds[value.name] for value in (*graph.inputs.values(), *graph.constants) if value.name in feeds}
        told = {value: value.constant for value in graph.constants if value not in fed}
        self.inputs = [_traced(v.name, v.type, feed) for v, feed in fed.items()]
        self.inputs += [
            seen
            for v, array in told.items()
            if v.type.differentiable and not (seen := _traced(v.name, v.type, array)).finite
        ]
        self._broken = {seen.name for seen in self.inputs if not seen.finite}

    def watch(self, node: Node, results: Sequence[Any]) -> None:
        wanted = any(fnmatchcase(name, p) for name in (node.name, node.origin) if name for p in self._patterns)
        outputs = tuple(
            _traced(value.name, value.type, result, self._keep and wanted)
            for value, result in zip(node.outputs, results, strict=True)
        )
        broken = [value.name for value in outputs if not value.finite]
        sound = not any(v is not None and v.name in self._broken for v in node.inputs) and not _is_told_to_break(node)
        self._broken.update(broken)
        step = Step(node.name, node.op.qualified_name, node.role, node.origin, outputs, bool(broken) and sound)
        if wanted:
            self.steps.append(step)
            if self._on_step is not None:
                self._on_step(step)
        if step.breaks and self.culprit is None:
            self.culprit = step
            if self._stop:
                raise _StopError


def _is_told_to_break(node: Node) -> bool:
    """Whether an attribute is not finite: what comes of that is meant, as in a mask of -Inf."""
    for value in node.attrs.values():
        numbers = value if isinstance(value, (np.ndarray, tuple)) else (value,)
        if any(isinstance(x, (float, np.number)) and not np.isfinite(x) for x in np.ravel(np.asarray(numbers, object))):
            return True
    return False


def _traced(name: str, declared: Type, value: Any, keep: bool = False) -> TracedValue:
    type = TensorType.of(value) if isinstance(value, np.ndarray) else declared
    return TracedValue(name, type, Statistics.of(value), _copied(value) if keep else None)


def _copied(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_copied(element) for element in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Iterable[np.ndarray]:
    if isinstance(value, (list, tuple)):
        for element in value:
            yield from _arrays(element)
    elif value is not None:
        yield np.asarray(value)


def _numbers(array: np.ndarray) -> np.ndarray:
    """The elements in float64 (their moduli, where they are complex), in one row."""
    flat = array.reshape(-1)
    return np.abs(flat).astype(np.float64) if flat.dtype.kind == "c" else flat.astype(np.float64)
