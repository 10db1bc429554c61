"""The adjoint: backward nodes for a graph, by the chain rule from the outputs down.

`accumulate_adjoints` is the engine. It walks the nodes between the values asked for and the seeded outputs in reverse
topological order, calls each operation's rule once, undoes broadcasting and sums the cotangents of a value that is used
several times. Rules emit nodes, so that the result is an ordinary graph which can be differentiated again.

Reference: Griewank and Walther, Evaluating Derivatives, 2nd edition, SIAM 2008, chapter 3 (the reverse mode).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from irgrad.activity import active_values
from irgrad.builder import AdjointBuilder
from irgrad.errors import AdjointError, IrgradError, UnsupportedOpError
from irgrad.graph import Graph, Node, Value
from irgrad.op import ZERO, Op
from irgrad.passes.autodiff.expand import can_expand, expand
from irgrad.types import Dim, TensorType

__all__ = ["accumulate_adjoints"]


def accumulate_adjoints(
    graph: Graph,
    seeds: Mapping[Value, Value] | Sequence[tuple[Value, Value]],
    wrt: Sequence[Value],
    stop: Iterable[Value] = (),
    renewed: dict[Value, Value] | None = None,
) -> list[Value | None]:
    """Add backward nodes to `graph` that compute the cotangents of `wrt`.

    Args:
        graph: changed in place: backward nodes are added, and a node on the path that has no rule but an expansion is
            replaced by that.
        seeds: differentiated value → its cotangent, a value of the same type; as pairs, a value may come several times.
        wrt: floating-point values; inputs, constants or intermediates.
        stop: values that count as constants: no gradient flows through them to what they were computed from. One that is in
            `wrt` as well gets its own.
        renewed: is told which values an expansion has put in the place of others: old value → new value.

    Returns:
        The cotangent of each value of `wrt`, in order; None where no seeded value depends on it.

    Raises:
        AdjointError: a value of `wrt` carries no gradient (integers, booleans, strings).
        UnsupportedOpError: nodes on the path have neither a rule nor an expansion, or use a mode that their rule does not
            handle; all of them are named, those inside of subgraphs too. What was emitted until then is left behind.
    """
    for value in wrt:
        if not value.type.differentiable:
            raise AdjointError(f"there is no gradient with respect to {value!r}: only floating-point values carry gradients")
    renewed = {} if renewed is None else renewed
    pairs = list(seeds.items()) if isinstance(seeds, Mapping) else seeds
    path = _expanded_path(graph, [value for value, _ in pairs], wrt, stop, renewed)
    wrt = [renewed.get(value, value) for value in wrt]
    stopped = {renewed.get(value, value) for value in stop}
    active = active_values(graph, wrt, stopped)
    b = AdjointBuilder(graph, active, accumulate_adjoints)
    pending: dict[Value, list[Value]] = {}
    for value, seed in pairs:
        pending.setdefault(renewed.get(value, value), []).append(seed)
    results: dict[Value, Value | None] = {}
    refused: list[list[str]] = []
    for node in reversed(path):
        with b.at(origin=node.origin or node.name, expansion=node.expansion):
            cotangents = [None if v in stopped else _total(b, pending, v, results) for v in node.outputs]
            if all(c is None for c in cotangents):
                continue
            b.rule = node.op.qualified_name
            try:
                contributions = _apply_rule(b, node, cotangents)
            except UnsupportedOpError as error:
                inside = [f"{inner}, inside {node.name!r}" for inner in error.nodes]
                refused.append(inside or [f"{_describe(node)}: {error}"])
                # Nodes before this one are to be named too: any value of the operand's type serves to reach them.
                contributions = list(node.inputs)
            for position, (operand, cotangent) in enumerate(zip(node.inputs, contributions, strict=False)):
                if operand is not None and cotangent is not None and operand in active:
                    pending.setdefault(operand, []).append(_unbroadcast(b, node, position, operand, cotangent))
    if refused:
        nodes = [node for inner in reversed(refused) for node in inner]
        shown = "; ".join(nodes[:20]) + (f"; and {len(nodes) - 20} more" if len(nodes) > 20 else "")
        raise UnsupportedOpError(f"{len(nodes)} node(s) on the path cannot be differentiated: {shown}", nodes)
    for value in wrt:
        producer = value.producer
        with b.at(origin=None if producer is None else producer.name):
            results[value] = _total(b, pending, value, results)
    return [results[value] for value in wrt]


def _total(
    b: AdjointBuilder, pending: dict[Value, list[Value]], value: Value, results: dict[Value, Value | None]
) -> Value | None:
    """The cotangent of a value once all of its uses have contributed; the sum is emitted once."""
    if value in results:
        return results[value]
    parts = pending.pop(value, [])
    total = b.total(parts) if parts else None
    results[value] = total
    return total


# --- which nodes, which values ----------------------------------------------------------------------------------------


def _expanded_path(
    graph: Graph, outputs: Iterable[Value], wrt: Sequence[Value], stop: Iterable[Value], renewed: dict[Value, Value]
) -> list[Node]:
    """The nodes from `wrt` to `outputs`, after those have been expanded that have no rule but an expansion.

    Expanding makes new values in place of a node's outputs; `renewed` tells which.
    """
    while True:
        stopped = {renewed.get(value, value) for value in stop}
        active = active_values(graph, [renewed.get(value, value) for value in wrt], stopped)
        path = _path(graph, {renewed.get(value, value) for value in outputs} & active, active, stopped)
        bare = [node for node in path if node.op.gradient is None and can_expand(node)]
        if not bare:
            return path
        for node in bare:
            fresh = expand(graph, node)
            for old, value in renewed.items():
                renewed[old] = fresh.get(value, value)
            renewed.update(fresh)


def _path(graph: Graph, wanted: set[Value], active: set[Value], stopped: set[Value]) -> list[Node]:
    path: list[Node] = []
    for node in reversed(graph.nodes()):
        if node.op.gradient is ZERO or not any(v in wanted and v not in stopped for v in node.outputs):
            continue
        operands = [v for v in node.inputs if v is not None and v in active]
        if operands:
            path.append(node)
            wanted.update(operands)
    return path[::-1]


def _describe(node: Node) -> str:
    operands = ", ".join("_" if v is None else str(v.type) for v in node.inputs)
    return f"{node.name!r} = {node.op.qualified_name}({operands})"


# --- one node ---------------------------------------------------------------------------------------------------------


def _apply_rule(b: AdjointBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
    rule = node.op.gradient
    if not callable(rule):
        raise UnsupportedOpError("it has neither an adjoint rule nor an expansion")
    try:
        result = rule(b, node, *cotangents)
    except (IrgradError, AssertionError) as error:
        if isinstance(error, UnsupportedOpError):
            raise
        raise AdjointError(f"the adjoint rule of {_describe(node)} failed: {error}") from error
    contributions = [result] if result is None or isinstance(result, Value) else list(result)
    if len(contributions) > len(node.inputs):
        raise AdjointError(f"the adjoint rule of {_describe(node)} returned {len(contributions)} cotangents")
    contributions += [None] * (len(node.inputs) - len(contributions))
    if all(c is not None for v, c in zip(node.outputs, cotangents, strict=False) if v.type.differentiable):
        for position, (operand, contribution) in enumerate(zip(node.inputs, contributions, strict=True)):
            if contribution is None and b.needs(operand):
                raise UnsupportedOpError(f"its rule has no cotangent for the operand {_formal_name(node.op, position)}")
    return [None if c is ZERO else c for c in contributions]


def _formal_name(op: Op, position: int) -> str:
    """What the operand at a position is called in the operation's description."""
    formal = [] if op.schema is None else op.schema.inputs
    return repr(formal[min(position, len(formal) - 1)].name) if formal else str(position)


def _unbroadcast(b: AdjointBuilder, node: Node, position: int, value: Value, cotangent: Value) -> Value:
    """The cotangent summed over the axes along which the operand was broadcast, so that it has the operand's type."""
    if not isinstance(value.type, TensorType) or not isinstance(cotangent.type, TensorType):
        return cotangent
    if cotangent.dtype != value.dtype:
        raise AdjointError(
            f"the adjoint rule of {_describe(node)} returned a cotangent of type {cotangent.type} for %{value.name}, "
            f"which is {value.type}"
        )
    have, want = cotangent.shape, value.shape
    if have is not None and have == want and None not in have:
        return cotangent
    positions = node.op.broadcasts
    if positions is False or (positions is not True and position not in positions):
        if have is not None and want is not None and not _may_equal(have, want):
            raise AdjointError(
                f"the adjoint rule of {_describe(node)} returned a cotangent of shape {list(have)} for %{value.name}, "
                f"whose shape is {list(want)}"
            )
        return cotangent
    axes = _summed_axes(node, value, cotangent)
    if axes is None:
        return b.op("irgrad.SumTo", cotangent, b.shape_of(value))
    if not axes:
        return cotangent
    assert have is not None and want is not None
    extra = len(have) - len(want)
    summed = b.reduce_sum(cotangent, axes, keepdims=max(axes) >= extra)
    if max(axes) >= extra and extra:
        summed = b.reshape_like(summed, value)
    return summed


def _may_equal(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(
        not (isinstance(x, int) and isinstance(y, int)) or x == y for x, y in zip(a, b, strict=True)
    )


def _summed_axes(node: Node, value: Value, cotangent: Value) -> list[int] | None:
    """The axes of the cotangent to sum over, None where that cannot be told before shapes are known."""
    have, want = cotangent.shape, value.shape
    if have is None or want is None or len(want) > len(have):
        return None
    extra = len(have) - len(want)
    axes = list(range(extra))
    for axis in range(extra, len(have)):
        mine, its = want[axis - extra], have[axis]
        if mine == its and mine is not None:
            continue
        if mine == 1 and its is not None:
            # A symbol of size 1 would be summed over one element: right as well.
            axes.append(axis)
        elif (isinstance(mine, int) and mine != 1) or not _others_may_widen(node, value, len(have) - axis):
            continue
        else:
            return None
    return axes


def _others_may_widen(node: Node, value: Value, from_the_end: int) -> bool:
    """Whether another operand may be longer along an axis, counted from the last one, than a `value` of size 1 there."""
    if node.op.broadcasts is not True:
        return True  # the result's shape is not that of the operands broadcast together: Expand's is told by a number
    for other in node.inputs:
        if other is None or other is value:
            continue
        shape = other.shape
        if shape is None:
            return True
        if len(shape) >= from_the_end and shape[-from_the_end] not in (1, value.shape[-from_the_end] if value.shape else 1):
            return True
        if len(shape) >= from_the_end and shape[-from_the_end] is None:
            return True
    return False
