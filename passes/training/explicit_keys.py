"""Random numbers with explicit keys: after this pass nothing in a graph is random any more, but a function of its key.

Every node that draws random numbers is replaced by ones that compute them from a key (see `irgrad.ops.random`), which is
derived from the one further input that the graph gets. The same key gives the same result to the last bit, and common
subexpressions, constant folding and recomputation are sound again, since equal nodes give equal numbers.

Reference: Bradbury et al., JAX (2018), whose keys and `fold_in` these are after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Node, Role, Value
from irgrad.ops.dropout import DATA, RATIO, TRAINING, drops, scale_of
from irgrad.ops.elementwise import keep_where
from irgrad.ops.random import below, elem_type
from irgrad.passes.autodiff.expand import can_expand, expand, put_in_place
from irgrad.pipeline import Pass
from irgrad.types import TensorType

__all__ = ["ExplicitKeys", "draws"]

KEY_TYPE = TensorType(np.dtype(np.int64), ())


def draws(node: Node) -> bool:
    """Whether a node draws random numbers when it runs. A Dropout that drops nothing does not."""
    return node.op.random and (node.op.qualified_name != "Dropout" or drops(node))


@dataclass(frozen=True)
class ExplicitKeys(Pass):
    """Let random numbers depend on an input, an int64, and on nothing else.

    The key of a node is the graph's key with a hash of the node's name folded in, and of its attribute `seed` where it has
    one, so that nodes draw independently of each other, and that a node keeps its numbers when others come or go. Inside of
    a Loop or Scan the number of the iteration is folded in as well. A graph that draws nothing stays as it is. The ratio of
    a Dropout that is a constant, but no parameter, becomes a number, which has no derivative.

    Attributes:
        key: the name of the input. One that the graph has already, a single int64, is used.
    """

    name: ClassVar[str] = "explicit_keys"
    key: str = "key"

    def requires(self, graph: Graph) -> None:
        present = graph.inputs.get(self.key)
        if graph.has_value(self.key) and (present is None or present.type != KEY_TYPE):
            raise PassError(f"the name {self.key!r}, which the key's input needs, is taken; choose another (key=)")
        unknown: list[str] = []
        for node in (node for inner in graph.walk() for node in inner.nodes()):
            if draws(node) and node.role is Role.RECOMPUTE:
                raise PassError(
                    f"{node!r} draws again what another node drew; explicit_keys has to run before recomputation"
                )
            if (draws(node) and node.op.qualified_name not in _KEYED and not can_expand(node)) or (
                node.op.qualified_name not in _CARRIERS and _draw_inside(node)
            ):
                unknown.append(repr(node))
        if unknown:
            raise PassError(f"{len(unknown)} node(s) draw random numbers in a way that is not known: {'; '.join(unknown)}")

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        if not any(draws(node) for inner in graph.walk() for node in inner.nodes()):
            return False
        inputs = graph.inputs
        _replace_inside(graph, inputs[self.key] if self.key in inputs else graph.add_input(self.key, KEY_TYPE))
        return True


def _draw_inside(node: Node) -> bool:
    return any(draws(inner) for outer in node.subgraphs for graph in outer.walk() for inner in graph.nodes())


def _replace_inside(graph: Graph, key: Value) -> None:
    """Replace all nodes of a graph that draw random numbers, those of its subgraphs too."""
    waiting = deque(graph.nodes())
    while waiting:
        node = waiting.popleft()
        if not draws(node):
            if _draw_inside(node):
                b = Builder(graph)
                b.take_after(node)
                _CARRIERS[node.op.qualified_name](b, node, _key_of(b, node, key))
            continue
        emit = _KEYED.get(node.op.qualified_name)
        if emit is None:
            known = set(graph.nodes())
            expand(graph, node)
            waiting.extendleft(made for made in reversed(graph.nodes()) if made not in known)
            continue
        with Builder(graph) as b:
            b.take_after(node)
            results = emit(b, node, _key_of(b, node, key))
        put_in_place(graph, node, results)


def _key_of(b: Builder, node: Node, key: Value) -> Value:
    seed = node.attr("seed")
    text = node.name if seed is None or seed != seed else f"{node.name}:{seed}"
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    return b.op("irgrad.FoldIn", key, np.array(number))


# --- nodes with subgraphs hand their key in ---------------------------------------------------------------------------


def _into_branches(b: Builder, node: Node, key: Value) -> None:
    for branch in node.subgraphs:
        _replace_inside(branch, branch.add_input(branch.fresh_name("key"), KEY_TYPE))
    _capture(b.graph, node, key)


def _into_loop(b: Builder, node: Node, key: Value) -> None:
    (body,) = node.subgraphs
    number = next(iter(body.inputs.values()))
    captured = body.add_input(body.fresh_name("key"), KEY_TYPE)
    inner = Builder(body)
    if number.rank != 0:
        number = inner.op("Reshape", number, inner.ints([]))
    _replace_inside(body, inner.op("irgrad.FoldIn", captured, number))
    _capture(b.graph, node, key)


def _capture(graph: Graph, node: Node, key: Value) -> None:
    graph.set_operands(node, [*node.inputs, key])
    node.attrs["captured"] = node.attr("captured") + 1


def _into_scan(b: Builder, node: Node, key: Value) -> None:
    """One more operand is scanned: the keys of all iterations."""
    (body,) = node.subgraphs
    operands, scanned = node.inputs, node.attr("num_scan_inputs")
    end = len(operands) - node.attr("captured")
    sequence, axes = node.operand(end - scanned), node.attr("scan_input_axes")
    axis = axes[0] if axes else 0
    length = None if sequence.shape is None else sequence.shape[axis]
    if isinstance(length, int):
        trips = b.constant(np.array(length))
    else:
        trips = b.op("Gather", b.op("Shape", sequence), np.array(axis), axis=0)
    keys = b.op("irgrad.FoldIn", key, b.op("Range", np.array(0), trips, np.array(1)))
    b.graph.set_operands(node, [*operands[:end], keys, *operands[end:]])
    node.attrs["num_scan_inputs"] = scanned + 1
    for name in ("scan_input_axes", "scan_input_directions"):
        if name in node.attrs:
            node.attrs[name] = (*node.attrs[name], 0)
    # The captured values are the last inputs of the body: they make room by being added once more.
    captured = list(body.inputs.values())[end:]
    inner = body.add_input(body.fresh_name("key"), KEY_TYPE)
    for value in captured:
        twin = body.add_input(body.fresh_name(value.name), value.type)
        twin.contents, name = value.contents, value.name
        body.replace_all_uses(value, twin)
        body.erase(value)
        body.rename(twin, name)
    _replace_inside(body, inner)


_CARRIERS: dict[str, Callable[[Builder, Node, Value], None]] = {
    "If": _into_branches,
    "Loop": _into_loop,
    "Scan": _into_scan,
}


# --- one node ---------------------------------------------------------------------------------------------------------

Emit: TypeAlias = "Callable[[Builder, Node, Value], list[Value]]"
"""``emit(b, node, key)`` → what takes the place of the outputs of a node that draws."""


def _wide(dtype: np.dtype) -> np.dtype:
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def _shape(b: Builder, node: Node) -> Value:
    shape = node.attr("shape")
    return b.shape_of(node.operand(0)) if shape is None else b.ints(shape)


def _uniform(b: Builder, node: Node, key: Value) -> list[Value]:
    dtype, low, high = node.outputs[0].dtype, node.attr("low"), node.attr("high")
    if (low, high) == (0, 1):
        return [b.op("irgrad.RandomUniform", _shape(b, node), key, dtype=elem_type(dtype))]
    numbers = b.op("irgrad.RandomUniform", _shape(b, node), key, dtype=elem_type(_wide(dtype)))
    numbers = numbers * (high - low)
    numbers = b.cast(numbers + low if low else numbers, dtype)
    # Rounding may reach the upper end, which is not part of the interval.
    return [b.op("Min" if high >= low else "Max", numbers, np.asarray(below(high, low, dtype)))]


def _normal(b: Builder, node: Node, key: Value) -> list[Value]:
    dtype, mean, scale = node.outputs[0].dtype, node.attr("mean"), node.attr("scale")
    if (mean, scale) == (0, 1):
        return [b.op("irgrad.RandomNormal", _shape(b, node), key, dtype=elem_type(dtype))]
    numbers = b.op("irgrad.RandomNormal", _shape(b, node), key, dtype=elem_type(_wide(dtype))) * scale
    return [b.cast(numbers + mean if mean else numbers, dtype)]


def _bernoulli(b: Builder, node: Node, key: Value) -> list[Value]:
    p = node.operand(0)
    wide = _wide(p.dtype)
    numbers = b.op("irgrad.RandomUniform", b.shape_of(p), key, dtype=elem_type(wide))
    return [b.cast(numbers < b.cast(p, wide), node.outputs[0].dtype)]


def _multinomial(b: Builder, node: Node, key: Value) -> list[Value]:
    """The class of the largest log-probability after each got a Gumbel number of its own (the Gumbel-max trick)."""
    scores, count = node.operand(0), node.attr("sample_size")
    wide = _wide(scores.dtype)
    sizes = scores.tensor_type.static_shape
    if sizes is not None:
        shape = b.ints([sizes[0], count, sizes[1]])
    else:
        rows, classes = (b.op("Shape", scores, start=axis, end=axis + 1) for axis in (0, 1))
        shape = b.op("Concat", rows, b.ints([count]), classes, axis=0)
    numbers = b.op("irgrad.RandomUniform", shape, key, dtype=elem_type(wide))
    rows_of_scores = b.op("Unsqueeze", b.cast(scores, wide), b.ints([1]))
    noisy = rows_of_scores - b.op("Log", -b.op("Log", numbers))
    return [b.cast(b.op("ArgMax", noisy, axis=2, keepdims=0), node.outputs[0].dtype)]


def _dropout(b: Builder, node: Node, key: Value) -> list[Value]:
    x, ratio, training = node.operand(DATA), node.input(RATIO), node.operand(TRAINING)
    wide = _wide(x.dtype)
    dtype = x.dtype if x.type.differentiable else wide  # float8 has no arithmetic of its own
    numbers = b.op("irgrad.RandomUniform", b.shape_of(x), key, dtype=elem_type(wide))
    mask = numbers >= (0.5 if ratio is None else b.cast(ratio, wide))
    if training.constant is None:
        mask = b.op("Or", mask, b.op("Not", training))
    return [b.cast(keep_where(b, mask, b.cast(x, dtype) * scale_of(b, node, dtype)), x.dtype), mask]


_KEYED: dict[str, Emit] = {
    "Bernoulli": _bernoulli,
    "Dropout": _dropout,
    "Multinomial": _multinomial,
    "RandomNormal": _normal,
    "RandomNormalLike": _normal,
    "RandomUniform": _uniform,
    "RandomUniformLike": _uniform,
}
