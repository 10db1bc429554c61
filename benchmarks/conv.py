"""Convolutions and their two adjoints, side by side with PyTorch on the same threads.

    python -m benchmarks.conv --threads 2

For each shape: which algorithm serves, milliseconds of the convolution (fwd), of its adjoint in the images (dX) and of that
in the weights (dW), and their ratios to PyTorch's, where below 1 is faster. Ours run in memory that is there, as in a
planned run. Times are medians of runs that take turns; without PyTorch only our own are shown.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import interleaved

__all__ = ["main"]

Calls = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    """A convolution of N images of C channels and H × H pixels with M filters of k × k."""

    images: int
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return (self.kernel - 1) * self.dilation // 2

    def __str__(self) -> str:
        text = f"{self.images},{self.channels},{self.size},{self.filters},{self.kernel}"
        further = {"stride": (self.stride, 1), "dilation": (self.dilation, 1), "groups": (self.groups, 1)}
        return text + "".join(f" {name} {value}" for name, (value, usual) in further.items() if value != usual)


ROWS = [
    Row(8, 64, 56, 64, 3),
    Row(8, 128, 28, 128, 3),
    Row(8, 256, 14, 256, 3),
    Row(8, 512, 7, 512, 3),
    Row(64, 32, 14, 64, 5),
    Row(8, 32, 112, 32, 3),
    Row(8, 64, 28, 64, 3, dilation=2),
    Row(8, 64, 56, 128, 3, stride=2),
    Row(8, 128, 28, 128, 3, groups=4),
    Row(8, 3, 224, 64, 7, stride=2),
    Row(64, 1, 28, 32, 5),
    Row(8, 256, 56, 64, 1),
    Row(8, 512, 14, 128, 1),
    Row(8, 960, 7, 160, 1),
    Row(8, 256, 56, 128, 1, stride=2),
    Row(8, 96, 48, 96, 3, groups=96),
    Row(8, 144, 24, 144, 3, stride=2, groups=144),
    Row(8, 576, 14, 576, 3, groups=576),
    Row(8, 960, 7, 960, 3, groups=960),
]


def operands(row: Row) -> tuple[Any, Any, Any]:
    """Images, weights and cotangents, float32."""
    import numpy as np

    generator = np.random.default_rng(0)
    out = (row.size + 2 * row.padding - (row.kernel - 1) * row.dilation - 1) // row.stride + 1
    shapes = (
        (row.images, row.channels, row.size, row.size),
        (row.filters, row.channels // row.groups, row.kernel, row.kernel),
        (row.images, row.filters, out, out),
    )
    x, w, dy = (generator.standard_normal(shape, np.float32) for shape in shapes)
    return x, w, dy


def ours(row: Row) -> tuple[Calls, str]:
    """The three calls, and the name of the algorithm of each."""
    import numpy as np

    from irgrad.ops.convolution import select
    from irgrad.ops.convolution.problem import Problem
    from irgrad.ops.windows import windows_of

    x, w, dy = operands(row)
    attrs = {"strides": [row.stride] * 2, "dilations": [row.dilation] * 2, "pads": [row.padding] * 4}
    windows = windows_of(attrs, x.shape[2:], w.shape[2:])
    problem = Problem(row.images, row.channels, row.filters, row.groups, windows, x.dtype)
    calls, names = {}, []
    for role, prepare, given, result in (
        (select.Role.FORWARD, select.forward, (x, w), dy),
        (select.Role.IMAGE_ADJOINT, select.image_adjoint, (dy, w), x),
        (select.Role.WEIGHT_ADJOINT, select.weight_adjoint, (x, dy), w),
    ):
        kernel = prepare(problem)
        calls[role.value] = _call(kernel.function, given, np.empty_like(result), np.empty(kernel.workspace, np.uint8))
        chosen = select.choice(problem, role)
        names.append(chosen.name if chosen.tiling is None else f"{chosen.name} {chosen.tiling.m}")
    return calls, " ".join(dict.fromkeys(names))


def _call(function: Callable[..., Any], given: Sequence[Any], out: Any, work: Any) -> Callable[[], Any]:
    return lambda: function(*given, out=out, work=work)


def theirs(row: Row) -> Calls:
    """The same calls of PyTorch."""
    import torch

    x, w, dy = map(torch.from_numpy, operands(row))
    stride, padding, dilation = [row.stride] * 2, [row.padding] * 2, [row.dilation] * 2

    def backward(*mask: bool) -> Any:
        further = (None, stride, padding, dilation, False, [0, 0], row.groups, mask)
        return torch.ops.aten.convolution_backward(dy, x, w, *further)

    return {
        "fwd": lambda: torch.conv2d(x, w, None, stride, padding, dilation, row.groups),
        "dX": lambda: backward(True, False, False),
        "dW": lambda: backward(False, True, False),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose text contains this")
    parser.add_argument("--numpy", action="store_true", help="no compiled kernels")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    from irgrad.runtime import fast

    try:
        import torch

        torch.set_num_threads(options.threads)
        peers = ["PyTorch"]
    except ImportError:
        peers = []
    print(
        f"{'N,C,H,M,k':30} {'algorithm':30} {'fwd':>7} {'dX':>7} {'dW':>7} ms" + "   ratio: fwd   dX   dW total" * len(peers)
    )
    for row in ROWS:
        if options.only not in str(row):
            continue
        with fast.using(False if options.numpy else None):
            mine, algorithm = ours(row)
        for call in mine.values():  # compiled kernels are there after a few runs
            call()
            call()
        fast.wait(120)
        other = theirs(row) if peers else {}
        taken: dict[str, list[float]] = {"irgrad": []} | {peer: [] for peer in peers}
        for name, call in mine.items():
            found = interleaved({"irgrad": call} | ({"PyTorch": other[name]} if other else {}), rounds=options.rounds)
            for who, seconds in found.items():
                taken[who].append(seconds)
        line = f"{row!s:30} {algorithm:30}" + "".join(f" {1e3 * t:7.2f}" for t in taken["irgrad"])
        if other:
            ratios = [a / b for a, b in zip(taken["irgrad"], taken["PyTorch"], strict=True)]
            total = sum(taken["irgrad"]) / sum(taken["PyTorch"])
            line += " " * 11 + "".join(f" {r:4.2f}" for r in (*ratios, total))
        print(line, flush=True)


if __name__ == "__main__":
    main()
