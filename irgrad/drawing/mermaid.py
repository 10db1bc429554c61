"""A drawing in Mermaid, which GitHub, GitLab and many editors show without anything being installed."""

from __future__ import annotations

from collections.abc import Iterator

from irgrad.drawing.colours import COLOURS, DASHED, TEXT, colour_of
from irgrad.drawing.diagram import Box, Diagram, EdgeKind, Kind
from irgrad.graph import Role

__all__ = ["mermaid_of"]

_SHAPES = {
    Kind.NODE: ("(", ")"),
    Kind.GROUP: ("[[", "]]"),
    Kind.INPUT: ("([", "])"),
    Kind.PARAMETER: ("[(", ")]"),
    Kind.OUTPUT: ("(((", ")))"),
    Kind.GRADIENT: ("{{", "}}"),
    Kind.ELSEWHERE: ("(", ")"),
}

_ESCAPES = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "`": "#96;", "|": "#124;"}


def mermaid_of(diagram: Diagram) -> str:
    """The drawing as a Mermaid flowchart."""
    lines = ["flowchart TB", *_inside(diagram, "  ", "")]
    used = {_class(box): _style(box) for part in diagram.walk() for box in part.boxes}
    lines += [f"  classDef {name} {used[name]}" for name in sorted(used)]
    return "\n".join(lines) + "\n"


def _inside(diagram: Diagram, indent: str, prefix: str) -> Iterator[str]:
    columns, headings = diagram.columns(), diagram.headings()
    column_of = {box.id: box.column for box in diagram.boxes}
    for column, boxes in columns.items():
        inner = indent
        if len(columns) > 1:
            yield f'{indent}subgraph {prefix}{column.value}_column["{headings[column]}"]'
            inner += "  "
        for box in boxes:
            opening, closing = _SHAPES[box.kind]
            label = "<br/>".join(map(_escaped, (box.title, *box.lines)))
            yield f'{inner}{box.id}{opening}"{label}"{closing}:::{_class(box)}'
        for body in diagram.bodies:
            if column_of[body.owner] is column:
                yield f'{inner}subgraph {body.id}["{_escaped(body.title)}"]'
                yield from _inside(body.diagram, f"{inner}  ", f"{body.id}_")
                yield f"{inner}end"
                yield f"{inner}style {body.id} fill:none,stroke:{DASHED},stroke-dasharray:4"
        if len(columns) > 1:
            colour = COLOURS[Role(column.value)]
            yield f"{indent}end"
            style = f"fill:{colour.ground},stroke:{colour.line},color:{colour.line}"
            yield f"{indent}style {prefix}{column.value}_column {style}"
    for edge in diagram.edges:
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        arrow = "-->" if edge.kind is EdgeKind.DATA else "-.->"
        yield f"{indent}{edge.source} {arrow}{label} {edge.target}"


def _class(box: Box) -> str:
    if box.kind in (Kind.PARAMETER, Kind.ELSEWHERE):
        return f"{box.kind.value}"
    return box.role.value + ("_end" if box.kind in (Kind.INPUT, Kind.OUTPUT) else "")


def _style(box: Box) -> str:
    colour = colour_of(box)
    dashed = ",stroke-dasharray:4" if box.kind is Kind.ELSEWHERE else ""
    return f"fill:{colour.fill},stroke:{colour.line},color:{TEXT}{dashed}"


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)
