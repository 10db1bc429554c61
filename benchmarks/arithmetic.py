"""Matrix products, normalisations, activations, attention and reductions, side by side with PyTorch on the same threads.

    python -m benchmarks.arithmetic --threads 2

Forward alone, and forward with the cotangents of every operand. Times are medians of runs that take turns; `ratio` is
irgrad's over PyTorch's. Without PyTorch the first is printed alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.timing import interleaved

TOKENS = (8, 128)  # batch and sequence of the rows at BERT-base's sizes


@dataclass(frozen=True)
class Row:
    """One measured operation.

    Attributes:
        name: what is printed.
        op: the operation.
        shapes: those of its operands.
        peer: the name of the function that does the same in PyTorch, see `peers`.
        attrs: the operation's attributes.
        outputs: how many outputs the node has; the first is differentiated.
        fixed: operands that get no gradient.
    """

    name: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    peer: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    fixed: tuple[int, ...] = ()


def _norm(batch: int, channels: int, side: int) -> Row:
    image, channel = (batch, channels, side, side), (channels,)
    return Row(
        f"BatchNorm training {batch}x{channels}x{side}x{side}",
        "BatchNormalization",
        (image, *[channel] * 4),
        "batch_norm",
        {"training_mode": 1},
        outputs=3,
        fixed=(3, 4),
    )


ROWS = [
    Row("MatMul 1024x768 by 768x768", "MatMul", ((*TOKENS, 768), (768, 768)), "matmul"),
    Row("MatMul 1024x768 by 768x3072", "MatMul", ((*TOKENS, 768), (768, 3072)), "matmul"),
    Row("MatMul 1024x3072 by 3072x768", "MatMul", ((*TOKENS, 3072), (3072, 768)), "matmul"),
    Row("MatMul of heads, Q by K", "MatMul", ((8, 12, 128, 64), (8, 12, 64, 128)), "matmul"),
    Row("Gemm 128x784 by 784x512 + bias", "Gemm", ((128, 784), (784, 512), (512,)), "gemm"),
    Row("Add of a bias, 1024x3072", "Add", ((*TOKENS, 3072), (3072,)), "add"),
    Row("Attention 8x12x128x64", "Attention", ((8, 12, 128, 64),) * 3, "attention"),
    Row("Attention 1x12x1024x64 causal", "Attention", ((1, 12, 1024, 64),) * 3, "causal", {"is_causal": 1}),
    Row("Softmax 8x12x128x128", "Softmax", ((8, 12, 128, 128),), "softmax"),
    Row("LogSoftmax 256x32000", "LogSoftmax", ((256, 32000),), "log_softmax"),
    Row("LayerNorm 1024x768", "LayerNormalization", ((*TOKENS, 768), (768,), (768,)), "layer_norm"),
    Row("RMSNorm 1024x768", "RMSNormalization", ((*TOKENS, 768), (768,)), "rms_norm"),
    Row("GELU 1024x3072", "Gelu", ((*TOKENS, 3072),), "gelu"),
    Row("GELU by tanh 1024x3072", "Gelu", ((*TOKENS, 3072),), "gelu_tanh", {"approximate": "tanh"}),
    Row("Erf 1024x3072", "Erf", ((*TOKENS, 3072),), "erf"),
    Row("Sigmoid 1024x3072", "Sigmoid", ((*TOKENS, 3072),), "sigmoid"),
    Row("Tanh 1024x3072", "Tanh", ((*TOKENS, 3072),), "tanh"),
    _norm(32, 64, 56),
    _norm(32, 256, 14),
    _norm(32, 512, 7),
    Row("GroupNorm 16x64x32x32", "GroupNormalization", ((16, 64, 32, 32), (64,), (64,)), "group_norm", {"num_groups": 8}),
    Row("ReduceMean 32x512x14x14 over positions", "ReduceMean", ((32, 512, 14, 14),), "mean"),
    Row("ReduceSum 1024x3072 over rows", "ReduceSum", ((1024, 3072),), "sum_rows"),
]


def peers() -> dict[str, Callable[..., Any]]:
    """PyTorch's functions."""
    import torch
    from torch.nn import functional as f

    return {
        "matmul": torch.matmul,
        "gemm": lambda x, w, b: torch.addmm(b, x, w),
        "add": torch.add,
        "attention": f.scaled_dot_product_attention,
        "causal": lambda q, k, v: f.scaled_dot_product_attention(q, k, v, is_causal=True),
        "softmax": lambda x: torch.softmax(x, -1),
        "log_softmax": lambda x: torch.log_softmax(x, -1),
        "layer_norm": lambda x, w, b: f.layer_norm(x, w.shape, w, b),
        "rms_norm": lambda x, w: f.rms_norm(x, w.shape, w, 1e-5),
        "gelu": f.gelu,
        "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
        "erf": torch.erf,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "batch_norm": lambda x, w, b, m, v: f.batch_norm(x, m, v, w, b, training=True),
        "group_norm": lambda x, w, b: f.group_norm(x, 8, w, b),
        "mean": lambda x: x.mean((2, 3), keepdim=True),
        "sum_rows": lambda x: x.sum(0),
    }


def _axes(row: Row) -> list[int] | None:
    return {"mean": [2, 3], "sum_rows": [0]}.get(row.peer)


def ours(row: Row, arrays: list[Any]) -> dict[str, Callable[[], Any]]:
    """Runs of a row on irgrad: forward, and with cotangents."""
    import numpy as np

    import irgrad as ig
    from irgrad.builder import Builder
    from irgrad.types import TensorType

    graph = ig.Graph("row")
    operands = [graph.add_input(f"x{k}", TensorType(a.dtype, a.shape)) for k, a in enumerate(arrays)]
    b = Builder(graph)
    axes, attrs = _axes(row), dict(row.attrs)
    if row.peer == "sum_rows":
        attrs["keepdims"] = 0
    more = [] if axes is None else [b.ints(axes)]
    results = b.multi(row.op, *operands, *more, outputs=row.outputs, **attrs)
    graph.set_outputs({"y": results[0]})
    feeds = {f"x{k}": a for k, a in enumerate(arrays)}
    joint = ig.vjp(graph, wrt=[f"x{k}" for k in range(len(arrays)) if k not in row.fixed], outputs=["y"])
    run, run_joint = ig.compile(graph), ig.compile(joint)
    cotangent = np.ones(run(feeds)["y"].shape, np.float32)
    return {"forward": lambda: run(feeds), "both": lambda: run_joint({**feeds, "y_cotangent": cotangent})}


def theirs(row: Row, arrays: list[Any]) -> dict[str, Callable[[], Any]]:
    """Runs of a row on PyTorch."""
    import torch

    function = peers()[row.peer]
    plain = [torch.from_numpy(a) for a in arrays]
    learned = [t if k in row.fixed else t.clone().requires_grad_() for k, t in enumerate(plain)]

    def forward() -> Any:
        with torch.no_grad():
            return function(*plain)

    cotangent = torch.ones_like(forward())

    def both() -> Any:
        return torch.autograd.grad(function(*learned), [t for t in learned if t.requires_grad], cotangent)

    return {"forward": forward, "both": both}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import numpy as np

    from irgrad.runtime import fast

    try:
        import torch

        torch.set_num_threads(options.threads)
        compare = True
    except ImportError:
        compare = False
    print(f"{'':42} {'forward':>22} {'with cotangents':>24}")
    print(f"{'':42} {'ms':>8} {'PyTorch':>8} {'ratio':>5} {'ms':>9} {'PyTorch':>8} {'ratio':>5}")
    generator = np.random.default_rng(0)
    for row in ROWS:
        if options.only.lower() not in row.name.lower():
            continue
        arrays = [generator.standard_normal(shape).astype(np.float32) for shape in row.shapes]
        if row.op == "BatchNormalization":
            arrays[4] = np.abs(arrays[4])
        mine = ours(row, arrays)
        for function in mine.values():  # compiled kernels are there after a few runs
            for _ in range(3):
                function()
        fast.wait(120)
        other = theirs(row, arrays) if compare else {}
        line = f"{row.name:42}"
        for what in ("forward", "both"):
            functions = {"irgrad": mine[what]} | ({"PyTorch": other[what]} if compare else {})
            taken = interleaved(functions, rounds=options.rounds)
            line += f" {1e3 * taken['irgrad']:8.3f}"
            if compare:
                line += f" {1e3 * taken['PyTorch']:8.3f} {taken['irgrad'] / taken['PyTorch']:5.2f} "
        print(line, flush=True)


if __name__ == "__main__":
    main()
