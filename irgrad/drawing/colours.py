"""The colours of the drawings, light enough for black text on them and told apart by people who see few colours."""

from __future__ import annotations

from typing import NamedTuple

from irgrad.graph import Role

__all__ = ["COLOURS", "ELSEWHERE", "PARAMETER", "TEXT", "Colour"]


class Colour(NamedTuple):
    """What a box is filled with, its border, and the ground of the column that it is in."""

    fill: str
    line: str
    ground: str


COLOURS = {
    Role.FORWARD: Colour("#d3e4f5", "#2f6299", "#f5f9fd"),
    Role.RECOMPUTE: Colour("#d4eed6", "#2e7d46", "#f5fbf6"),
    Role.BACKWARD: Colour("#fde0c5", "#b45a12", "#fef9f4"),
    Role.UPDATE: Colour("#e6dcf3", "#6a45a0", "#faf8fd"),
}
PARAMETER = Colour("#f6f1d5", "#857718", "")
ELSEWHERE = Colour("#ffffff", "#8a8f98", "")
TEXT = "#1d2733"
