"""The lowest opset in which a node means what it means in today's.

The versions of an operation are walked backwards as long as the node is valid in the older one and means the same there:
the step was reviewed and changed nothing (`irgrad.frontends.onnx.upgrade.unchanged`), or it has an adapter, which brings
nodes up over the step, and which leaves this node as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from onnx import defs

from irgrad.builder import Builder
from irgrad.compare import attribute_key
from irgrad.errors import ModelTypeError
from irgrad.frontends.onnx.check import type_string
from irgrad.frontends.onnx.upgrade import OldNode
from irgrad.frontends.onnx.upgrade.registry import adapters_of
from irgrad.frontends.onnx.upgrade.unchanged import admitted, is_unchanged
from irgrad.graph import Graph, Node, Value
from irgrad.types import Type

__all__ = ["OLDEST", "lowest_opset", "misfit", "own_attributes", "own_inputs", "results_needed"]

OLDEST = 13
"""No model is written in an older opset: whatever reads the file format that metadata of nodes needs knows this one."""

_Option = defs.OpSchema.FormalParameterOption


def lowest_opset(node: Node) -> int:
    """The lowest opset of the node's domain in which it means the same; for ai.onnx at least `OLDEST`.

    The node has to be valid today, see `misfit`.
    """
    schema = node.op.schema
    assert schema is not None
    while node.op.domain == "" and schema.since_version > OLDEST:
        older = _version_before(schema.name, schema.since_version)
        if older is None or misfit(node, older) is not None or not _means_the_same_before(node, schema.since_version):
            break
        schema = older
    return max(int(schema.since_version), OLDEST if node.op.domain == "" else 1)


def own_inputs(node: Node) -> list[Value | None]:
    """The operands of a node without the captured ones and without those that are absent at the end."""
    inputs = list(node.inputs[: len(node.inputs) - node.attr("captured", 0)])
    fewest = 0 if node.op.schema is None else node.op.schema.min_input
    while len(inputs) > fewest and inputs[-1] is None:
        inputs.pop()
    return inputs


def results_needed(node: Node) -> int:
    """How many results a node must have in a file: those that nothing uses may be left out in a graph."""
    inner = [len(graph.outputs) for graph in node.subgraphs]
    if inner and node.op.qualified_name in ("If", "Loop", "Scan"):
        return inner[0] - (node.op.name == "Loop")  # the first output of a loop's body is its condition
    return 0 if node.op.schema is None else int(node.op.schema.min_output)


def own_attributes(node: Node) -> dict[str, Any]:
    """The attributes that ONNX has too."""
    return {name: value for name, value in node.attrs.items() if name != "captured"}


# --- valid at a version -----------------------------------------------------------------------------------------------


def misfit(node: Node, schema: Any) -> str | None:
    """Why a node is not valid by a schema: "has no attribute 'x'"; None where it is."""
    inputs, attributes = own_inputs(node), own_attributes(node)
    for name in attributes:
        if name not in schema.attributes:
            return f"has no attribute {name!r}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in attributes:
            return f"requires the attribute {name!r}"
    if not schema.min_input <= len(inputs) <= schema.max_input:
        return f"does not take {len(inputs)} operands"
    if len(node.outputs) > schema.max_output:
        return f"does not have {len(node.outputs)} outputs"
    bound: dict[str, str] = {}
    for formals, types in (
        (schema.inputs, [None if v is None else v.type for v in inputs]),
        (schema.outputs, [v.type for v in node.outputs]),
    ):
        for position, type in enumerate(types):
            formal = formals[min(position, len(formals) - 1)]
            problem = _type_problem(formal, type, bound)
            if problem is not None:
                return problem
    return None


def _type_problem(formal: Any, type: Type | None, bound: dict[str, str]) -> str | None:
    if type is None:
        return None if formal.option == _Option.Optional else f"requires its operand {formal.name!r}"
    kind = type_string(type)
    if kind not in formal.types:
        return f"does not take {type} as {formal.name!r}"
    if formal.is_homogeneous and bound.setdefault(formal.type_str, kind) != kind:
        return f"takes {formal.name!r} in the type of its other operands only"
    return None


@cache
def _version_before(name: str, since: int) -> Any:
    """The schema that a standard operation had before an opset; None where it did not exist or was deprecated."""
    try:
        schema = defs.get_schema(name, since - 1, "")
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema


# --- the same meaning -------------------------------------------------------------------------------------------------


def _means_the_same_before(node: Node, since: int) -> bool:
    """Whether a node that is valid before a step, too, means the same there."""
    words = admitted().get((node.op.name, since), ())
    if any(all(_uses(node, part) for part in word.split("+")) for word in words):
        return False
    return is_unchanged(node.op.name, since) or _is_left_as_it_is(node, since)


def _uses(node: Node, part: str) -> bool:
    """Whether a node has the value of an attribute ("mode=wrap"), or the element type somewhere ("float16")."""
    name, separator, value = part.partition("=")
    if separator:
        return str(node.attr(name)) == value
    return any(f"tensor({part})" in type_string(v.type) for v in (*node.inputs, *node.outputs) if v is not None)


def _is_left_as_it_is(node: Node, since: int) -> bool:
    """Whether the step has an adapter, and that would not change the node."""
    adapt = dict(adapters_of("", node.op.name)).get(since)
    if adapt is None:
        return False
    inputs, attributes = own_inputs(node), own_attributes(node)
    used = (True,) * len(node.outputs)
    old = OldNode(node.op.name, "", since - 1, list(inputs), dict(attributes), n_outputs=len(used), used=used)
    try:
        results = adapt(_Refusing(node.graph), old)
    except (_EmitsError, ModelTypeError):
        return False
    return (
        results is None
        and (old.op, old.n_outputs, old.inputs) == (node.op.name, len(node.outputs), inputs)
        and _keys(old.attrs) == _keys(attributes)
    )


def _keys(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attribute_key(value) for name, value in attributes.items()}


class _EmitsError(Exception):
    pass


class _Refusing(Builder):
    """A builder that adds nothing: what an adapter has to emit nodes for, it does not leave as it is."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)

    def node(self, *args: Any, **kwargs: Any) -> Node:
        raise _EmitsError

    def constant(self, *args: Any, **kwargs: Any) -> Value:
        raise _EmitsError
