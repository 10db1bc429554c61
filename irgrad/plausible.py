"""Plausible random feeds and weights for a graph, for a first look at a model without its data.

Integer inputs are kept in the range that their use asks for (rows of the table that they index, class indices of a loss),
weights are drawn as He et al. (Delving Deep into Rectifiers, 2015) propose, variances are positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import numpy as np

from irgrad.builder import typed_call
from irgrad.errors import UsageError
from irgrad.graph import Graph, Node, Value
from irgrad.runtime.kernels import evaluate
from irgrad.runtime.specialise import specialise
from irgrad.types import TensorType, is_differentiable

__all__ = ["plausible_feeds", "plausible_parameters"]

_LARGEST = 2**28  # elements of an input: more is surely a mistake in the file, not a wish
_UNKNOWN_DIM = 2
_VIEWS = ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def plausible_feeds(
    graph: Graph, given: Mapping[str, np.ndarray] | None = None, dims: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """An array for every input that is not given.

    Args:
        graph: the graph to feed.
        given: input name → array, for those that are there; their symbolic dimensions hold for the others too.
        dims: sizes of symbolic dimensions; 2 for those that neither this nor a given array tells.
        seed: of the random numbers.

    Returns:
        Input name → array, those given included.

    Raises:
        UsageError: an input has no shape or is no tensor, so that nothing plausible can be made up for it.
    """
    given = dict(given or {})
    sizes = dict(dims or {})
    inputs = graph.inputs
    for name, array in given.items():
        type = inputs[name].type if name in inputs else None
        if isinstance(type, TensorType) and type.shape is not None:
            sizes.update({d: n for d, n in zip(type.shape, array.shape, strict=False) if isinstance(d, str)})
    generator = np.random.default_rng(seed)
    return {name: given[name] if name in given else _feed(value, sizes, generator) for name, value in inputs.items()}


def _feed(value: Value, sizes: Mapping[str, int], generator: np.random.Generator) -> np.ndarray:
    type = value.type
    if not isinstance(type, TensorType) or type.shape is None:
        raise UsageError(f"nothing plausible can be made up for the input {value!r}; feed an array for it")
    shape = tuple(d if isinstance(d, int) else sizes.get(d or "", _UNKNOWN_DIM) for d in type.shape)
    if prod(shape) > _LARGEST:
        raise UsageError(f"the input {value!r} would take {prod(shape):,} elements; feed an array for it")
    if is_differentiable(type.dtype):
        return generator.standard_normal(shape).astype(type.dtype)
    if type.dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if type.dtype.kind in "iu":
        return generator.integers(0, _range(value), shape).astype(type.dtype)
    raise UsageError(f"nothing plausible can be made up for the input {value!r}; feed an array for it")


def _range(value: Value) -> int:
    """One more than the largest integer that makes sense for an integer value, judged by what reads it."""
    limits = [2]
    seen: set[Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in current.users:
            limit = _limit(node, current)
            if limit is not None:
                limits.append(limit)
            elif node.op.qualified_name in _VIEWS and node.inputs[0] is current:
                waiting.extend(node.outputs)
    return max(limits) if len(limits) == 1 else min(limits[1:])


def _limit(node: Node, value: Value) -> int | None:
    if node.op.name == "Gather" and node.input(1) is value:
        shape, axis = node.operand(0).shape, node.attr("axis", 0)
    elif node.op.name in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss") and node.input(1) is value:
        shape, axis = node.operand(0).shape, 1
    else:
        return None
    dim = shape[axis] if shape is not None else None
    return dim if isinstance(dim, int) else None


def plausible_parameters(graph: Graph, feeds: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """A random array for every parameter, such that signals keep their size through the whole network.

    Weights of products start from N(0, 2 / fan-in); then, in one forward run on the feeds, each is divided by the standard
    deviation of its product (LSUV: Mishkin and Matas, All You Need Is a Good Init, 2016), and the statistics of each
    normalisation become those of what it meets. Otherwise activations grow from block to block until a softmax at the end
    is saturated, and every gradient is zero.

    Args:
        graph: the graph, without feeds for its parameters.
        feeds: input name → array.
        seed: of the random numbers.

    Returns:
        Parameter name → array of its own shape and dtype.

    Raises:
        ExecutionError: a node cannot be run.
    """
    generator = np.random.default_rng(seed)
    known: dict[Value, Any] = dict(graph.constants)
    fitted = {value: _parameter(value, generator) for value in known if value.is_parameter}
    known |= fitted
    known |= {value: feeds[name] for name, value in graph.inputs.items()}
    shaped = specialise(graph, {name: TensorType.of(array) for name, array in feeds.items()})
    known = {shaped.value(value.name): array for value, array in known.items()}
    known |= {value: array for value, array in shaped.constants.items() if value not in known}
    fitted = {shaped.value(value.name): array for value, array in fitted.items()}
    free = set(fitted)
    for node in shaped.nodes():
        _fit(node, known, free)
        known.update(zip(node.outputs, _run(node, known), strict=True))
    return {value.name: known[value] for value in fitted}


def _run(node: Node, known: Mapping[Value, Any]) -> tuple[Any, ...]:
    call = typed_call(node)
    return evaluate(call, [None if v is None else known[v] for v in node.inputs])


def _fit(node: Node, known: dict[Value, Any], free: set[Value]) -> None:
    """Fit the parameters that a node reads directly to what it meets, each once."""
    if node.op.name == "BatchNormalization":
        x = known[node.operand(0)]
        axes = (0, *range(2, x.ndim))
        for position, statistic in ((3, x.mean(axes)), (4, np.maximum(x.var(axes), 1e-2))):
            value = node.operand(position)
            if value in free:
                free.remove(value)
                known[value] = statistic.astype(value.dtype)
    elif node.op.name in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        weight = next((v for v in node.inputs[:2] if v in free), None)
        if weight is not None and (weight.rank or 0) >= 2:
            free.remove(weight)
            spread = float(np.std(_run(node, known)[0]))
            known[weight] = np.asarray(known[weight] / max(spread, 1e-6), weight.dtype)


def _parameter(value: Value, generator: np.random.Generator) -> np.ndarray:
    shape = value.tensor_type.static_shape or ()
    node, position = _first_use(value)
    op = node.op.name if node is not None else ""
    if op == "BatchNormalization" and position == 4:
        array = generator.uniform(0.5, 1.5, shape)
    elif (op.endswith("Normalization") and position == 1) or (op == "Mul" and len(shape) <= 1):
        array = 1 + 0.1 * generator.standard_normal(shape)
    elif len(shape) <= 1:
        array = 0.1 * generator.standard_normal(shape)
    else:
        array = generator.standard_normal(shape) * sqrt(2 / max(1, _fan_in(node, shape)))
    return np.asarray(array, value.dtype)


def _first_use(value: Value) -> tuple[Node | None, int]:
    while value.users:
        node = value.users[0]
        if node.op.qualified_name not in _VIEWS:
            return node, node.inputs.index(value)
        value = node.outputs[0]
    return None, 0


def _fan_in(node: Node | None, shape: tuple[int, ...]) -> int:
    if node is None or node.op.name == "Gather":
        return 2
    if node.op.name == "Conv" or (node.op.name == "Gemm" and node.attr("transB")):
        return prod(shape[1:])
    return prod(shape[:-1]) if node.op.name == "Gemm" else shape[-2]
