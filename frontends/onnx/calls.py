"""Model-local functions: which there are, and that inlining them comes to an end of a reasonable size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import onnx
from onnx import AttributeProto, NodeProto, defs

from irgrad.errors import DuplicateNameError, FunctionRecursionError, ModelSizeError, ModelTypeError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.check import check_text, shown
from irgrad.frontends.onnx.names import free_names, subgraphs_of
from irgrad.graph import Value
from irgrad.op import find_op
from irgrad.types import type_to_proto

__all__ = ["FunctionKey", "check_calls", "domain_of", "expansion_of", "function_key", "functions_of", "kept_operations"]

FunctionKey: TypeAlias = "tuple[str, str, str]"
"""Domain, name and overload."""

_MOST_NODES = 5_000_000
_DEEPEST = 100


def domain_of(name: str) -> str:
    """The domain in its one spelling: the standard one has two."""
    return "" if name == "ai.onnx" else name


def function_key(node: NodeProto) -> FunctionKey:
    """The function that a node calls if the model has one of that name."""
    return domain_of(node.domain), node.op_type, node.overload


def functions_of(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """The model's functions.

    Raises:
        DuplicateNameError: two have the same domain, name and overload, or one lists a parameter twice.
        ModelParseError: a name is not UTF-8.
    """
    functions: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in model.functions:
        check_text("a function", function.domain, function.name, function.overload, *function.input, *function.output)
        key = (domain_of(function.domain), function.name, function.overload)
        if key in functions:
            raise DuplicateNameError(f"the model defines the function {_label(key)} twice")
        for kind, names in (
            ("input", list(function.input)),
            ("attribute", [*function.attribute, *(a.name for a in function.attribute_proto)]),
        ):
            if len(set(names)) != len(names):
                raise DuplicateNameError(f"the function {_label(key)} has two {kind}s of the same name")
        functions[key] = function
    return functions


def check_calls(model: onnx.ModelProto, functions: Mapping[FunctionKey, onnx.FunctionProto]) -> None:
    """Make sure that inlining all calls ends, and does not make an absurd number of nodes out of a small file.

    Raises:
        FunctionRecursionError: a function calls itself, directly or through others.
        ModelSizeError: the inlined model would be too large, or its calls nest too deeply.
    """
    if not functions:
        return
    callees = {key: _calls(function.node, functions) for key, function in functions.items()}
    sizes: dict[FunctionKey, tuple[int, int]] = {}  # nodes of the inlined body, depth of its calls
    for key in functions:
        _measure(key, callees, functions, sizes)
    total = sum(sizes[key][0] for key in _calls(model.graph.node, functions))
    if total > _MOST_NODES:
        raise ModelSizeError(f"the model's functions call each other so often that inlining them makes {total} nodes")


def kept_operations(functions: Mapping[FunctionKey, onnx.FunctionProto]) -> dict[FunctionKey, str]:
    """The functions of a file of irgrad's that stand for operations which are known here → the operation."""
    found = {}
    for key, function in functions.items():
        name = marks.marks_of(function).get(marks.OPERATION)
        if name is not None and find_op(name, key[0]).has_lowering:
            found[key] = name
    return found


def expansion_of(
    node: NodeProto, attributes: Mapping[str, AttributeProto], inputs: Sequence[Value | None], version: int
) -> onnx.FunctionProto | None:
    """The function that means the same as a node with subgraphs, where onnx has one: it is built around the subgraphs.

    What the subgraphs read of the scope around the node, they read in the function under the same names.

    Raises:
        ModelTypeError: one of these names is one that the function uses itself.
    """
    graphs = [a.g for a in attributes.values() if a.type == AttributeProto.GRAPH]
    if not graphs:
        return None
    domain = domain_of(node.domain)
    op = find_op(node.op_type, domain)
    if op.infer_rule is not None or op.schema is None:
        return None
    schema: Any = defs.get_schema(node.op_type, min(version, 2**31 - 1), domain)
    if not schema.has_context_dependent_function:
        return None
    whole = NodeProto()
    whole.CopyFrom(node)
    del whole.attribute[:]
    whole.attribute.extend(attributes.values())
    types = [b"" if v is None else type_to_proto(v.type).SerializeToString() for v in inputs]
    function = onnx.FunctionProto()
    try:
        function.ParseFromString(schema.get_context_dependent_function(whole.SerializeToString(), types))
    except (RuntimeError, ValueError) as error:
        raise ModelTypeError(f"{shown(node)} is not valid: {' '.join(str(error).split())}") from None
    made = {*function.input, *(name for inner in function.node for name in inner.output)}
    clash = made & {name for graph in graphs for name in free_names(graph)}
    if clash:
        raise ModelTypeError(
            f"{shown(node)} has a subgraph that reads {min(clash)!r}, a name that {node.op_type} uses itself"
        )
    return function


def _measure(
    start: FunctionKey,
    callees: Mapping[FunctionKey, list[FunctionKey]],
    functions: Mapping[FunctionKey, onnx.FunctionProto],
    sizes: dict[FunctionKey, tuple[int, int]],
) -> None:
    """Fill `sizes` for a function and all that it calls, by a depth-first search with a stack of its own."""
    path: dict[FunctionKey, Iterator[FunctionKey]] = {start: iter(dict.fromkeys(callees[start]))}
    while path:
        key, rest = next(reversed(path.items()))
        callee = next(rest, None)
        if callee is None:
            called = [sizes[c] for c in callees[key]]
            nodes = len(functions[key].node) + sum(n for n, _ in called)
            depth = 1 + max((d for _, d in called), default=0)
            if depth > _DEEPEST:
                raise ModelSizeError(f"the calls of functions nest more than {_DEEPEST} deep, under {_label(key)}")
            sizes[key] = nodes, depth
            del path[key]
        elif callee in path:
            chain = [*list(path)[list(path).index(callee) :], callee]
            raise FunctionRecursionError(
                f"the model's function {_label(callee)} calls itself: {' → '.join(_label(k) for k in chain)}"
            )
        elif callee not in sizes:
            path[callee] = iter(dict.fromkeys(callees[callee]))


def _calls(nodes: Iterable[NodeProto], functions: Mapping[FunctionKey, onnx.FunctionProto]) -> list[FunctionKey]:
    """The functions that nodes call, those in their subgraphs included, as often as they do."""
    found: list[FunctionKey] = []
    stack = [nodes]
    while stack:
        for node in stack.pop():
            key = function_key(node)
            if key in functions:
                found.append(key)
            stack += [graph.node for graph in subgraphs_of(node)]
    return found


def _label(key: FunctionKey) -> str:
    domain, name, overload = key
    return (f"{domain}." if domain else "") + name + (f":{overload}" if overload else "")
