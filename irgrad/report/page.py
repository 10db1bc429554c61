"""The page: what is in it and in which order. How it looks is page.css, what moves in it page.js.

Whatever comes out of a graph (names, above all) goes through `escape` where it becomes HTML, and through `_json` where it
becomes data for the script, which puts it into the page as text only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from irgrad.graph import Node, Role
from irgrad.literals import type_text
from irgrad.report.facts import Facts, total_bytes
from irgrad.report.plot import HEIGHT, LEFT, RIGHT, WIDTH, plot
from irgrad.report.units import bytes_text, count_text, flops_text
from irgrad.text import line_of

__all__ = ["page"]

_LINE = 400  # characters of a node's text line that are shown
_LINES_UP_TO = 10_000  # nodes: of more than that, the page would become too large with the text line of each
_SHOWN_AT_PEAK = 12
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(facts: Facts, title: str) -> str:
    """The whole page as text."""
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)} · irgrad report</title>",
            f"<style>{style}</style></head><body><main>",
            *_header(facts, title),
            '<noscript><p class="note">The tables below need JavaScript; the numbers and the plot do not.</p></noscript>',
            *_timeline(facts),
            *_tables(facts),
            *_assumptions(facts),
            "</main>",
            f'<script type="application/json" id="data">{_json(_data(facts))}</script>',
            f"<script>{script}</script>",
            "</body></html>",
            "",
        ]
    )


# --- what is written into the page itself -----------------------------------------------------------------------------


def _header(facts: Facts, title: str) -> Iterator[str]:
    graph = facts.graph
    told = [f"graph {graph.name}", f"opset {graph.opset}"]
    told += [f"{name} = {size:,}" for name, size in facts.sizes.items()]
    told += [f"{key}: {graph.metadata[key]}" for key in ("producer", "producer_name") if key in graph.metadata]
    chips = "".join(f"<span>{escape(text[:120])}</span>" for text in told)
    yield f'<header><h1>{escape(title)}</h1><p class="chips">{chips}</p></header>'
    yield '<section class="cards">'
    yield from _cards(facts)
    yield "</section>"


def _cards(facts: Facts) -> Iterator[str]:
    roles, nodes = facts.costs.roles, facts.lives.nodes
    counts = {role: sum(node.role is role for node in nodes) for role in roles}
    yield _card("nodes that run", f"{len(nodes):,}", [_part(role, f"{counts[role]:,}") for role in roles])
    forward, backward = (roles[r].flops if r in roles else 0 for r in (Role.FORWARD, Role.BACKWARD))
    costs = [_part(role, flops_text(cost.flops)) for role, cost in roles.items()]
    if forward and backward:
        costs.append(f"{backward / forward:.2f} × the forward")
    yield _card("arithmetic", flops_text(facts.costs.total().flops), costs)
    peak, step = facts.lives.peak
    at = [_part(role, bytes_text(live[step])) for role, live in facts.live.items() if live[step]]
    yield _card("peak of live results", bytes_text(peak), at)
    if facts.kept:
        kept = sum(kept.buffer.size for kept in facts.kept)
        yield _card("kept for backward", bytes_text(kept), [f"{len(facts.kept):,} forward results"])
    parameters = facts.graph.parameters
    elements = sum(array.size for array in parameters.values())
    size = sum(array.nbytes for array in parameters.values())
    yield _card("parameters", count_text(elements), [f"{len(parameters):,} tensors", bytes_text(size)])
    inputs = facts.costs.graph.inputs.values()
    yield _card("inputs", bytes_text(total_bytes(inputs)), [f"{v.name[:40]}: {type_text(v.type)}" for v in list(inputs)[:3]])


def _card(label: str, number: str, details: Sequence[str]) -> str:
    lines = "".join(f"<li>{line if line.startswith('<i') else escape(line)}</li>" for line in details)
    return f'<div class="card"><h2>{escape(label)}</h2><b>{escape(number)}</b><ul>{lines}</ul></div>'


def _part(role: Role, text: str) -> str:
    return f'<i class="dot {role.value}"></i>{escape(role.value)} {escape(text)}'


def _timeline(facts: Facts) -> Iterator[str]:
    nodes = facts.lives.nodes
    _, step = facts.lives.peak
    legend = "".join(f"<span>{_part(role, '')}</span>" for role in facts.live)
    yield '<section><h2>Live bytes over the step</h2><p class="legend">'
    yield f"{legend}<span>area: who made the memory · strip: who runs</span></p>"
    yield f'<figure id="timeline" data-left="{LEFT}" data-right="{RIGHT}" data-width="{WIDTH}" data-height="{HEIGHT}">'
    yield plot(facts.live, [node.role for node in nodes], nodes[step].name if nodes else "nothing")
    yield '<figcaption id="tip" hidden></figcaption></figure></section>'


def _tables(facts: Facts) -> Iterator[str]:
    if any(node.role is Role.BACKWARD for node in facts.lives.nodes):
        yield _table(
            "rules", "Forward against backward", "Each kind of operation, and what its adjoint rule has made of it."
        )
    yield _table("operations", "Operations", "What runs, by operation and role.")
    yield _table("peak", "Alive at the peak", f"The largest {_SHOWN_AT_PEAK} results in memory at that moment.")
    if facts.kept:
        yield _table(
            "kept",
            "Kept alive for the backward pass",
            "Forward results that backward nodes read, until when they stay, and which node is the last to need them.",
        )
    yield (
        '<section id="nodes-section"><h2>Node by node</h2><div class="controls">'
        '<input id="search" type="search" placeholder="Search names, operations, origins, rules, shapes…" '
        'aria-label="Search the nodes" autocomplete="off" spellcheck="false"><span id="filters"></span>'
        '<span id="found" role="status"></span></div><div class="grid" id="nodes"></div></section>'
    )


def _table(key: str, title: str, note: str) -> str:
    return (
        f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p><div class="grid" id="{key}"></div></section>'
    )


def _assumptions(facts: Facts) -> Iterator[str]:
    folded = len(facts.graph) - len(facts.lives.nodes)
    told = [
        "Everything here follows from types and shapes; nothing was run.",
        "Nodes run one after the other in the order of the graph, which is what the numpy interpreter does; a result is "
        "freed after its last use, and what the graph returns stays to the end.",
        "Live bytes are those of results of nodes. Inputs, parameters and other constants are not counted, nor is what a "
        "kernel needs while it works (the columns of a convolution, say).",
        "A view (Reshape, Transpose, Slice, …) takes no memory of its own and keeps the whole of what it looks at alive. "
        "Where numpy has to copy for a Reshape, that is counted, as far as it can be known.",
        "A multiplication and an addition are two operations, a function of one element is one. Elements of padding count. "
        "Bytes are those of the operands and results of a node, each read and written once.",
        "The rule of a backward node is the operation whose adjoint made it. Sums of the cotangents of a value that is used "
        "several times, seeds and zeros come from the adjoint pass itself.",
    ]
    if folded > 0:
        told.append(
            f"{folded:,} nodes of the graph do not run: shape arithmetic that became constants, or no output needs them."
        )
    if facts.costs.unknown or facts.lives.unknown:
        told.append(
            f"The sizes of {len(facts.lives.unknown):,} results are not known before the run (they depend on data), and the "
            f"costs of {len(facts.costs.unknown):,} nodes: they are missing in all sums, which are lower bounds."
        )
    if len(facts.lives.nodes) > _LINES_UP_TO:
        told.append(f"The text lines of the nodes are left out, as there are more than {_LINES_UP_TO:,}.")
    yield "<footer><h2>What is assumed</h2><ul>" + "".join(f"<li>{escape(text)}</li>" for text in told) + "</ul></footer>"


# --- what the script lays out -----------------------------------------------------------------------------------------


def _data(facts: Facts) -> dict[str, Any]:
    step = facts.positions
    with_lines = len(facts.lives.nodes) <= _LINES_UP_TO
    live = {role.value: sizes for role, sizes in facts.live.items()}
    return {
        "nodes": [_node(facts, node, with_lines) for node in facts.lives.nodes],
        "live": live,
        "roles": [role.value for role in facts.costs.roles],
        "peak": facts.lives.peak[1],
        "kept": [
            [
                kept.buffer.value.name,
                type_text(kept.buffer.value.type),
                kept.buffer.size,
                kept.buffer.begin,
                kept.buffer.end,
                kept.readers,
            ]
            for kept in facts.kept
        ],
        "rules": [
            [row.name, row.forward, row.forward_flops, row.backward, row.backward_flops, row.kept] for row in facts.rules()
        ],
        "operations": [
            [row.name, row.role.value, row.nodes, row.flops, row.read, row.written] for row in facts.operations()
        ],
        "at_peak": [
            [
                buffer.value.name,
                type_text(buffer.value.type),
                buffer.size,
                buffer.begin,
                None if buffer.returned else buffer.end,
            ]
            for _, buffer in zip(range(_SHOWN_AT_PEAK), facts.at_peak(), strict=False)
        ],
        "kept_by": {str(at): numbers for at, numbers in facts.kept_by.items()},
        "made_for": {
            str(step[node]): [step[other] for other in facts.costs.graph.backward_of(node) if other in step]
            for node in facts.lives.nodes
            if node.role is Role.FORWARD
        },
    }


def _node(facts: Facts, node: Node, with_line: bool) -> list[Any]:
    cost = facts.costs.rows[facts.positions[node]].cost
    kept = sum(facts.kept[number].buffer.size for number in facts.kept_by.get(facts.positions[node], ()))
    line = line_of(node) if with_line else ""
    expansion = "" if node.expansion is None else f"{node.expansion.op} {node.expansion.node}"
    return [
        node.name,
        node.op.qualified_name,
        node.role.value,
        node.origin or "",
        node.rule or "",
        expansion,
        node.changed_by or "",
        ", ".join(type_text(value.type) for value in node.outputs),
        *((None, None, None) if cost is None else cost),
        kept,
        line if len(line) <= _LINE else line[: _LINE - 1] + "…",
    ]


def _json(data: Any) -> str:
    """JSON that can stand inside of a script element: nothing in it ends that element or begins a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
