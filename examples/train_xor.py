"""Train a small network with plain gradient descent: the joint graph gives the gradients, numpy does the steps.

The model is an ordinary ONNX file, made here with onnx.helper. Parameters are fed, so that they can change between runs.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import irgrad as ig

rng = np.random.default_rng(0)
start = {
    "w1": rng.standard_normal((2, 8)).astype(np.float32),
    "b1": np.zeros(8, np.float32),
    "w2": rng.standard_normal((8, 1)).astype(np.float32),
    "b2": np.zeros(1, np.float32),
}
model = helper.make_model(
    helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["z1"]),
            helper.make_node("Tanh", ["z1"], ["a1"]),
            helper.make_node("Gemm", ["a1", "w2", "b2"], ["logit"]),
        ],
        "xor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(array, name) for name, array in start.items()],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
)
onnx.save(model, "xor.onnx")

graph = ig.load("xor.onnx")
step = ig.compile(ig.grad(graph, wrt="parameters", loss="bce_with_logits"))

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
target = np.array([[0], [1], [1], [0]], np.float32)
parameters = graph.parameters
for epoch in range(1001):
    results = step({"x": x, "target": target, **parameters})
    parameters = {name: array - 0.5 * results[f"{name}_grad"] for name, array in parameters.items()}
    if epoch % 250 == 0:
        print(f"epoch {epoch:4d}  loss {results['loss']:.4f}")

predicted = ig.compile(graph)({"x": x, **parameters})["logit"] > 0
if not np.array_equal(predicted, target.astype(bool)):
    raise SystemExit("did not learn XOR")
print("learned XOR")
