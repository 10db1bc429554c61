"""Writing a graph and reading it back: what every graph has to survive."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx

import irgrad as ig
from irgrad.graph import Graph

_LARGE = 2**27


def written(graph: Graph, **options: Any) -> onnx.ModelProto:
    """The model of a graph, as bytes have it, once onnx's checker has passed it.

    The checker wants every input and output of a model to have a rank; one that has none is not checked. Nor is a model of
    hundreds of megabytes, which would take minutes.
    """
    model = ig.to_onnx(graph, **options)
    if model.ByteSize() > _LARGE:
        return model
    model = onnx.ModelProto.FromString(model.SerializeToString())
    if all(value.type.tensor_type.HasField("shape") for value in boundary(model) if value.type.HasField("tensor_type")):
        onnx.checker.check_model(model, full_check=True)
    return model


def boundary(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


def is_standard(graph: Graph) -> bool:
    return all(node.op.domain != "irgrad" for inner in graph.walk() for node in inner.nodes())


def assert_round_trips(graph: Graph) -> Graph:
    """A graph comes back as it was, with functions in any case, and without where all of its operations are standard ones.

    Of a fused group comes back what it is made of.

    Returns:
        What came back without functions.
    """
    kept = ig.load(written(graph, functions=True))
    if any(node.op.qualified_name == "irgrad.Fused" for node in graph.nodes()):
        assert Counter(n.op for n in kept.nodes()) == Counter(n.op for n in ig.apply(graph, "unfuse").nodes())
    else:
        assert ig.graphs_equal(graph, kept) is None
    lowered = ig.load(written(graph))
    assert is_standard(lowered)
    assert ig.graphs_equal(lowered, ig.load(written(lowered))) is None
    if is_standard(graph):
        assert ig.graphs_equal(graph, lowered) is None
    return lowered
