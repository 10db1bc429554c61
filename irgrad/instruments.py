"""Instruments for pipelines: printing, timing, counting, and keeping what a failing pass was given."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from irgrad.files import replacing
from irgrad.graph import Graph, Role
from irgrad.pipeline import Instrument, Pass
from irgrad.text import Constants, to_text

__all__ = ["DumpOnFailure", "Instrument", "NodeCounts", "PrintAfter", "Timing"]


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
    """Writes the graph that a failing pass was given to a file, with the error on top, so that the failure can be replayed.

    Args:
        folder: where the file goes; it is named after the pass's position and name, and made when it is needed.

    Attributes:
        path: the file that was written, or None.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._position = 0
        self._graph: Graph | None = None
        self.path: Path | None = None

    def before(self, pass_: Pass, graph: Graph) -> None:
        self._position += 1
        self._graph = graph.copy()

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        self._graph = None

    def failed(self, pass_: Pass, graph: Graph, error: BaseException) -> None:
        if self._graph is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self.path = self._folder / f"{self._position:02}-{pass_.name}.ir"
        comment = "".join(f"# {line}\n" for line in (f"before {pass_.name}, which failed:", *str(error).splitlines()))
        with replacing(self.path) as file:
            file.write((comment + to_text(self._graph, "full")).encode())
        self._graph = None


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
