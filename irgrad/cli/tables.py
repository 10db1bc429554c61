"""Plain tables: columns line up, names are never cut, and nothing is folded where a program reads along."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

__all__ = ["Table", "align"]

_GAP = "  "
_NARROWEST = 16  # a column is never folded to less, since a name in shreds cannot be read


class Table:
    """Rows of text under headings.

    Args:
        columns: the headings; those that start with ">" are of columns that are flushed right.
    """

    def __init__(self, *columns: str) -> None:
        self._right = [column.startswith(">") for column in columns]
        self._rows = [[column.removeprefix(">") for column in columns]]

    def add_row(self, *cells: str) -> None:
        """Append a row, one cell per column."""
        self._rows.append(list(cells))

    def lines(self, width: int | None = None) -> Iterator[str]:
        """The lines, the headings first.

        Args:
            width: what the lines should fit in; the widest column is folded for that. None: any length will do.
        """
        widths = [max(cell_len(row[i]) for row in self._rows) for i in range(len(self._right))]
        if width is not None:
            widest = widths.index(max(widths))
            rest = sum(widths) - widths[widest] + len(_GAP) * (len(widths) - 1)
            widths[widest] = min(widths[widest], max(width - rest, _NARROWEST))
        for row in self._rows:
            yield from self._lines_of(row, widths)

    def _lines_of(self, row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        folded = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for i in range(max(map(len, folded))):
            cells = [lines[i] if i < len(lines) else "" for lines in folded]
            padded = [
                " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
                for cell, width, right in zip(cells, widths, self._right, strict=True)
            ]
            yield _GAP.join(padded).rstrip()


def _fold(text: str, width: int) -> list[str]:
    """Lines of at most `width`, broken behind a separator of names if there is one in the second half of the line."""
    lines = []
    while cell_len(text) > width:
        end = len(text)
        while cell_len(text[:end]) > width:
            end -= 1
        separators = [found.end() for found in re.finditer(r"[/._:,\s-]", text[:end])]
        if separators and 2 * separators[-1] >= end:
            end = separators[-1]
        lines.append(text[:end])
        text = text[end:]
    return [*lines, text]


def align(numbers: Sequence[float]) -> list[str]:
    """The numbers to six digits, padded on the right such that their decimal points line up in a column flushed right."""
    texts = [f"{number:.6g}" for number in numbers]
    tails = [len(text) - len(re.match(r"-?\d*", text)[0]) for text in texts]  # type: ignore[index]
    return [text + " " * (max(tails) - tail) for text, tail in zip(texts, tails, strict=True)]
