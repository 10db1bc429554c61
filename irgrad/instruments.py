"""Instruments for pipelines: printing, timing, counting, and keeping what a failing pass was given."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from irgrad.errors import UsageError
from irgrad.files import read_text, replacing
from irgrad.graph import Graph, Role
from irgrad.pipeline import Instrument, Pass, Pipeline
from irgrad.text import Constants, parse_text, to_text

__all__ = ["DumpOnFailure", "Instrument", "NodeCounts", "PrintAfter", "Timing", "read_reproducer"]


class PrintAfter(Instrument):
    """Prints the graph after each pass.

    Args:
        passes: names of the passes after which it prints; all by default.
        changed_only: print only where the pass changed something.
        constants: see `irgrad.text.to_text`.
        file: where to print; standard output by default.
    """

    def __init__(
        self,
        passes: Collection[str] | None = None,
        *,
        changed_only: bool = False,
        constants: Constants = "short",
        file: TextIO | None = None,
    ) -> None:
        self._passes = passes
        self._changed_only = changed_only
        self._constants = constants
        self._file = file

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        if (self._passes is None or pass_.name in self._passes) and (changed or not self._changed_only):
            note = "" if changed else " (nothing changed)"
            print(f"# after {pass_.name}{note}\n{to_text(graph, self._constants)}", file=self._file or sys.stdout)


class Timing(Instrument):
    """Measures how long each pass takes, the verification after it included; ``str()`` of it is a table.

    Attributes:
        rows: (name of the pass, seconds, whether it changed anything) in the order of running.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, bool]] = []
        self._began = 0.0

    def before(self, pass_: Pass, graph: Graph) -> None:
        self._began = time.perf_counter()

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        self.rows.append((pass_.name, time.perf_counter() - self._began, changed))

    def __str__(self) -> str:
        total = sum(seconds for _, seconds, _ in self.rows)
        cells = [(name, f"{seconds:.3f} s", "" if changed else "nothing changed") for name, seconds, changed in self.rows]
        return _table([("pass", "time", ""), *cells, ("total", f"{total:.3f} s", "")])


class NodeCounts(Instrument):
    """Counts the nodes before and after each pass; ``str()`` of it is a table.

    Attributes:
        rows: (name of the pass, count before, count after) in the order of running; a count is role → number of nodes.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[Role, int], dict[Role, int]]] = []
        self._before: dict[Role, int] = {}

    def before(self, pass_: Pass, graph: Graph) -> None:
        self._before = _count(graph)

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        self.rows.append((pass_.name, self._before, _count(graph)))

    def __str__(self) -> str:
        roles = [role for role in Role if any(role in count for _, *counts in self.rows for count in counts)]
        cells = [("pass", "nodes", *(role.value for role in roles))]
        for name, before, after in self.rows:
            changes = [_change(before.get(role, 0), after.get(role, 0)) for role in roles]
            cells.append((name, _change(sum(before.values()), sum(after.values())), *changes))
        return _table(cells)


class DumpOnFailure(Instrument):
    """Writes a reproducer where a pass fails: a file with the graph that the pass was given, the pass and the error.

    It is the text form of the graph, with all constants, under comments that hold the rest; ``irgrad opt --reproduce FILE``
    and `read_reproducer` read it. An interrupt is no failure.

    Args:
        folder: where the file goes; made when it is needed.
        name: the file's name; by default it is named after the pass's position and name.

    Attributes:
        path: the file that was written, or None.
    """

    def __init__(self, folder: str | Path, name: str | None = None) -> None:
        self._folder = Path(folder)
        self._name = name
        self._position = 0
        self._graph: Graph | None = None
        self.path: Path | None = None

    def before(self, pass_: Pass, graph: Graph) -> None:
        self._position += 1
        self._graph = graph.copy()

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        self._graph = None

    def failed(self, pass_: Pass, graph: Graph, error: BaseException) -> None:
        if self._graph is None or not isinstance(error, Exception):
            return
        path = self._folder / (self._name or f"{self._position:02}-{pass_.name}.ir")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(_reproducer(self._graph, pass_, error).encode())
            self.path = path
        except (OSError, UsageError) as reason:  # the error of the pass is the one to be told
            warnings.warn(f"no reproducer was written: {reason}", stacklevel=2)
        self._graph = None


_PIPELINE = "# pipeline: "


def _reproducer(graph: Graph, pass_: Pass, error: Exception) -> str:
    lines = [
        '# A reproducer: "irgrad opt --reproduce FILE" runs this pipeline over this graph.',
        f"{_PIPELINE}{Pipeline(pass_)}",
        "# which failed:",
        *(f"# {line}".rstrip() for line in str(error).splitlines()),
    ]
    return "\n".join(lines) + "\n" + to_text(graph, "full")


def read_reproducer(path: str | Path) -> tuple[Graph, str]:
    """The graph and the pipeline of a file that `DumpOnFailure` wrote.

    Raises:
        UsageError: the file cannot be read, or is no reproducer.
        TextError: its graph is misspelt.
    """
    text = read_text(path)
    for line in text.splitlines():
        if line.startswith(_PIPELINE):
            return parse_text(text), line.removeprefix(_PIPELINE)
        if not line.startswith("#"):
            break
    raise UsageError(f"the file {str(path)!r} is no reproducer: no line of its head begins with {_PIPELINE!r}")


def _count(graph: Graph) -> dict[Role, int]:
    counts: dict[Role, int] = {}
    for inner in graph.walk():
        for node in inner.nodes():
            counts[node.role] = counts.get(node.role, 0) + 1
    return counts


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} -> {after}"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
