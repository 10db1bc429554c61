"""A drawing in Mermaid, which GitHub, GitLab and many editors show without anything being installed."""

from __future__ import annotations

from collections.abc import Iterator

from irgrad.drawing.colours import COLOURS, ELSEWHERE, PARAMETER, TEXT
from irgrad.drawing.diagram import Box, Diagram, EdgeKind, Kind

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

_CLASSES = {Kind.PARAMETER: "parameter", Kind.ELSEWHERE: "elsewhere"}

_ESCAPES = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "`": "#96;", "|": "#124;"}


def mermaid_of(diagram: Diagram) -> str:
    """The drawing as a Mermaid flowchart."""
    lines = ["flowchart TB", *_inside(diagram, "  ", "")]
    used = {_class(box) for part in diagram.walk() for box in part.boxes}
    colours = {role.value: colour for role, colour in COLOURS.items()} | {"parameter": PARAMETER, "elsewhere": ELSEWHERE}
    for name, colour in colours.items():
        if name in used:
            dashed = ",stroke-dasharray:4" if name == "elsewhere" else ""
            lines.append(f"  classDef {name} fill:{colour.fill},stroke:{colour.line},color:{TEXT}{dashed}")
    return "\n".join(lines) + "\n"


def _inside(diagram: Diagram, indent: str, prefix: str) -> Iterator[str]:
    columns = diagram.columns()
    role_of = {box.id: box.role for box in diagram.boxes}
    for role, boxes in columns.items():
        inner = indent
        if len(columns) > 1:
            yield f'{indent}subgraph {prefix}{role.value}_column["{role.value}"]'
            inner += "  "
        for box in boxes:
            opening, closing = _SHAPES[box.kind]
            label = "<br/>".join(map(_escaped, (box.title, *box.lines)))
            yield f'{inner}{box.id}{opening}"{label}"{closing}:::{_class(box)}'
        for body in diagram.bodies:
            if role_of[body.owner] is role:
                yield f'{inner}subgraph {body.id}["{_escaped(body.title)}"]'
                yield from _inside(body.diagram, f"{inner}  ", f"{body.id}_")
                yield f"{inner}end"
        if len(columns) > 1:
            yield f"{indent}end"
    for edge in diagram.edges:
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        arrow = "-->" if edge.kind is EdgeKind.DATA else "-.->"
        yield f"{indent}{edge.source} {arrow}{label} {edge.target}"


def _class(box: Box) -> str:
    return _CLASSES.get(box.kind, box.role.value)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)
