"""The reviewed steps between versions of an operation: what changed nothing, and what a step admitted.

The data, and what it claims, is in no_change_of_meaning.txt beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["admitted", "is_unchanged", "reviewed"]

_FILE = Path(__file__).parent / "no_change_of_meaning.txt"
_ADMITTED = "admitted"


@cache
def _sections() -> Mapping[str, Mapping[tuple[str, int], tuple[str, ...]]]:
    """Section → (operation, opset) → the further words of its line."""
    table: dict[str, dict[tuple[str, int], tuple[str, ...]]] = {}
    section: dict[tuple[str, int], tuple[str, ...]] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0].startswith("["):
            section = table.setdefault(words[0].strip("[]"), {})
            continue
        told = tuple(word for word in words[1:] if not word.isdigit())
        for opset in (int(word) for word in words[1:] if word.isdigit()):
            if (words[0], opset) in section:
                raise ValueError(f"{words[0]} {opset} is listed twice in {_FILE.name}")
            section[words[0], opset] = told
    return table


def reviewed() -> dict[str, dict[tuple[str, int], frozenset[str]]]:
    """Section → (operation, opset of a step that needs no adapter) → the names that the step added, as the table says."""
    return {
        name: {step: frozenset(words) for step, words in section.items()}
        for name, section in _sections().items()
        if name != _ADMITTED
    }


def admitted() -> Mapping[tuple[str, int], tuple[str, ...]]:
    """(operation, opset of a step) → what it admitted that no schema shows: see the section of that name in the table."""
    return _sections()[_ADMITTED]


@cache
def is_unchanged(name: str, since: int) -> bool:
    """Whether the step of a standard operation to the version that came with opset `since` changed no node's meaning."""
    return any((name, since) in section for title, section in _sections().items() if title != _ADMITTED)
