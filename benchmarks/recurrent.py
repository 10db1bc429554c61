"""Forward and backward pass of a bidirectional LSTM, side by side with PyTorch on the same threads.

    python -m benchmarks.recurrent --threads 2

Both compute the gradients of a random projection of the results with respect to the inputs and all weights. Runs alternate,
so that whatever else the machine does hits both; the ratio of the medians is what counts. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="of the inputs and of the hidden state")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    return parser.parse_args()


def onnx_weights(module: Any, layer: int) -> dict[str, Any]:
    """The weights of a layer in ONNX's order of gates: PyTorch has i, f, g, o, ONNX i, o, f, c."""
    import numpy as np

    def gates(name: str) -> Any:
        i, f, g, o = np.split(getattr(module, name).detach().numpy(), 4)
        return np.concatenate([i, o, f, g])

    def both(name: str) -> Any:
        return np.stack([gates(f"{name}_l{layer}{suffix}") for suffix in ("", "_reverse")])

    return {"W": both("weight_ih"), "R": both("weight_hh"), "B": np.concatenate([both("bias_ih"), both("bias_hh")], 1)}


def compiled(module: Any, options: argparse.Namespace) -> Callable[[Any, Any], Any]:
    """The gradients by irgrad, as a function of the inputs and the cotangents of the results."""
    import numpy as np

    import irgrad as ig
    from irgrad.builder import Builder
    from irgrad.types import TensorType

    graph = ig.Graph("lstm")
    b = Builder(graph)
    value = graph.add_input("x", TensorType(np.dtype(np.float32), (options.steps, options.batch, options.size)))
    for layer in range(options.layers):
        operands = [
            graph.add_constant(array, f"{name}{layer}", parameter=True)
            for name, array in onnx_weights(module, layer).items()
        ]
        y = b.op("LSTM", value, *operands, direction="bidirectional", hidden_size=options.size)
        turned = b.op("Transpose", y, perm=(0, 2, 1, 3))
        value = b.op("Reshape", turned, b.ints([options.steps, options.batch, 2 * options.size]))
    graph.set_outputs({"y": value})
    joint = ig.vjp(graph, wrt=["x", *graph.parameters])
    run = ig.compile(joint)
    return lambda x, cotangent: run({"x": x, "y_cotangent": cotangent})


def main() -> None:
    """Measure and print."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module = torch.nn.LSTM(options.size, options.size, options.layers, bidirectional=True)
    run = compiled(module, options)
    x = torch.randn(options.steps, options.batch, options.size, requires_grad=True)
    cotangent = torch.randn(options.steps, options.batch, 2 * options.size)
    x_array, cotangent_array = x.detach().numpy(), cotangent.numpy()

    def torch_step() -> Any:
        x.grad = None
        module.zero_grad()
        y, _ = module(x)
        y.backward(cotangent)
        return x.grad

    def timed(function: Callable[[], Any]) -> float:
        start = perf_counter()
        function()
        return perf_counter() - start

    ours = run(x_array, cotangent_array)
    difference = float(np.abs(ours["x_grad"] - torch_step().numpy()).max())
    times: dict[str, list[float]] = {"irgrad": [], "PyTorch": []}
    for _ in range(options.runs):
        times["irgrad"].append(timed(lambda: run(x_array, cotangent_array)))
        times["PyTorch"].append(timed(torch_step))
    medians = {name: median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:8} {1e3 * seconds:8.1f} ms")
    print(f"ratio    {medians['irgrad'] / medians['PyTorch']:8.2f}")
    print(f"largest difference of the inputs' gradient: {difference:.1e}")


if __name__ == "__main__":
    main()
