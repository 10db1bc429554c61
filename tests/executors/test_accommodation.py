"""What onnxruntime takes otherwise than ONNX has it: graphs that it refuses, or fails on, without the executor's help."""

from __future__ import annotations

import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.executors.accommodation import reuse_is_unsafe
from irgrad.graph import Graph
from irgrad.testing import assert_close
from irgrad.types import Dim, TensorType

pytest.importorskip("onnxruntime")

F32 = np.dtype(np.float32)
BATCH, STEPS, KEYS, HEADS, SIZE = 2, 3, 5, 2, 4


def agrees(graph: Graph) -> None:
    """onnxruntime gives the results and gradients of numpy."""
    joint = ig.vjp(graph)
    sizes = {"batch": BATCH, "steps": STEPS, "keys": KEYS}
    generator = np.random.default_rng(0)
    feeds = {}
    for name, value in joint.inputs.items():
        shape = value.shape
        assert shape is not None
        feeds[name] = generator.standard_normal([d if isinstance(d, int) else sizes[d or "keys"] for d in shape], np.float32)
    want = ig.compile(joint)(feeds)
    for name, result in ig.compile(joint, executor="onnxruntime")(feeds).items():
        assert_close(result, want[name], name, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, "batch", BATCH])
@pytest.mark.parametrize("packed", [False, True])
def test_rotary_caches_for_a_batch_of_one(batch: Dim, packed: bool) -> None:
    """As PyTorch's exporter writes them; onnxruntime wants the batch of X."""
    graph = Graph()
    shape = (batch, "steps", HEADS * SIZE) if packed else (batch, HEADS, "steps", SIZE)
    x = graph.add_input("x", TensorType(F32, shape))
    cos, sin = (graph.add_input(name, TensorType(F32, (1, "steps", SIZE // 2))) for name in ("cos", "sin"))
    graph.set_outputs({"y": Builder(graph).op("RotaryEmbedding", x, cos, sin, num_heads=HEADS if packed else None)})
    agrees(graph)


def attentions(first: Dim, second: Dim) -> Graph:
    """An attention over one number of keys, and over another, as in a decoder; their scores are squared."""
    graph = Graph()

    def operand(name: str, steps: Dim) -> ig.Value:
        return graph.add_input(name, TensorType(F32, ("batch", HEADS, steps, SIZE)))

    y = operand("q", "steps")
    b = Builder(graph)
    outputs = {}
    for k, keys in enumerate((first, second)):
        operands = [y, operand(f"k{k}", keys), operand(f"v{k}", keys)]
        y, _, _, scores = b.multi("Attention", *operands, outputs=4, qk_matmul_output_mode=3)
        outputs[f"squares{k}"] = b.op("ReduceSum", b.op("Mul", scores, scores), keepdims=0)
    graph.set_outputs({"y": y, **outputs})
    return graph


@pytest.mark.parametrize(
    ("first", "second", "unsafe"),
    [("keys", "steps", True), ("steps", None, True), (None, None, True), ("steps", "steps", False), (KEYS, "steps", False)],
)
def test_scores_of_attentions_over_different_numbers_of_keys(first: Dim, second: Dim, unsafe: bool) -> None:
    """Buffers are used again where it is safe only, and the results are right in any case."""
    graph = attentions(first, second)
    assert reuse_is_unsafe(graph) == unsafe
    agrees(graph)
