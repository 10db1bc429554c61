"""``irgrad ops``: the coverage table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from irgrad.cli.common import Steps, show, show_table
from irgrad.cli.tables import Table
from irgrad.conformance import NodeCase, measure, node_cases
from irgrad.coverage import Coverage, coverage
from irgrad.errors import UsageError, did_you_mean
from irgrad.files import replacing

__all__ = ["command"]


@click.command("ops", short_help="Show how operations run and where gradients come from.")
@click.argument("names", nargs=-1)
@click.option(
    "--matrix",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Check every operation on ONNX's own node tests, forward and backward, and write a table in Markdown (minutes).",
)
def command(names: tuple[str, ...], matrix: Path | None) -> None:
    """Show how each operation runs and where its gradient comes from.

    \b
    Kernel: numpy (irgrad's own), reference (onnx.reference), none.
    Gradient: rule, zero (declared), expansion (through simpler operations), none.

    \b
    Examples:
      irgrad ops
      irgrad ops Conv Resize
      irgrad ops --matrix coverage.md
    """
    if matrix is not None:
        if names:
            raise UsageError("--matrix is of all operations; name none")
        _write_matrix(matrix)
        return
    rows = _named(names, coverage()) if names else coverage()
    shown = Table("operation", "kernel", "gradient")
    for row in rows:
        shown.add_row(row.name, row.kernel, row.gradient)
    show_table(shown)
    if not names:
        for title, counts in (("kernel", Counter(r.kernel for r in rows)), ("gradient", Counter(r.gradient for r in rows))):
            show(f"{title}: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())))


def _write_matrix(path: Path) -> None:
    with replacing(path) as file:
        with Steps("reading the node tests", total=len(node_cases())) as steps:
            found = measure(lambda cases: _shown(cases, steps))
        file.write("".join(f"{line}\n" for line in found.markdown()).encode())
    for line in found.totals():
        show(line)
    show(f"wrote {path}")


def _shown(cases: Sequence[NodeCase], steps: Steps) -> Iterator[NodeCase]:
    for case in cases:
        steps.next(case.name)
        yield case


def _named(names: Sequence[str], rows: Sequence[Coverage]) -> list[Coverage]:
    """The rows of these names, upper or lower case.

    Raises:
        UsageError: there is no such operation.
    """
    known = {row.name.lower(): row for row in rows}
    for name in names:
        if name.lower() not in known:
            raise UsageError(f"there is no operation {name!r}{did_you_mean(name, [row.name for row in rows])}")
    return [known[name] for name in dict.fromkeys(name.lower() for name in names)]
