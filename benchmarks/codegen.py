"""Fused bodies as compiled by `irgrad.codegen`, beside the same body on numpy alone and what PyTorch has for it.

    python -m benchmarks.codegen --threads 2

Runs alternate, so that whatever else the machine does hits all of them; the ratios of the medians are what counts. Needs the
extra irgrad[fast] and PyTorch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, sqrt
from time import perf_counter
from typing import Any


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    return parser.parse_args()


@dataclass(frozen=True)
class Case:
    """A body, its operands, and the same by PyTorch (whose results may have another form)."""

    name: str
    operands: list[Any]
    emit: Callable[..., Any]
    peer: Callable[..., Any]


def cases() -> Iterator[Case]:
    """All cases."""
    import numpy as np
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    aten: Any = torch.ops.aten
    x, dy, row, row2, column, column2 = (
        normal(4096, 1024),
        normal(4096, 1024),
        *(normal(1024) for _ in "ab"),
        *(normal(4096, 1) for _ in "ab"),
    )
    yield Case(
        "bias + GELU",
        [x, row],
        lambda b, x, bias: b.op("Gelu", x + bias, approximate="tanh"),
        lambda x, bias: functional.gelu(x + bias, approximate="tanh"),
    )

    def gelu_backward(b: Any, dy: Any, x: Any, bias: Any) -> Any:
        c = sqrt(2 / pi)
        x = x + bias
        square = x * x
        gate = b.op("Sigmoid", x * (2 * c * 0.044715 * square + 2 * c))
        dx = dy * (gate + x * gate * (1 - gate) * (6 * c * 0.044715 * square + 2 * c))
        return dx, b.op("ReduceSum", dx, b.ints([0]), keepdims=0)

    def gelu_backward_peer(dy: Any, x: Any, bias: Any) -> Any:
        dx = aten.gelu_backward(dy, x + bias, approximate="tanh")
        return dx, dx.sum(0)

    yield Case("bias + GELU, backward", [dy, x, row], gelu_backward, gelu_backward_peer)
    yield Case(
        "LayerNorm",
        [x, row, row2],
        lambda b, x, scale, bias: b.multi("LayerNormalization", x, scale, bias, outputs=3),
        lambda x, scale, bias: torch.native_layer_norm(x, (1024,), scale, bias, 1e-5),
    )

    def layer_norm_backward(b: Any, dy: Any, x: Any, scale: Any, mean: Any, inverse: Any) -> Any:
        normalised, g = (x - mean) * inverse, dy * scale
        first, second = (b.op("ReduceMean", v, b.ints([-1])) for v in (g, g * normalised))
        sums = (b.op("ReduceSum", v, b.ints([0]), keepdims=0) for v in (dy * normalised, dy))
        return inverse * (g - (first + normalised * second)), *sums

    yield Case(
        "LayerNorm, backward",
        [dy, x, row, column, column2],
        layer_norm_backward,
        lambda dy, x, scale, mean, inverse: aten.native_layer_norm_backward(
            dy, x, (1024,), mean, inverse, scale, scale, [True] * 3
        ),
    )
    scores, labels, one = normal(2048, 8192), rng.integers(0, 8192, 2048), np.ones((), np.float32)

    def cross_entropy_peer(dloss: Any, scores: Any, labels: Any) -> Any:
        scores = scores.detach().requires_grad_()
        loss = functional.cross_entropy(scores, labels)
        loss.backward()
        return loss, scores.grad

    yield Case(
        "softmax cross-entropy, both",
        [one, scores, labels],
        lambda b, dloss, scores, labels: (
            b.op("SoftmaxCrossEntropyLoss", scores, labels),
            b.op("irgrad.SoftmaxCrossEntropyLossGrad", dloss, scores, labels),
        ),
        cross_entropy_peer,
    )
    size = 10_000_000
    rate, state = np.array(1e-3, np.float32), [normal(size), normal(size), normal(size), np.abs(normal(size))]

    def adam(b: Any, x: Any, g: Any, m: Any, v: Any, rate: Any) -> Any:
        m, v = m * 0.9 + g * 0.1, v * 0.999 + g * g * 0.001
        return x - rate * m / (b.op("Sqrt", v) + 1e-8), m, v

    parameter = torch.nn.Parameter(torch.from_numpy(state[0].copy()))
    parameter.grad = torch.from_numpy(state[1])
    optimizer = torch.optim.Adam([parameter], fused=True)
    yield Case("Adam, 10 million", [*state, rate], adam, lambda *_: optimizer.step())
    image, dimage, *per_channel = normal(32, 64, 56, 56), normal(32, 64, 56, 56), *(normal(64) for _ in "abc")

    def batch_norm(b: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        y, *running = b.multi("BatchNormalization", x, scale, bias, mean, var, outputs=3, training_mode=1)
        return b.op("Relu", y), *running

    yield Case(
        "BatchNorm + ReLU",
        [image, *per_channel, np.abs(normal(64))],
        batch_norm,
        lambda x, scale, bias, mean, var: functional.batch_norm(x, mean.clone(), var.clone(), scale, bias, True).relu_(),
    )
    result = normal(32, 64, 56, 56)

    def batch_norm_backward(b: Any, dy: Any, y: Any, x: Any, scale: Any) -> Any:
        cotangent = b.op("Where", y > 0, dy, b.scalar(0, dy))
        return b.multi(
            "irgrad.BatchNormalizationGrad", cotangent, x, scale, outputs=3, training_mode=1, wrt=(0, 1, 2), epsilon=1e-5
        )

    yield Case(
        "BatchNorm + ReLU, backward",
        [dimage, result, image, per_channel[0]],
        batch_norm_backward,
        lambda dy, y, x, scale: aten.native_batch_norm_backward(
            aten.threshold_backward(dy, y, 0), x, scale, None, None, scale, scale, True, 1e-5, [True] * 3
        ),
    )


def run(case: Case, options: argparse.Namespace) -> str:
    """Compile and time one case; a row of the table."""
    import numpy as np
    import torch

    import irgrad as ig
    from benchmarks.timing import interleaved
    from irgrad.builder import Builder
    from irgrad.codegen import build_kernel
    from irgrad.op import WorkspaceKernel
    from irgrad.runtime.threads import limited
    from irgrad.types import TensorType

    graph = ig.Graph("body")
    b = Builder(graph)
    inputs = [graph.add_input(f"x{k}", TensorType(a.dtype, a.shape)) for k, a in enumerate(case.operands)]
    with b:
        found = case.emit(b, *inputs)
    graph.set_outputs(list(found) if isinstance(found, tuple) else [found])
    start = perf_counter()
    kernel = build_kernel(graph)
    seconds = perf_counter() - start
    feeds = dict(zip(graph.inputs, case.operands, strict=True))
    plain = ig.compile(graph, fast=False)
    expected, out = list(plain(feeds).values()), kernel(*case.operands)
    for x, y in zip(expected, out if isinstance(out, tuple) else (out,), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5 * float(np.abs(x).max()))
    work, call = {}, kernel
    if isinstance(kernel, WorkspaceKernel):
        work, call = {"work": np.empty(kernel.workspace, np.uint8)}, kernel.function
    tensors = [torch.from_numpy(a) for a in case.operands]

    def ours() -> None:
        call(*case.operands, out=out, **work)

    def alone() -> None:
        with limited(1):
            ours()

    with limited(options.threads):
        times = interleaved(
            {"irgrad": ours, "one": alone, "numpy": lambda: plain(feeds), "torch": lambda: case.peer(*tensors)},
            options.rounds,
        )
    t = {name: 1e3 * seconds for name, seconds in times.items()}
    elements = max(a.size for a in case.operands)
    return (
        f"| {case.name:27} | {seconds:5.2f} | {t['irgrad']:7.2f} | {t['one']:7.2f} | {1e6 * t['one'] / elements:5.2f} "
        f"| {t['numpy']:7.2f} | {t['torch']:7.2f} | {t['numpy'] / t['irgrad']:5.1f} | {t['torch'] / t['irgrad']:5.1f} |"
    )


def main() -> None:
    """Print the table."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    print("| body (ms) | compile s | irgrad | 1 thread | ns/element | numpy | torch | numpy/irgrad | torch/irgrad |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in cases():
        if options.only in case.name:
            print(run(case, options), flush=True)


if __name__ == "__main__":
    main()
