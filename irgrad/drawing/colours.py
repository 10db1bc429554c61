"""The colours of the drawings, light enough for black text on them and told apart by people who see few colours."""

from __future__ import annotations

from typing import NamedTuple

from irgrad.drawing.diagram import Box, Kind
from irgrad.graph import Role

__all__ = ["COLOURS", "DASHED", "EDGE", "TEXT", "Colour", "colour_of"]


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
TEXT = "#1d2733"
EDGE = "#55606e"
DASHED = "#8a8f98"

_PARAMETER = Colour("#f6f1d5", "#857718", "")
_ELSEWHERE = Colour("#ffffff", DASHED, "")


def colour_of(box: Box) -> Colour:
    """The colour of a box: inputs and outputs are white."""
    if box.kind is Kind.PARAMETER:
        return _PARAMETER
    if box.kind is Kind.ELSEWHERE:
        return _ELSEWHERE
    colour = COLOURS[box.role]
    return colour._replace(fill="#ffffff") if box.kind in (Kind.INPUT, Kind.OUTPUT) else colour
