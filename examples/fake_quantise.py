"""Quantisation-aware training: 3-bit weights and activations, simulated in an imported model, with a straight-through rule.

The forward pass rounds; the backward pass takes the rounding for the identity inside of the range, and for a constant
outside (Bengio, Léonard and Courville, Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
Computation, 2013; Jacob et al., Quantization and Training of Neural Networks for Efficient Inference, CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import irgrad as ig

# --- the operation: to the nearest of 2^bits − 1 levels in [−limit, limit] --------------------------------------------

fake_quant = ig.Op("FakeQuant", domain="example", defaults={"limit": 1.0, "bits": 8})


def step_of(limit: float, bits: int) -> float:
    """The distance between two levels."""
    return limit / (2 ** (bits - 1) - 1)


@fake_quant.kernel
def _(x: np.ndarray, *, limit: float, bits: int, out: np.ndarray | None = None) -> np.ndarray:
    step = x.dtype.type(step_of(limit, bits))
    result = np.divide(np.clip(x, -limit, limit), step, out=out)
    return np.multiply(np.rint(result, out=result), step, out=result)


@fake_quant.infer
def _(call: ig.Call) -> Sequence[ig.Type]:
    return [call.tensor(0)]


@fake_quant.adjoint
def _(b: ig.AdjointBuilder, node: ig.Node, dy: ig.Value) -> ig.Value:
    """Straight through where x is in range. No finite difference would say so: it is a choice, and is made here."""
    inside = b.op("LessOrEqual", b.op("Abs", node.operand(0)), node.attr("limit"))
    return b.op("Where", inside, dy, b.scalar(0, dy))


@fake_quant.lower
def _(b: ig.Builder, node: ig.Node) -> ig.Value:
    """What it means in standard operations, so that the quantised model can be saved for other runtimes."""
    limit = node.attr("limit")
    clipped = b.op("Clip", node.operand(0), -limit, limit)
    step = step_of(limit, node.attr("bits"))
    return b.op("Round", clipped / step) * step


# --- the pass ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeQuantise(ig.Pass):
    """Quantise both operands of every product.

    Attributes:
        bits: of a number, the sign included.
        limits: name of a value → the largest magnitude that it is to represent.
    """

    name: ClassVar[str] = "fake_quantise"
    bits: int
    limits: dict[str, float]

    def run(self, graph: ig.Graph) -> bool:
        changed = False
        for node in graph.nodes():
            if node.op.name not in ("Conv", "Gemm", "MatMul"):
                continue
            for position in (0, 1):
                value = node.operand(position)
                attrs = {"limit": self.limits[value.name], "bits": self.bits}
                quantised = ig.Builder(graph, near=node).node(fake_quant, [value], attrs).outputs[0]
                graph.set_input(node, position, quantised)
                changed = True
        return changed


# --- a model, as somebody exported it: three spirals in a plane -------------------------------------------------------

rng = np.random.default_rng(0)
turn = np.linspace(0, 1, 200)
angles = [2 * np.pi * k / 3 + 3.5 * turn for k in range(3)]
points = np.concatenate([np.stack([turn * np.cos(a), turn * np.sin(a)], 1) for a in angles]).astype(np.float32)
points += 0.01 * rng.standard_normal(points.shape).astype(np.float32)
target = np.repeat(np.arange(3), 200)

sizes = [2, 32, 32, 3]
weights = {
    f"w{k}": (rng.standard_normal((m, n)) * np.sqrt(2 / m)).astype(np.float32) for k, (m, n) in enumerate(pairwise(sizes))
}
biases = {f"b{k}": np.zeros(n, np.float32) for k, n in enumerate(sizes[1:])}
layers = [
    helper.make_node("Gemm", ["x", "w0", "b0"], ["z0"]),
    helper.make_node("Relu", ["z0"], ["a0"]),
    helper.make_node("Gemm", ["a0", "w1", "b1"], ["z1"]),
    helper.make_node("Relu", ["z1"], ["a1"]),
    helper.make_node("Gemm", ["a1", "w2", "b2"], ["logits"]),
]
model = helper.make_model(
    helper.make_graph(
        layers,
        "spirals",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in {**weights, **biases}.items()],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
)


def train(graph: ig.Graph, parameters: dict[str, np.ndarray], steps: int, rate: float) -> dict[str, np.ndarray]:
    """Adam (Kingma and Ba, 2015) on all points at once."""
    step = ig.compile(ig.grad(graph, "parameters", loss="cross_entropy"))
    first, second = ({name: np.zeros_like(array) for name, array in parameters.items()} for _ in range(2))
    for t in range(1, steps + 1):
        results = step({"x": points, "target": target, **parameters})
        for name, array in parameters.items():
            slope = results[f"{name}_grad"]
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            update = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
            parameters = {**parameters, name: (array - rate * update).astype(np.float32)}
    return parameters


def accuracy(graph: ig.Graph, parameters: dict[str, np.ndarray]) -> float:
    """The share of the points that a model tells right."""
    logits = ig.compile(graph)({"x": points, **parameters})["logits"]
    return float((logits.argmax(1) == target).mean())


graph = ig.load(model)
trained = train(graph, graph.parameters, steps=400, rate=0.01)
print(f"float32: {accuracy(graph, trained):.1%} of the points are told right")

# The ranges: those of the trained weights, and of the activations on the data.
probe = graph.copy()
probe.set_outputs({value.name: value for node in probe.nodes() for value in node.outputs})
measured = {"x": points, **trained, **ig.compile(probe)({"x": points, **trained})}
limits = {name: float(np.abs(array).max()) for name, array in measured.items()}

quantised = ig.apply(graph, [FakeQuantise(3, limits)])
before = accuracy(quantised, trained)
tuned = train(quantised, trained, steps=200, rate=0.002)
after = accuracy(quantised, tuned)
print(f"3 bits, rounded after training: {before:.1%}")
print(f"3 bits, after 200 steps of quantisation-aware training: {after:.1%}")
if after <= before:
    raise SystemExit("training did not help")

for name, array in tuned.items():
    quantised.set_constant(quantised.value(name), array)
ig.save(quantised, "spirals-3bit.onnx")  # in standard operations only
print(f"saved as an ordinary model: {accuracy(ig.load('spirals-3bit.onnx'), {}):.1%}")
