"""What a notebook shows for a graph: a picture where it is small, otherwise a table of what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from html import escape

from irgrad.drawing.colours import COLOURS
from irgrad.drawing.dot import dot_of
from irgrad.drawing.graphviz import dot_program, picture
from irgrad.drawing.labels import cut, elements_text
from irgrad.drawing.layout import diagram_of
from irgrad.drawing.options import AUTO_BOXES, Options
from irgrad.errors import IrgradError
from irgrad.graph import Graph, Role, Value
from irgrad.literals import counted, type_text

__all__ = ["html_of", "svg_of"]

MOST_BYTES = 200_000
"""A notebook keeps what it shows: a larger picture is not worth it."""

MOST_ROWS = 12


def html_of(graph: Graph) -> str:
    """A graph as HTML: a picture of a small one where Graphviz is installed, otherwise a table. Never an exception."""
    # A notebook that meets an exception here shows that in place of the value, which may be broken for good reason.
    try:
        return _picture(graph) or _table(graph)
    except Exception as error:
        return f"<pre>{escape(f'{graph!r}: {cut(str(error))}')}</pre>"


def svg_of(graph: Graph, options: Options | None = None, timeout: float = 30) -> str:
    """The drawing of a graph as an ``<svg>`` element that shrinks to the width that there is.

    Raises:
        UsageError: an option does not fit the graph; Graphviz is not there, fails or takes too long.
    """
    svg = picture(dot_of(diagram_of(graph, options or Options())), "svg", timeout).decode()
    element = svg[svg.index("<svg") :]
    return re.sub(
        r'<svg width="(\d+)pt" height="\d+pt"', r'<svg style="max-width:\1pt;width:100%;height:auto"', element, count=1
    )


def _picture(graph: Graph) -> str | None:
    if dot_program() is None or len(graph) > AUTO_BOXES:
        return None
    try:
        svg = svg_of(graph, timeout=5)
    except IrgradError:
        return None
    return svg if len(svg) <= MOST_BYTES else None


def _table(graph: Graph) -> str:
    parameters = graph.parameters
    elements = elements_text(sum(array.size for array in parameters.values()))
    parts = [
        f"<b>{escape(cut(graph.name, 80))}</b>: {counted(len(graph), 'node')}, "
        f"{counted(len(parameters), 'parameter')} ({elements} elements)"
    ]
    roles = {role: [node for node in graph.nodes() if node.role is role] for role in Role}
    roles = {role: nodes for role, nodes in roles.items() if nodes}
    counts = {role: Counter(node.op.name for node in nodes) for role, nodes in roles.items()}
    totals: Counter[str] = sum(counts.values(), Counter())
    names = sorted(totals, key=lambda name: (-totals[name], name))
    heading = "".join(
        f'<th style="background:{COLOURS[role].fill};color:#000">{role.value} ({len(nodes)})</th>'
        for role, nodes in roles.items()
    )
    rows = [f"<tr><th>operation</th>{heading}</tr>"]
    for name in names[:MOST_ROWS]:
        cells = "".join(f"<td>{counts[role][name] or ''}</td>" for role in roles)
        rows.append(f"<tr><td>{escape(cut(name, 60))}</td>{cells}</tr>")
    if len(names) > MOST_ROWS:
        others = names[MOST_ROWS:]
        cells = "".join(f"<td>{sum(counts[role][name] for name in others) or ''}</td>" for role in roles)
        rows.append(f"<tr><td>{len(others)} others</td>{cells}</tr>")
    parts.append(f"<table>{''.join(rows)}</table>")
    gradients = [(of, graph.outputs[name]) for of, name in graph.gradients.items()]
    plain = [(name, value) for name, value in graph.outputs.items() if name not in set(graph.gradients.values())]
    parts += _listing("inputs", graph.inputs.items()) + _listing("outputs", plain) + _listing("gradients of", gradients)
    return f"<div>{'<br>'.join(parts)}</div>"


def _listing(title: str, named: Iterable[tuple[str, Value]]) -> list[str]:
    texts = [f"{escape(cut(name, 60))} <i>{escape(cut(type_text(value.type), 60))}</i>" for name, value in named]
    if not texts:
        return []
    more = f" and {len(texts) - MOST_ROWS} more" if len(texts) > MOST_ROWS else ""
    return [f"{title}: {', '.join(texts[:MOST_ROWS])}{more}"]
