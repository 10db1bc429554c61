"""Common subexpressions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irgrad.compare import array_key, attribute_key
from irgrad.graph import Graph, Node, Role, Value
from irgrad.pattern import COMMUTATIVE
from irgrad.pipeline import Pass
from irgrad.rewrite import is_named, take_place
from irgrad.types import TensorType

__all__ = ["CommonSubexpressions"]

_ROLES = (Role.FORWARD, Role.BACKWARD, Role.UPDATE)  # of two nodes, the merged one has the role that stands first here


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge nodes that compute the same from the same operands, shapes of the same sizes, and constants that hold the same.

    The earlier one stays, under its name. Random numbers, subgraphs, operations of which nothing is known and nodes of the
    role "recompute" (which repeat others on purpose) are never merged, nor are parameters.
    """

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> bool:
        changed = False
        for inner in graph.walk():
            changed |= _merge_constants(inner) | _merge_nodes(inner)
        return changed


def _merge_constants(graph: Graph) -> bool:
    alike: dict[Hashable, list[Value]] = {}
    for value, array in graph.constants.items():
        if not value.is_parameter:
            alike.setdefault((array.dtype, array.shape, _sample(array)), []).append(value)
    changed = False
    for values in alike.values():
        if len(values) > 1:  # only then are large arrays looked at as a whole
            changed |= _merge_equal(graph, values)
    return changed


def _sample(array: np.ndarray) -> Hashable:
    return array_key(array.reshape(-1)[:16])


def _merge_equal(graph: Graph, values: Iterable[Value]) -> bool:
    changed = False
    first: dict[Hashable, Value] = {}
    for value in values:
        array = value.constant
        assert array is not None
        kept = first.setdefault(array_key(array), value)
        if kept is not value:
            if value.users or value.is_output:
                graph.replace_all_uses(value, kept)
                changed = True
            if not is_named(value):
                graph.erase(value)
                changed = True
    return changed


def _merge_nodes(graph: Graph) -> bool:
    changed = False
    numbers: dict[Value, int] = {}
    first: dict[Hashable, Node] = {}
    for node in graph.nodes():
        if not _can_merge(node):
            continue
        kept = first.setdefault(_key(node, numbers), node)
        if kept is not node:
            changed |= _replace(graph, node, kept)
    return changed


def _can_merge(node: Node) -> bool:
    op = node.op
    told = op.schema is not None or op.has_kernel or op.has_lowering or op.infer_rule is not None
    return told and not op.random and node.role is not Role.RECOMPUTE and not node.subgraphs


def _key(node: Node, numbers: dict[Value, int]) -> Hashable:
    """Equal only for nodes that compute the same; `numbers` numbers the operands as they are met."""
    if len(node.outputs) == 1 and isinstance(node.outputs[0].type, TensorType):
        contents, type = node.outputs[0].contents, node.outputs[0].type
        if contents and None not in contents and type.static_shape is not None:
            # A shape is the same shape whatever it was read from: a symbol is one size everywhere.
            return type, contents
    operands = [-1 if value is None else numbers.setdefault(value, len(numbers)) for value in node.inputs]
    while operands and operands[-1] == -1:
        operands.pop()
    if node.op.qualified_name in COMMUTATIVE:
        operands.sort()
    attrs = {**node.op.defaults, **node.attrs}
    return node.op, len(node.outputs), tuple(operands), tuple((key, attribute_key(attrs[key])) for key in sorted(attrs))


def _replace(graph: Graph, node: Node, kept: Node) -> bool:
    named = any(map(is_named, node.outputs))
    if named and not any(value.users or value.is_output for value in node.outputs):
        return False  # it was merged before, and stays for its name
    for old, new in zip(node.outputs, kept.outputs, strict=True):
        take_place(old, new)
    if _ROLES.index(node.role) < _ROLES.index(kept.role):
        kept.role, kept.origin, kept.rule, kept.expansion = node.role, node.origin, node.rule, node.expansion
    if not named:
        graph.erase(node)
    return True
