"""Graphviz's program ``dot``, which turns DOT into pictures."""

from __future__ import annotations

import re
import shutil
import subprocess

from irgrad.drawing.diagram import Column
from irgrad.errors import UsageError

__all__ = ["dot_program", "picture"]

HOW_TO_GET_IT = "apt install graphviz, brew install graphviz, conda install graphviz, or https://graphviz.org/download"


def dot_program() -> str | None:
    """The path of ``dot``, None where it is not installed."""
    return shutil.which("dot")


def picture(text: str, format: str, timeout: float) -> bytes:
    """A picture of a DOT graph.

    Args:
        text: the graph.
        format: "svg", "png" or "pdf".
        timeout: the most seconds that it may take.

    Raises:
        UsageError: there is no ``dot``, it fails, or it takes too long.
    """
    program = dot_program()
    if program is None:
        raise UsageError(
            f"a picture ({format}) needs the program dot of Graphviz ({HOW_TO_GET_IT}); without it, draw to a file that "
            "ends in .dot, .mmd or .md"
        )
    laid_out = _run([program, "-Tdot"], text.encode(), timeout).decode()
    return _run([program, "-Kneato", "-n2", f"-T{format}"], _forward_left(laid_out).encode(), timeout)


def _run(command: list[str], data: bytes, timeout: float) -> bytes:
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"Graphviz has not laid the graph out within {timeout:g} s; draw less of it (collapse, around, only, roles), or "
            "allow more (timeout)"
        ) from None
    except OSError as error:
        raise UsageError(f"{command[0]!r} cannot be run: {error.strerror or error}") from None
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"{command[0]!r} failed with exit code {done.returncode}: {said[0] if said else 'it says nothing'}")
    return done.stdout


# --- sides ------------------------------------------------------------------------------------------------------------

_CONTINUED = re.compile(r"\\\r?\n")
_PLACE = re.compile(r'(?<=[\[\s,])(bb|pos|lp)="([^"]*)"')
_POINT = re.compile(r"(-?[\d.]+(?:e[+-]?\d+)?),(-?[\d.]+(?:e[+-]?\d+)?)")
_COLUMN = re.compile(r'subgraph cluster_(\w+) \{\s*graph \[bb="([^"]*)"')


def _forward_left(laid_out: str) -> str:
    """A layout, mirrored where that puts the forward column to the left: dot cannot be told the order of clusters."""
    text = _CONTINUED.sub("", laid_out)
    left = {name: float(box.split(",")[0]) for name, box in _COLUMN.findall(text) if box}
    forward, backward = (left.get(column.value, 0.0) for column in (Column.FORWARD, Column.BACKWARD))
    whole = _PLACE.search(text)
    if forward <= backward or whole is None:
        return text
    width = float(whole[2].split(",")[2])

    def mirrored(match: re.Match[str]) -> str:
        points = _POINT.sub(lambda point: f"{width - float(point[1]):.2f},{point[2]}", match[2])
        if match[1] == "bb" and points:
            left, bottom, right, top = points.split(",")
            points = f"{right},{bottom},{left},{top}"
        return f'{match[1]}="{points}"'

    return _PLACE.sub(mirrored, text)
