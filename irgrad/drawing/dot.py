"""A drawing in DOT, the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from irgrad.drawing.colours import COLOURS, DASHED, EDGE, TEXT, colour_of
from irgrad.drawing.diagram import Box, Column, Diagram, Edge, EdgeKind, Kind
from irgrad.graph import Role

__all__ = ["dot_of"]

_FONT = "Helvetica,Arial,sans-serif"

_SHAPES = {
    Kind.NODE: 'shape=box, style="filled,rounded"',
    Kind.GROUP: 'shape=box3d, style=filled, margin="0.14,0.1"',  # the upper face takes a part of the margin
    Kind.INPUT: "shape=ellipse, style=filled",
    Kind.PARAMETER: "shape=note, style=filled",
    Kind.OUTPUT: "shape=ellipse, style=filled, peripheries=2",
    Kind.GRADIENT: "shape=ellipse, style=filled, peripheries=2",
    Kind.ELSEWHERE: 'shape=box, style="filled,dashed,rounded"',
}

_HEADING = f"""\
  graph [compound=true, newrank=true, nodesep=0.3, ranksep=0.4, labeljust=l, fontname="{_FONT}", fontsize=13, \
fontcolor="{TEXT}"]
  node [fontname="{_FONT}", fontsize=12, fontcolor="{TEXT}", margin="0.12,0.06", height=0.3]
  edge [fontname="{_FONT}", fontsize=9, fontcolor="{EDGE}", color="{EDGE}", arrowsize=0.6]"""


def dot_of(diagram: Diagram) -> str:
    """The drawing as a DOT graph.

    Forward nodes stand in a column from top to bottom, and backward ones in another from bottom to top, each beside what it
    was made for, so that both ends of what is kept for the backward pass are at the same height.
    """
    lines = [f"digraph {_quoted(diagram.title)} {{", _HEADING, *_inside(diagram, "  ", "cluster_"), "}"]
    return "\n".join(lines) + "\n"


def _inside(diagram: Diagram, indent: str, prefix: str) -> Iterator[str]:
    columns, headings = diagram.columns(), diagram.headings()
    box_of = {box.id: box for box in diagram.boxes}
    for column, boxes in columns.items():
        inner = indent
        if len(columns) > 1:
            colour = COLOURS[Role(column.value)]
            yield f"{indent}subgraph {prefix}{column.value} {{"
            inner += "  "
            yield (
                f'{inner}graph [label={_quoted(headings[column])}, style="filled,rounded", color="{colour.line}", '
                f'fillcolor="{colour.ground}", fontcolor="{colour.line}"]'
            )
        for box in boxes:
            yield inner + _box(box)
        for body in diagram.bodies:
            if box_of[body.owner].column is column:
                line = COLOURS[box_of[body.owner].role].line
                yield f"{inner}subgraph cluster_{body.id} {{"
                yield f'{inner}  graph [label={_quoted(body.title)}, style="dashed,rounded", color="{line}"]'
                yield from _inside(body.diagram, f"{inner}  ", f"cluster_{body.id}_")
                yield f"{inner}}}"
        if len(columns) > 1:
            yield f"{indent}}}"
    first_of = {body.id: body.diagram.boxes[0].id for body in diagram.bodies if body.diagram.boxes}
    for edge in diagram.edges:
        if edge.kind is not EdgeKind.BODY:
            yield indent + _edge(edge, box_of[edge.source], box_of[edge.target])
        elif edge.target in first_of:
            yield indent + _edge_to_body(edge, first_of[edge.target], box_of[edge.source])
    for left, right in diagram.aligned:
        yield f"{indent}{{ rank=same; {left} -> {right} [style=invis] }}"


def _box(box: Box) -> str:
    colour = colour_of(box)
    title = escape(box.title)
    label = f"<b>{title}</b>" if box.kind in (Kind.NODE, Kind.GROUP) else title
    for line in box.lines:
        label += f'<br/><font point-size="9">{escape(line)}</font>'
    detail = f", tooltip={_quoted(box.detail)}" if box.detail else ""
    return f'{box.id} [label=<{label}>, {_SHAPES[box.kind]}, fillcolor="{colour.fill}", color="{colour.line}"{detail}]'


def _edge(edge: Edge, source: Box, target: Box) -> str:
    label = f"label={_quoted(f' {edge.label} ')}" if edge.label else ""
    if edge.kind is EdgeKind.ORIGIN:
        return _statement(
            edge.source, edge.target, "style=dotted", f'color="{DASHED}"', "arrowhead=open", "constraint=false"
        )
    if source.column is not target.column:
        return _statement(edge.source, edge.target, label, f'color="{COLOURS[target.role].line}66"', "constraint=false")
    if target.column is Column.BACKWARD:
        return _statement(edge.target, edge.source, label, "dir=back")
    return _statement(edge.source, edge.target, label)


def _edge_to_body(edge: Edge, first: str, owner: Box) -> str:
    if owner.column is Column.BACKWARD:
        return _statement(first, edge.source, "dir=back", "style=dashed", f"ltail=cluster_{edge.target}")
    return _statement(edge.source, first, "style=dashed", f"lhead=cluster_{edge.target}")


def _statement(tail: str, head: str, *attributes: str) -> str:
    given = ", ".join(attribute for attribute in attributes if attribute)
    return f"{tail} -> {head}" + (f" [{given}]" if given else "")


def _quoted(text: str) -> str:
    # In a quoted string of DOT a backslash begins an escape of the label, so that it has to be doubled as well.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
