"""The function bodies of standard operations: all of them load, whatever opset they are written in, and mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import defs

from irgrad.builder import Builder
from irgrad.frontends.onnx.functions import emit_function_body, has_function_body
from irgrad.graph import OPSET, Graph, Value
from irgrad.op import find_op
from irgrad.runtime import compile
from irgrad.types import TensorType

F32 = np.float32
X = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(F32)
IMAGE = np.random.default_rng(1).standard_normal((1, 4, 4, 6)).astype(F32)
SCORES = np.random.default_rng(2).standard_normal((3, 5)).astype(F32)
LABELS = np.array([0, 4, 2])
HEADS = [np.random.default_rng(k).standard_normal((1, 2, 3, 4)).astype(F32) for k in range(3)]
ANGLES = np.random.default_rng(3).standard_normal((2, 3, 2)).astype(F32)


@dataclass(frozen=True)
class Application:
    """One application of an operation that has a function body.

    Attributes:
        compared: whether the body gives the same numbers each time.
        dynamic: whether there is a body where no size is known.
    """

    op: str
    operands: Sequence[np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    id: str = ""
    compared: bool = True
    dynamic: bool = True


def f32(*values: float) -> np.ndarray:
    return np.array(values, F32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


APPLICATIONS = [
    # Two samples: the body squeezes the axis of a single one away.
    Application("AffineGrid", [np.arange(12, dtype=F32).reshape(2, 2, 3), i64(2, 1, 2, 3)]),
    Application("Attention", HEADS),
    Application("Bernoulli", [np.abs(SCORES) / 10], {"seed": 1.0}, compared=False),
    Application("BlackmanWindow", [np.array(8)]),
    Application("CastLike", [X, np.zeros(1)]),
    Application("CausalConvWithState", [X, np.random.default_rng(4).standard_normal((4, 1, 3)).astype(F32)], outputs=2,
                dynamic=False),
    Application("Celu", [X], {"alpha": 0.5}),
    Application("CenterCropPad", [X, i64(3, 8)], {"axes": (1, 2)}),
    Application("Clip", [X, np.array(-0.5, F32), np.array(0.5, F32)]),
    Application("Clip", [X, None, np.array(0.5, F32)], id="one bound"),
    Application("DepthToSpace", [IMAGE], {"blocksize": 2, "mode": "CRD"}),
    Application("DynamicQuantizeLinear", [X], outputs=3),
    Application("Elu", [X], {"alpha": 0.5}),
    Application("Gelu", [X]),
    Application("Gelu", [X], {"approximate": "tanh"}, id="tanh"),
    Application("GreaterOrEqual", [X, X[::-1].copy()]),
    Application("GroupNormalization", [IMAGE, f32(1, 2, 3, 4), f32(4, 3, 2, 1)], {"num_groups": 2}),
    Application("HammingWindow", [np.array(8)]),
    Application("HannWindow", [np.array(8)], {"periodic": 0}),
    Application("HardSigmoid", [X], {"alpha": 0.3}),
    Application("HardSwish", [X]),
    Application("LayerNormalization", [X, f32(1, 2, 3, 4, 5, 6)], outputs=3),
    Application("LeakyRelu", [X], {"alpha": 0.1}),
    Application("LessOrEqual", [X, X[::-1].copy()]),
    Application("LinearAttention", [h.reshape(1, 3, 8) for h in HEADS],
                {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}, outputs=2),
    Application("LogSoftmax", [X], {"axis": 1}),
    Application("MeanVarianceNormalization", [IMAGE]),
    Application("Mish", [X]),
    Application("NegativeLogLikelihoodLoss", [SCORES, LABELS, f32(1, 2, 3, 4, 5)], {"ignore_index": 2}),
    Application("PRelu", [X, f32(0.25)]),
    Application("RMSNormalization", [X, f32(1, 2, 3, 4, 5, 6)]),
    Application("Range", [np.array(0.5, F32), np.array(3, F32), np.array(0.5, F32)]),
    Application("ReduceL1", [X, i64(1)]),
    Application("ReduceL2", [X, i64(1)], {"keepdims": 0}),
    Application("ReduceLogSum", [np.abs(X), i64(1)]),
    Application("ReduceLogSumExp", [X, i64(1)]),
    Application("ReduceSumSquare", [X]),
    Application("Relu", [X]),
    Application("RotaryEmbedding", [HEADS[0], ANGLES[:1], ANGLES[1:]]),
    Application("Selu", [X]),
    Application("Shrink", [X], {"lambd": 0.4, "bias": 0.1}),
    Application("Softmax", [X], {"axis": 1}),
    Application("SoftmaxCrossEntropyLoss", [SCORES, LABELS], outputs=2),
    Application("Softplus", [X]),
    Application("Softsign", [X]),
    Application("SpaceToDepth", [IMAGE], {"blocksize": 2}),
    Application("SwiGLU", [X, 2 * X]),
    Application("Swish", [X], {"alpha": 2.0}),
    Application("ThresholdedRelu", [X], {"alpha": 0.5}),
]  # fmt: skip


def with_function_bodies() -> set[str]:
    """The standard operations whose schema at today's opset has a function body and that take no subgraph."""
    found = set()
    for name in {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}:
        schema: Any = defs.get_schema(name, OPSET)
        graphs = any(a.type == defs.OpSchema.AttrType.GRAPH for a in schema.attributes.values())
        if (schema.has_function or schema.has_context_dependent_function) and not graphs:
            found.add(name)
    return found


def test_every_operation_with_a_body_is_here() -> None:
    assert with_function_bodies() == {application.op for application in APPLICATIONS}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", APPLICATIONS, ids=lambda case: f"{case.op}-{case.id}" if case.id else case.op)
def test_body_means_the_same(case: Application, dynamic: bool) -> None:
    graph, feeds = Graph(case.op), dict[str, Any]()
    operands: list[Value | None] = []
    for k, array in enumerate(case.operands):
        if array is None:
            operands.append(None)
        else:
            shape = (None,) * array.ndim if dynamic else array.shape
            operands.append(graph.add_input(f"x{k}", TensorType(array.dtype, shape)))
            feeds[f"x{k}"] = array
    b = Builder(graph)
    node = b.node(find_op(case.op), operands, case.attrs, outputs=case.outputs)
    assert has_function_body(node) == (case.dynamic or not dynamic)
    if not has_function_body(node):
        return
    with b:
        results = emit_function_body(b, node)
    assert len(results) == case.outputs
    assert all(value.producer is None or value.producer.op is not node.op for value in results)
    graph.set_outputs({f"y{k}": value for k, value in enumerate((*node.outputs, *results))})
    if not case.compared:
        return
    values = list(compile(graph)(feeds).values())
    for want, got in zip(values[: case.outputs], values[case.outputs :], strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=1e-6)
