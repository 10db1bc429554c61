"""``irgrad ops``: the coverage table."""

from __future__ import annotations

from collections import Counter

import click

from irgrad.cli.common import show, table
from irgrad.coverage import coverage

__all__ = ["command"]


@click.command("ops")
@click.argument("names", nargs=-1)
def command(names: tuple[str, ...]) -> None:
    """Show how each operation runs and where its gradient comes from.

    \b
    Kernel: numpy (irgrad's own), reference (onnx.reference), none.
    Gradient: rule, zero (declared), expansion (through simpler operations), none.

    \b
    Example:
      irgrad ops
      irgrad ops Conv Resize
    """
    rows = coverage()
    if names:
        wanted = {name.lower() for name in names}
        rows = [row for row in rows if row.name.lower() in wanted]
        unknown = wanted - {row.name.lower() for row in rows}
        if unknown:
            raise click.UsageError(f"there is no operation {', '.join(sorted(unknown))}")
    shown = table("operation", "kernel", "gradient")
    for row in rows:
        shown.add_row(row.name, row.kernel, row.gradient)
    show(shown)
    if not names:
        for title, counts in (("kernel", Counter(r.kernel for r in rows)), ("gradient", Counter(r.gradient for r in rows))):
            show(f"{title}: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
