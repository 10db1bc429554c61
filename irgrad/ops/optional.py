"""Optionals: values that may be there or not.

At run time, an optional that holds something is that thing itself, and one that holds nothing is None. The cotangent of an
optional is an optional that holds something exactly where that one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph, Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, OpTable, find_op
from irgrad.ops.sequence_kernels import sum_of_sequences, zeros_of_sequence
from irgrad.ops.sequence_types import as_known_as, element_of_sum
from irgrad.runtime.kernels import deliver
from irgrad.types import OptionalType, TensorType, Type, types_compatible

ops = OpTable()


def _held(call: Call, index: int = 0) -> Type:
    """The type of what an operand holds, or is where it is no optional."""
    type = call.inputs[index] if call.has(index) else None
    if type is None:
        raise TypeInferenceError(f"{call.op.qualified_name} has no operand {index}, which it needs")
    return type.element if isinstance(type, OptionalType) else type


# --- made and looked into ---------------------------------------------------------------------------------------------

optional = ops.define("Optional")


@optional.kernel
def _optional(value: Any = None, *, type: Type | None = None, out: None = None) -> Any:
    return value


@optional.infer
def _optional_type(call: Call) -> Sequence[Type]:
    declared = call.attrs.get("type")
    if not call.has(0):
        if declared is None:
            raise TypeInferenceError("an Optional of nothing needs the attribute 'type', which says what it may hold")
        return [OptionalType(declared)]
    held = _held(call)
    if declared is not None and not types_compatible(declared, held):
        raise TypeInferenceError(f"an Optional of the type {declared} cannot hold a {held}")
    return [OptionalType(held)]


@optional.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    x = node.operand(0)
    # An optional that is handed on may hold nothing.
    return (dy if isinstance(x.type, OptionalType) else as_known_as(b.op("OptionalGetElement", dy), x),)


optional_get_element = ops.define("OptionalGetElement")


@optional_get_element.kernel
def _get_element(value: Any, *, out: np.ndarray | None = None) -> Any:
    if value is None:
        raise ValueError("the optional holds nothing; ask OptionalHasElement first")
    return value if out is None else deliver(value, out)


@optional_get_element.infer
def _get_element_type(call: Call) -> Sequence[Type]:
    return [_held(call)]


@optional_get_element.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (b.op("Optional", dy) if isinstance(node.operand(0).type, OptionalType) else dy,)


optional_has_element = ops.define("OptionalHasElement", gradient=ZERO)


@optional_has_element.kernel
def _has_element(value: Any = None, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.array(value is not None), out)


@optional_has_element.infer
def _has_element_type(call: Call) -> Sequence[Type]:
    return [TensorType(np.dtype(bool), ())]


# --- what adjoints need -----------------------------------------------------------------------------------------------

optional_sum = ops.define("OptionalSum", domain=IRGRAD_DOMAIN)
"""``OptionalSum(o, p, ...)``: the sum of what optionals hold; nothing where they hold nothing."""


@optional_sum.kernel
def _sum(*values: Any, out: None = None) -> Any:
    there = [value is not None for value in values]
    if any(there) != all(there):
        raise ValueError("of the optionals to add, some hold something and some do not")
    if not all(there):
        return None
    return sum_of_sequences(values) if isinstance(values[0], list) else sum_of_sequences([[v] for v in values])[0]


@optional_sum.infer
def _sum_type(call: Call) -> Sequence[Type]:
    return [OptionalType(element_of_sum([_held(call, k) for k in range(len(call.inputs))], "optionals"))]


@optional_sum.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [dy] * len(node.inputs)


@optional_sum.lower
def _(b: Builder, node: Node) -> Value:
    return _where_there(b, [node.operand(k) for k in range(len(node.inputs))], lambda inner, held: inner.total(held))


optional_zeros = ops.define("OptionalZeros", domain=IRGRAD_DOMAIN, gradient=ZERO)
"""``OptionalZeros(o)``: zeros of the shape of what an optional holds; nothing where it holds nothing."""


@optional_zeros.kernel
def _zeros(value: Any, *, out: None = None) -> Any:
    if value is None:
        return None
    return zeros_of_sequence(value) if isinstance(value, list) else zeros_of_sequence([value])[0]


@optional_zeros.infer
def _zeros_type(call: Call) -> Sequence[Type]:
    return [OptionalType(_held(call))]


@optional_zeros.lower
def _(b: Builder, node: Node) -> Value:
    return _where_there(b, [node.operand(0)], lambda inner, held: inner.zeros_like(held[0]))


def _where_there(b: Builder, optionals: Sequence[Value], compute: Callable[[Builder, list[Value]], Value]) -> Value:
    """An optional of what is computed from what optionals hold; nothing where they hold nothing."""
    branches = {name: Graph(name) for name in ("then_branch", "else_branch")}
    there = Builder(branches["then_branch"])
    read = [[graph.add_input(f"optional_{k}", o.type) for k, o in enumerate(optionals)] for graph in branches.values()]
    held = [there.op("OptionalGetElement", optional) for optional in read[0]]
    branches["then_branch"].set_outputs([there.op("Optional", compute(there, held))])
    branches["else_branch"].set_outputs([Builder(branches["else_branch"]).op("Optional", type=held[0].type)])
    condition = b.op("OptionalHasElement", optionals[0])
    return b.node(find_op("If"), [condition, *optionals], {**branches, "captured": len(optionals)}).outputs[0]
