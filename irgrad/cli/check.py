"""``irgrad check``: is this model whole, does it run, are its gradients right?"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from irgrad.cli.common import load_model, model_argument, parse_dims, progress, show
from irgrad.errors import AdjointError
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType
from irgrad.verify import verify

__all__ = ["command"]


@click.command("check")
@model_argument
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds.")
@click.option("--directions", default=3, show_default=True, type=click.IntRange(1), help="Random directions to try.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
def command(model: Path | None, example: str | None, dims: tuple[str, ...], directions: int, seed: int) -> None:
    """Check a model: read it, verify its graph, run it on random feeds, and check its gradients in float64.

    Exits with 1 where a gradient disagrees with finite differences.

    \b
    Example:
      irgrad check model.onnx
    """
    with progress() as bar:
        task = bar.add_task("load", total=3 + directions)
        graph, label = load_model(model, example)
        verify(graph, types=True)
        show(f"{label}: {len(graph)} nodes, the graph is sound")
        bar.update(task, advance=1, description="run")
        arrays = plausible_feeds(graph, dims=parse_dims(dims), seed=seed)
        if example:
            arrays |= plausible_parameters(graph, arrays, seed)
        for name, result in compile(graph)(arrays).items():
            finite = bool(np.isfinite(result).all()) if result.dtype.kind == "f" else True
            show(f"output {name}: {TensorType.of(result)}" + ("" if finite else ", NOT all finite"))
        bar.update(task, advance=1, description="differentiate")
        checker = GradientChecker(graph, arrays, _everything(graph))
        bad = 0
        generator = np.random.default_rng([seed, 1])
        for _ in range(directions):
            bar.update(task, advance=1, description="check gradients")
            verdict = checker.check(generator)
            bad += verdict.conclusive and not verdict.ok
            show(f"gradients of all outputs by all inputs and parameters: {verdict}")
    if bad:
        raise click.exceptions.Exit(1)


def _everything(graph: Graph) -> list[str]:
    names = [name for name, value in graph.inputs.items() if value.type.differentiable] + list(graph.parameters)
    if not names:
        raise AdjointError("the model has no input or parameter of a floating-point dtype to differentiate by")
    return names
