"""Dead code elimination: nodes that nothing depends on, and what subgraphs take in or hand out for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from irgrad.graph import Graph, Node, Value
from irgrad.influence import StatePlaces
from irgrad.pipeline import Pass
from irgrad.rewrite import is_named

__all__ = ["DeadCode", "remove_dead"]

T = TypeVar("T")


@dataclass(frozen=True)
class DeadCode(Pass):
    """Erase the nodes that no output depends on, and the constants that nothing reads.

    Subgraphs are freed of it too: an If, Loop or Scan returns no more than is read of it, and captures no more than what
    its subgraphs read; a state that only serves itself is none.

    Inputs and parameters stay, since they are the signature: what can be fed to a graph can be fed to whatever is made of
    it. So does every value that has a gradient or is an output.
    """

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> bool:
        return remove_dead(graph)


def remove_dead(graph: Graph) -> bool:
    """Erase what no output depends on, in subgraphs too; True if there was anything.

    Inputs and parameters of the graph itself stay, and so do values that have a gradient.
    """
    changed = False
    for node in reversed(graph.nodes()):
        if not any(map(_is_live, node.outputs)):
            graph.erase(node)
            changed = True
        elif node.subgraphs:
            changed |= _trim(graph, node)
    for value in list(graph.constants):
        if not (value.is_parameter or _is_live(value)):
            graph.erase(value)
            changed = True
    return changed


def _is_live(value: Value) -> bool:
    return bool(value.users or value.is_output or is_named(value))


def _is_read(node: Node, index: int) -> bool:
    """Whether a node has an output at a position, and something reads it."""
    return index < len(node.outputs) and _is_live(node.outputs[index])


def _trim(graph: Graph, node: Node) -> bool:
    """Take away the outputs of a node that nobody reads, then what its subgraphs no longer need."""
    name = node.op.qualified_name
    changed = False
    if name == "If":
        count = max(len(inner.outputs) for inner in node.subgraphs)
        changed |= _drop_outputs(graph, node, 0, [k for k in range(count) if not _is_read(node, k)])
    elif name in ("Loop", "Scan"):
        changed |= _trim_iteration(graph, node)
    for inner in node.subgraphs:
        changed |= remove_dead(inner)
    if name == "Scan":
        changed |= _drop_scanned(graph, node)
    return _drop_captured(graph, node) or changed


def _drop_outputs(graph: Graph, node: Node, lead: int, dead: Sequence[int]) -> bool:
    """Take away outputs of a node, which are those of its subgraphs after the first `lead`."""
    for inner in node.subgraphs if dead else ():
        gone = {lead + k for k in dead}
        inner.set_outputs({name: v for k, (name, v) in enumerate(inner.outputs.items()) if k not in gone})
    for k in sorted(dead, reverse=True):
        if k < len(node.outputs):
            graph.remove_output(node, k)
    return bool(dead)


def _drop_captured(graph: Graph, node: Node) -> bool:
    inputs = [list(inner.inputs.values()) for inner in node.subgraphs]
    count = int(node.attr("captured", 0))
    dead = [k for k in range(-count, 0) if not any(_is_live(values[k]) for values in inputs)]
    for k in dead:
        for inner, values in zip(node.subgraphs, inputs, strict=True):
            inner.erase(values[k])
    if dead:
        graph.set_operands(node, _without(node.inputs, [len(node.inputs) + k for k in dead]))
        node.attrs["captured"] = count - len(dead)
    return bool(dead)


# --- Loop and Scan ----------------------------------------------------------------------------------------------------


def _trim_iteration(graph: Graph, node: Node) -> bool:
    """Take away the scan outputs that nobody reads, and the states that nothing else depends on."""
    (body,) = node.subgraphs
    places = StatePlaces.of(node)
    first, lead, n_states = places.first, places.lead, places.count
    live = _live_states(node, body, places)
    dead_states = [k for k in range(n_states) if k not in live]
    kept = [k for k in range(len(body.outputs) - lead - n_states) if _is_read(node, n_states + k)]
    dead_slices = [k for k in range(n_states, len(body.outputs) - lead) if k - n_states not in kept]
    for key in ("scan_output_axes", "scan_output_directions"):
        if node.attrs.get(key) is not None:
            node.attrs[key] = tuple(node.attrs[key][k] for k in kept)
    changed = _drop_outputs(graph, node, lead, [*dead_states, *dead_slices])
    if dead_states:
        remove_dead(body)
        inputs = list(body.inputs.values())
        for k in dead_states:
            body.erase(inputs[first + k])
        graph.set_operands(node, _without(node.inputs, [first + k for k in dead_states]))
    return changed


def _live_states(node: Node, body: Graph, places: StatePlaces) -> set[int]:
    """The states whose last value is read, or that something else depends on which is."""
    first, lead, n_states = places.first, places.lead, places.count
    inputs, after = list(body.inputs.values()), list(body.outputs.values())
    state_of = {inputs[first + k]: k for k in range(n_states)}
    roots = [k for k, v in enumerate(node.outputs) if _is_live(v)]
    live = {k for k in roots if k < n_states}
    waiting = [*after[:lead], *(after[lead + k] for k in roots)]
    seen = set(waiting)
    while waiting:
        value = waiting.pop()
        state = state_of.get(value)
        if state is not None:
            live.add(state)
            reached = [after[lead + state]]
        else:
            reached = [] if value.producer is None else [v for v in value.producer.inputs if v is not None]
        fresh = [v for v in dict.fromkeys(reached) if v not in seen]
        seen.update(fresh)
        waiting += fresh
    return live


def _drop_scanned(graph: Graph, node: Node) -> bool:
    """Take away the scanned operands that the body does not read; one stays, to say how often the body runs."""
    (body,) = node.subgraphs
    count = int(node.attrs["num_scan_inputs"])
    first = len(node.inputs) - int(node.attr("captured", 0)) - count
    inputs = list(body.inputs.values())[first : first + count]
    dead = [k for k, value in enumerate(inputs) if not _is_live(value)]
    dead = dead[1:] if len(dead) == count else dead
    if not dead:
        return False
    for k in dead:
        body.erase(inputs[k])
    graph.set_operands(node, _without(node.inputs, [first + k for k in dead]))
    node.attrs["num_scan_inputs"] = count - len(dead)
    for key in ("scan_input_axes", "scan_input_directions"):
        if node.attrs.get(key) is not None:
            node.attrs[key] = tuple(_without(node.attrs[key], dead))
    return True


def _without(items: Sequence[T], positions: Sequence[int]) -> list[T]:
    gone = set(positions)
    return [item for k, item in enumerate(items) if k not in gone]
