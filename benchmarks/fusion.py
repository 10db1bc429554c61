"""Fused against unfused, and against PyTorch: parts of training steps that are bound by memory.

    python -m benchmarks.fusion --rounds 15

All forms run in one process, taken in turns. "unfused" and "fused" run on numpy alone, "compiled" ones with numba.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isnan, nan
from typing import Any

import numpy as np

import irgrad as ig
from benchmarks.timing import interleaved
from irgrad.builder import Builder
from irgrad.graph import Graph, Role, Value
from irgrad.runtime import fast
from irgrad.types import TensorType

__all__ = ["Part", "main", "parts"]

F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Part:
    """A part of a training step.

    Attributes:
        name: what it is called.
        graph: what is run.
        torch: makes PyTorch's form of it out of the feeds: a function without operands.
    """

    name: str
    graph: Graph
    torch: Callable[[dict[str, np.ndarray]], Callable[[], Any]]

    def feeds(self) -> dict[str, np.ndarray]:
        """Random feeds."""
        generator = np.random.default_rng(0)
        return {
            name: generator.integers(0, 10, value.shape)
            if value.dtype == np.int64
            else np.asarray(np.abs(generator.standard_normal(value.shape)), F32)
            for name, value in self.graph.inputs.items()
        }


def _graph(shapes: dict[str, tuple[int, ...]], make: Callable[..., Value], labels: tuple[int, ...] = ()) -> Graph:
    graph = Graph("part")
    values = [graph.add_input(name, TensorType(F32, shape)) for name, shape in shapes.items()]
    if labels:
        values.append(graph.add_input("labels", TensorType(np.dtype(np.int64), labels)))
    with Builder(graph) as b:
        result = make(b, *values)
    graph.set_outputs({"y": result})
    return graph


def _step(graph: Graph) -> Graph:
    """Forward and backward by all floating-point inputs."""
    wrt = [name for name, value in graph.inputs.items() if value.dtype == F32]
    return ig.apply(ig.vjp(graph, wrt=wrt), "simplify")


def _torch_step(forward: Callable[..., Any]) -> Callable[[dict[str, np.ndarray]], Callable[[], Any]]:
    def prepare(feeds: dict[str, np.ndarray]) -> Callable[[], Any]:
        import torch

        dy = torch.from_numpy(feeds["y_cotangent"])
        given = [torch.from_numpy(a) for name, a in feeds.items() if name != "y_cotangent"]
        leaves = [t.requires_grad_() for t in given if t.is_floating_point()]

        def run() -> Any:
            return torch.autograd.grad(forward(*given), leaves, dy)

        return run

    return prepare


def _gelu(b: Builder, x: Value, bias: Value) -> Value:
    return b.op("Gelu", x + bias, approximate="tanh")


def _layer_norm(b: Builder, x: Value, scale: Value, bias: Value) -> Value:
    return b.op("LayerNormalization", x, scale, bias, axis=-1)


def _residual_norm(b: Builder, x: Value, r: Value, scale: Value, bias: Value) -> Value:
    return b.op("LayerNormalization", x + r, scale, bias, axis=-1)


def _cross_entropy(b: Builder, scores: Value, bias: Value, labels: Value) -> Value:
    return b.op("SoftmaxCrossEntropyLoss", scores + bias, labels)


def _normalised_relu(b: Builder, x: Value, scale: Value, bias: Value) -> Value:
    mean, var = b.constant(np.zeros(64, F32)), b.constant(np.ones(64, F32))
    return b.op("Relu", b.multi("BatchNormalization", x, scale, bias, mean, var, outputs=3, training_mode=1)[0])


def _adam(elements: int) -> Graph:
    graph = Graph("adam")
    shape = (elements,)
    x, g, m, v = (graph.add_input(name, TensorType(F32, shape)) for name in ("x", "g", "m", "v"))
    with Builder(graph, role=Role.UPDATE) as b:
        m2 = 0.9 * m + 0.1 * g
        v2 = 0.999 * v + 0.001 * (g * g)
        x2 = x - 0.001 * m2 / (b.op("Sqrt", v2) + 1e-8)
    graph.set_outputs({"x2": x2, "m2": m2, "v2": v2})
    return graph


def _torch_adam(feeds: dict[str, np.ndarray]) -> Callable[[], Any]:
    import torch

    x, g = (torch.from_numpy(feeds[name]).clone() for name in ("x", "g"))
    x.grad = g
    return torch.optim.Adam([x], lr=0.001, fused=True).step


def parts() -> list[Part]:
    """What is measured."""
    import torch.nn.functional as F

    rows = {"x": (1024, 3072), "bias": (3072,)}
    norm = {"x": (4096, 1024), "scale": (1024,), "bias": (1024,)}
    residual = {"x": (4096, 1024), "r": (4096, 1024), "scale": (1024,), "bias": (1024,)}
    image = {"x": (32, 64, 28, 28), "scale": (64,), "bias": (64,)}
    scores = {"scores": (2048, 8192), "bias": (8192,)}
    return [
        Part(
            "bias + GELU, 1024 × 3072",
            _step(_graph(rows, _gelu)),
            _torch_step(lambda x, bias: F.gelu(x + bias, approximate="tanh")),
        ),
        Part(
            "LayerNorm, 4096 × 1024",
            _step(_graph(norm, _layer_norm)),
            _torch_step(lambda x, scale, bias: F.layer_norm(x, x.shape[-1:], scale, bias)),
        ),
        Part(
            "residual + LayerNorm, 4096 × 1024",
            _step(_graph(residual, _residual_norm)),
            _torch_step(lambda x, r, scale, bias: F.layer_norm(x + r, x.shape[-1:], scale, bias)),
        ),
        Part(
            "bias + cross-entropy, 2048 × 8192",
            _step(_graph(scores, _cross_entropy, (2048,))),
            _torch_step(lambda x, bias, labels: F.cross_entropy(x + bias, labels)),
        ),
        Part(
            "BatchNorm + ReLU, 32 × 64 × 28 × 28",
            _step(_graph(image, _normalised_relu)),
            _torch_step(lambda x, scale, bias: F.relu(F.batch_norm(x, None, None, scale, bias, training=True))),
        ),
        Part("Adam, 4 million parameters", _adam(4_000_000), _torch_adam),
    ]


def measure(part: Part, rounds: int) -> dict[str, float]:
    """Form → milliseconds."""
    feeds = part.feeds()
    forms: dict[str, Callable[[], Any]] = {}
    for name, fuse, compiled in (
        ("unfused", False, False),
        ("fused", True, False),
        ("unfused, compiled", False, True),
        ("fused, compiled", True, True),
    ):
        if compiled and not fast.available():
            continue
        run = ig.compile(part.graph, fast=compiled, fuse=fuse)
        for _ in range(4):
            run(feeds)
            fast.wait()
        forms[name] = lambda run=run: run(feeds)  # type: ignore[misc]
    if find_spec("torch") is not None:
        forms["torch"] = part.torch(feeds)
    return {name: 1e3 * seconds for name, seconds in interleaved(forms, rounds).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="what the name of a part has to contain")
    options = parser.parse_args(arguments)
    columns = ["unfused", "fused", "unfused, compiled", "fused, compiled", "torch"]
    print(f"{'ms':<38}" + "".join(f"{name:>20}" for name in columns))
    for part in parts():
        if options.only in part.name:
            found = measure(part, options.rounds)
            numbers = (found.get(name, nan) for name in columns)
            print(f"{part.name:<38}" + "".join(f"{'-' if isnan(x) else f'{x:.2f}':>20}" for x in numbers), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
