"""Bundled models rebuilt in PyTorch from the same file: the same gradients. Skipped where torch is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.plausible import plausible_feeds, plausible_parameters

torch = pytest.importorskip("torch")


def padded(x: Any, attrs: dict[str, Any], value: float = 0.0) -> Any:
    top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=value)


def apply(op: str, attrs: dict[str, Any], x: list[Any]) -> Any:
    """One node at opset 9, by torch's own functions."""
    f = torch.nn.functional
    if op == "Conv":
        bias = x[2] if len(x) > 2 else None
        return f.conv2d(padded(x[0], attrs), x[1], bias, stride=attrs.get("strides", 1), groups=attrs.get("group", 1))
    if op == "BatchNormalization":
        return f.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=attrs.get("epsilon", 1e-5))
    if op == "MaxPool":
        return f.max_pool2d(padded(x[0], attrs, -np.inf), attrs["kernel_shape"], attrs["strides"])
    if op == "AveragePool":
        top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
        assert (top, left) == (bottom, right)
        return f.avg_pool2d(
            x[0], attrs["kernel_shape"], attrs.get("strides", 1), padding=(top, left), count_include_pad=False
        )
    if op == "LRN":
        return f.local_response_norm(x[0], attrs["size"], attrs["alpha"], attrs["beta"], attrs["bias"])
    if op == "Gemm":
        assert attrs.get("transB") == 1
        return x[0] @ x[1].T + x[2]
    simple = {
        "Relu": lambda: torch.relu(x[0]),
        "Sum": lambda: sum(x[1:], x[0]),
        "Concat": lambda: torch.cat(x, attrs["axis"]),
        "Dropout": lambda: x[0],
        "Softmax": lambda: torch.softmax(x[0], attrs.get("axis", 1)),
        "Reshape": lambda: x[0].reshape([x[0].shape[k] if int(d) == 0 else int(d) for k, d in enumerate(x[1])]),
        "Transpose": lambda: x[0].permute(attrs["perm"]),
    }
    return simple[op]()


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "shufflenet"])
def test_gradients_equal_torchs(name: str) -> None:
    torch.set_num_threads(2)
    graph = ig.load(bundled_model(name))
    arrays = plausible_feeds(graph)
    # In float64: a ReLU of two million that rounding puts on the other side of 0 is a visible difference in float32.
    feeds: dict[str, Any] = {n: a.astype(np.float64) for n, a in {**arrays, **plausible_parameters(graph, arrays)}.items()}
    graph = ig.apply(graph, "convert_float{to=f64}")
    model = onnx.load(bundled_model(name))
    env: dict[str, Any] = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}
    # torch takes the statistics of a batch norm for constants.
    statistics = {n for node in model.graph.node if node.op_type == "BatchNormalization" for n in node.input[3:]}
    env |= {key: torch.tensor(array, requires_grad=key not in statistics) for key, array in feeds.items()}
    for node in model.graph.node:
        if node.output[0] in env:
            continue  # a weight, fed in place of the file's constant
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        env[node.output[0]] = apply(node.op_type, attrs, [env[n] for n in node.input])
    (output,) = graph.outputs
    cotangent = np.random.default_rng(2).standard_normal(env[output].shape)
    (env[output] * torch.tensor(cotangent)).sum().backward()

    joint = ig.vjp(graph, [key for key in feeds if key not in statistics])
    results = ig.compile(joint)({**feeds, f"{output}_cotangent": cotangent})
    np.testing.assert_allclose(results[output], env[output].detach().numpy(), rtol=1e-9)
    for key, gradient in joint.gradients.items():
        # torch has no gradient for what the output does not depend on; ours is zeros.
        grad = env[key].grad
        expected = np.zeros_like(feeds[key]) if grad is None else grad.numpy()
        assert float(np.abs(results[gradient] - expected).max()) <= 1e-9 * float(np.abs(expected).max()), key
