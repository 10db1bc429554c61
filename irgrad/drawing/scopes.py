"""Which part of a model a node belongs to: the scopes that exporters leave in names, and the anchors of backward nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from irgrad.graph import Graph, Node

__all__ = ["Path", "anchors", "common_stem", "reads_weight", "scopes"]

Path: TypeAlias = "tuple[str, ...]"
"""The scope of a node, outermost first: ``("encoder", "layer.0", "attention")``."""


DEEPEST = 16
"""Scopes inside of that many others count as one with the outermost of them."""


def scopes(nodes: Sequence[Node]) -> dict[Node, Path]:
    """The scope of each of `nodes`, which stand in program order.

    Exporters either write scopes into the names of nodes (``/encoder/layer.0/attention/MatMul``) or only into those of the
    parameters (``encoder.layer.0.attention.query.weight``), whose readers then belong to them. A node that neither tells
    about belongs to the innermost scope that holds both its neighbours in the program.
    """
    named = [_split(node.name, "/") if "/" in node.name else None for node in nodes]
    if 2 * sum(path is not None for path in named) < len(nodes):
        named = [_of_parameters(node) for node in nodes]
    following: list[Path] = []
    latest: Path = ()
    for path in reversed(named):
        latest = latest if path is None else path
        following.append(latest)
    following.reverse()
    known: dict[Node, Path] = {}
    previous = following[0] if following else ()
    last = max((index for index, path in enumerate(named) if path is not None), default=-1)
    for index, (node, path) in enumerate(zip(nodes, named, strict=True)):
        if path is not None:
            known[node] = previous = path
        else:
            known[node] = _common(previous, following[index] if index < last else previous)
    return known


def anchors(graph: Graph, forward: Sequence[Node]) -> dict[Node, Node]:
    """Node → the one of `forward` that it belongs to: itself, the one that it was made for, or that of its predecessor."""
    anchored = {node: node for node in forward}
    if not anchored:
        return {}
    others = [node for node in graph.nodes() if node not in anchored]
    first: Node | None = None
    waiting = []
    for node in others:
        made_for = _made_for(graph, node, anchored)
        first = first if made_for is None else made_for
        if first is None:
            waiting.append(node)
        else:
            anchored[node] = first
            anchored.update(dict.fromkeys(waiting, first))
            waiting.clear()
    anchored.update(dict.fromkeys(waiting, forward[-1]))
    return anchored


def reads_weight(node: Node) -> bool:
    """Whether a parameter of at least two dimensions is among the operands."""
    return any(v is not None and v.is_parameter and (v.rank or 0) >= 2 for v in node.inputs)


def common_stem(names: Sequence[str]) -> str:
    """What names have in common, cut at a separator: ``res2_0`` for ``res2_0_branch2a_w`` and ``res2_0_branch2b_b``."""
    first, last = min(names, default=""), max(names, default="")  # what these have in common, all have
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return re.sub(r"(^|[/._:])[^/._:]*$", "", first[:length])


def _made_for(graph: Graph, node: Node, anchored: dict[Node, Node]) -> Node | None:
    for _ in range(8):  # a node of a second derivative was made for one of the first
        if node.origin is None or not graph.has_node(node.origin):
            return None
        node = graph.node(node.origin)
        if node in anchored:
            return anchored[node]
    return None


def _of_parameters(node: Node) -> Path | None:
    for value in node.inputs:
        if value is not None and value.is_parameter:
            path = _split(value.name, "/" if "/" in value.name else ".")
            if path:
                return path
    return None


def _split(name: str, separator: str) -> Path:
    parts = [part for part in name.split(separator)[:-1] if part]
    joined: list[str] = []
    for part in parts:
        # "layer.0" of a parameter's name is one scope, as it is in the names of nodes.
        if part.isdigit() and joined and separator == ".":
            joined[-1] += f".{part}"
        else:
            joined.append(part)
    return tuple(joined[:DEEPEST])


def _common(a: Path, b: Path) -> Path:
    shared = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        shared += 1
    return a[:shared]
