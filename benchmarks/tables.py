"""Tables on a terminal (rich), in a pipe (plain), and in a page (Markdown)."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["markdown", "show", "show_title"]

_console = Console(highlight=False)
_GAP = "  "


def show_title(title: str) -> None:
    """A heading."""
    _console.print(f"\n{title}", style="bold", markup=False)


def show(rows: Sequence[Sequence[str]]) -> None:
    """Rows under the headings that the first one holds; columns whose heading begins with ">" are flushed right."""
    heading, *body = rows
    if _console.is_terminal:
        table = Table(box=box.SIMPLE_HEAD)
        for name in heading:
            table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
        for row in body:
            table.add_row(*row)
        _console.print(table, markup=False)
        return
    widths = [max(len(row[i].removeprefix(">")) for row in rows) for i in range(len(heading))]
    for row in rows:
        cells = [
            cell.removeprefix(">").rjust(width) if name.startswith(">") else cell.ljust(width)
            for cell, name, width in zip(row, heading, widths, strict=True)
        ]
        print(_GAP.join(cells).rstrip())


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    heading, *body = rows
    lines = ["| " + " | ".join(name.removeprefix(">") for name in heading) + " |"]
    lines.append("| " + " | ".join("---:" if name.startswith(">") else "---" for name in heading) + " |")
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body]
