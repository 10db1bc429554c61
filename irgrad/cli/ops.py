"""``irgrad ops``: the coverage table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from irgrad.cli.common import show, show_table
from irgrad.cli.tables import Table
from irgrad.coverage import Coverage, coverage
from irgrad.errors import UsageError, did_you_mean

__all__ = ["command"]


@click.command("ops", short_help="Show how operations run and where gradients come from.")
@click.argument("names", nargs=-1)
def command(names: tuple[str, ...]) -> None:
    """Show how each operation runs and where its gradient comes from.

    \b
    Kernel: numpy (irgrad's own), reference (onnx.reference), none.
    Gradient: rule, zero (declared), expansion (through simpler operations), none.

    \b
    Examples:
      irgrad ops
      irgrad ops Conv Resize
    """
    rows = _named(names, coverage()) if names else coverage()
    shown = Table("operation", "kernel", "gradient")
    for row in rows:
        shown.add_row(row.name, row.kernel, row.gradient)
    show_table(shown)
    if not names:
        for title, counts in (("kernel", Counter(r.kernel for r in rows)), ("gradient", Counter(r.gradient for r in rows))):
            show(f"{title}: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())))


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
