"""Subgraphs for the cases of If, Loop and Scan, as functions of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.ops.backward_body import set_named_outputs
from irgrad.types import SequenceType, TensorType, Type

F64 = TensorType(np.dtype(np.float64))
I64 = TensorType(np.dtype(np.int64))
NUMBER = I64.with_shape(())
CONDITION = TensorType(np.dtype(bool), ())
SEQUENCE = SequenceType(F64)
HEAD: Mapping[str, Type] = {"i": NUMBER, "c": CONDITION}


def subgraph(inputs: Mapping[str, Type], make: Callable[..., Sequence[Value]], name: str = "body") -> Graph:
    """A graph of named inputs whose outputs are what ``make(b, *inputs)`` returns."""
    graph = Graph(name)
    values = [graph.add_input(key, type) for key, type in inputs.items()]
    with Builder(graph) as b:
        set_named_outputs(graph, make(b, *values))
    return graph


def floats(*names: str) -> dict[str, Type]:
    return dict.fromkeys(names, F64)


def branch_on(b: Builder, condition: Value, captured: Sequence[Value], then: Callable, other: Callable) -> Value:
    """Emit an If with one result whose branches are functions of the captured values."""
    inputs = {f"v{k}": v.type for k, v in enumerate(captured)}
    attrs = {
        "then_branch": subgraph(inputs, lambda b, *v: [then(b, *v)], "then"),
        "else_branch": subgraph(inputs, lambda b, *v: [other(b, *v)], "else"),
        "captured": len(captured),
    }
    return b.node(find_op("If"), [condition, *captured], attrs).outputs[0]


def loop_over(
    b: Builder,
    limit: Value | int,
    states: Sequence[Value],
    captured: Sequence[Value],
    make: Callable[..., Sequence[Value]],
    going: Value | bool | None = None,
    outputs: int | None = None,
) -> tuple[Value, ...]:
    """Emit a Loop whose body is ``make(b, i, c, *states, *captured)``, which returns condition, states and slices."""
    inputs: dict[str, Type] = dict(HEAD)
    inputs.update(
        {f"s{k}": F64 if isinstance(v.type, TensorType) and v.type.differentiable else v.type for k, v in enumerate(states)}
    )
    inputs.update({f"v{k}": v.type for k, v in enumerate(captured)})
    body = subgraph(inputs, make)
    count = b.constant(np.array(limit)) if isinstance(limit, int) else limit
    condition = b.constant(np.array(going)) if isinstance(going, bool) else going
    attrs = {"body": body, "captured": len(captured)}
    return b.node(
        find_op("Loop"), [count, condition, *states, *captured], attrs, outputs=outputs or len(body.outputs) - 1
    ).outputs
