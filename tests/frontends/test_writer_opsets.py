"""The opset that a model is written in: the lowest in which every node means what it means today."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, defs

import irgrad as ig
from irgrad.errors import ExportError, UsageError
from irgrad.frontends.onnx.opsets import OLDEST, lowest_opset
from irgrad.frontends.onnx.upgrade.registry import registered
from irgrad.frontends.onnx.upgrade.unchanged import admitted, is_unchanged
from irgrad.graph import OPSET, Graph, Node
from irgrad.op import find_op
from irgrad.types import TensorType
from tests.frontends.round_trip import assert_round_trips, written

X = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
ROW = np.ones(1, np.float32)
GRID = np.zeros((1, 2, 2, 2), np.float32)
AXIS, PADS, SIZES = np.array([1]), np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([1, 1, 8, 8])
HEADS = np.ones((1, 2, 3, 4), np.float32)
MASK = np.zeros((3, 1), np.float32)


def node(op: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> Node:
    """A node whose floating-point operands are inputs and whose other ones are constants."""
    graph = Graph(op)
    operands = []
    for position, array in enumerate(inputs):
        if array is None:
            operands.append(None)
        elif array.dtype.kind == "f":
            operands.append(graph.add_input(f"x{position}", TensorType.of(array)))
        else:
            operands.append(graph.add_constant(array, f"x{position}"))
    made = ig.Builder(graph).node(find_op(op), operands, attrs, outputs=outputs)
    graph.set_outputs(made.outputs)
    return made


HALF = X.astype(np.float16)

CASES: list[tuple[int, Node]] = [
    # Only element types were added since.
    (13, node("Add", X, X)),
    (14, node("Add", np.int8([1]), np.int8([1]))),
    (13, node("Relu", X)),
    (14, node("Relu", np.array([1]))),
    (13, node("Conv", X, np.ones((1, 1, 2, 2), np.float32))),
    (13, node("Sin", X)),
    (13, node("Identity", X)),
    (13, node("Cast", X, to=TensorProto.DOUBLE)),
    # Attributes and operands were added.
    (13, node("Shape", X)),
    (15, node("Shape", X, end=1)),
    (13, node("Reshape", X, np.array([16]))),
    (14, node("Reshape", X, np.array([16]), allowzero=1)),
    (13, node("Pad", X, PADS)),
    (18, node("Pad", X, np.array([1, 1]), None, AXIS)),
    (19, node("AveragePool", X, kernel_shape=(2, 2), dilations=(1, 1))),
    (13, node("AveragePool", X, kernel_shape=(2, 2))),
    # What schemas do not show.
    (19, node("Pad", X, PADS, mode="wrap")),
    (13, node("Pad", X, PADS, mode="edge")),
    (22, node("MaxPool", X, kernel_shape=(2, 2), ceil_mode=1)),
    (13, node("MaxPool", X, kernel_shape=(2, 2))),
    (13, node("Mod", np.array([5]), np.array([3]))),
    (13, node("Mod", X, X, fmod=1)),
    (28, node("Mod", X, X)),
    (13, node("Resize", X, None, None, SIZES)),
    (19, node("Resize", X, None, None, SIZES, coordinate_transformation_mode="half_pixel_symmetric")),
    (14, node("BatchNormalization", X, ROW, ROW, ROW, ROW)),
    (15, node("BatchNormalization", HALF, *[ROW.astype(np.float16)] * 4)),
    (19, node("Cast", X, to=TensorProto.FLOAT8E4M3FN)),
    (24, node("Cast", X, to=TensorProto.FLOAT8E4M3FNUZ)),
    (16, node("ScatterND", ROW, np.array([[0]]), ROW, reduction="add")),
    (18, node("ScatterND", ROW, np.array([[0]]), ROW, reduction="max")),
    # Steps with an adapter, which leaves some nodes as they are.
    (13, node("ReduceMean", X)),
    (18, node("ReduceMean", X, AXIS)),
    (18, node("ReduceLogSumExp", X, AXIS)),
    (13, node("ReduceSum", X, AXIS)),
    (13, node("Split", X, np.array([2, 2]), axis=2, outputs=2)),
    (18, node("Split", X, num_outputs=2, axis=2, outputs=2)),
    (16, node("GridSample", X, GRID, mode="nearest")),
    (20, node("GridSample", X, GRID, mode="linear")),
    (20, node("DFT", X[0, 0][:, :, None], None, np.array(0))),
    (23, node("Attention", HEADS, HEADS, HEADS)),
    (24, node("Attention", HEADS, HEADS, HEADS, MASK)),
    # Operations that came later.
    (17, node("LayerNormalization", X, np.ones(4, np.float32))),
    (20, node("Gelu", X)),
    (24, node("Swish", X)),
]


@pytest.mark.parametrize(("lowest", "case"), CASES, ids=lambda value: value.op.name if isinstance(value, Node) else value)
def test_lowest_opset(lowest: int, case: Node) -> None:
    assert lowest_opset(case) == lowest
    assert_round_trips(case.graph)
    for opset in (lowest, OPSET):
        model = written(case.graph, opset=opset)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert ig.graphs_equal(case.graph, ig.load(model)) is None
    if lowest > OLDEST:
        with pytest.raises(ExportError, match=f"cannot be said in opset {lowest - 1}, the graph needs {lowest}"):
            ig.to_onnx(case.graph, opset=lowest - 1)


def test_a_graph_needs_what_its_most_demanding_node_needs() -> None:
    graph = Graph("mixed")
    x = graph.add_input("x", TensorType.of(X))
    b = ig.Builder(graph)
    y = b.op("Swish", b.op("Gelu", b.op("Tanh", x)))
    graph.set_outputs({"y": y})
    assert written(graph).opset_import[0].version == 24
    with pytest.raises(ExportError, match="2 nodes cannot be said in opset 18") as caught:
        ig.to_onnx(graph, opset=18)
    assert caught.value.nodes == ("'Swish' (Swish) needs 24", "'Gelu' (Gelu) needs 20")


def test_a_subgraph_counts() -> None:
    inner = Graph("body")
    x = inner.add_input("x", TensorType.of(X))
    inner.set_outputs({"y": ig.Builder(inner).op("Gelu", x)})
    graph = Graph("outer")
    flag, x = graph.add_input("flag", TensorType(np.dtype(bool), ())), graph.add_input("x", TensorType.of(X))
    branches = {"then_branch": inner, "else_branch": inner.copy(), "captured": 1}
    graph.set_outputs(ig.Builder(graph).node(find_op("If"), [flag, x], branches).outputs)
    assert written(graph).opset_import[0].version == 20


def test_a_function_counts() -> None:
    graph = Graph("pooled")
    x = graph.add_input("x", TensorType.of(X))
    graph.set_outputs({"y": ig.Builder(graph).op("MaxPool", x, kernel_shape=(2, 2), strides=(1, 1))})
    joint = ig.vjp(graph)
    assert any(n.op.domain == "irgrad" for n in joint.nodes())
    model = written(joint, functions=True)
    assert {o.version for f in model.functions for o in f.opset_import} == {model.opset_import[0].version}
    assert model.opset_import[0].version == written(joint).opset_import[0].version


@pytest.mark.parametrize("opset", [0, 12, 29])
def test_opsets_that_are_not_written(opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset={opset}: models are written in opset 13 to 28"):
        ig.to_onnx(CASES[0][1].graph, opset=opset)


def test_what_the_table_says_was_admitted_belongs_to_real_steps() -> None:
    adapted = {(name, since) for domain, name, since in registered() if domain == ""}
    for (name, since), words in admitted().items():
        schema = defs.get_schema(name, since)
        assert schema.since_version == since > OLDEST
        assert is_unchanged(name, since) or (name, since) in adapted
        assert words
        for attribute in (part.partition("=")[0] for word in words for part in word.split("+") if "=" in part):
            assert attribute in schema.attributes
