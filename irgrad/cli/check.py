"""``irgrad check``: is this model whole, does it run, are its gradients right?"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from irgrad.cli.common import Steps, counted, load_model, model_argument, parse_dims, seed_option
from irgrad.errors import AdjointError
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType
from irgrad.verify import verify

__all__ = ["command"]


@click.command("check", short_help="Check a model and its gradients.")
@model_argument
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds.")
@click.option(
    "--directions", default=3, show_default=True, metavar="N", type=click.IntRange(1), help="Random directions to try."
)
@seed_option
def command(model: Path | None, example: str | None, dims: tuple[str, ...], directions: int, seed: int) -> None:
    """Check a model: read it, verify its graph, run it on random feeds, and check its gradients in float64.

    Exits with 1 where a gradient disagrees with finite differences.

    \b
    Examples:
      irgrad check model.onnx
      irgrad check --example squeezenet --directions 1
    """
    with Steps("load", 3 + directions) as steps:
        graph, label = load_model(model, example)
        sizes = parse_dims(dims, graph)
        verify(graph, types=True)
        steps.show(f"{label}: {counted(len(graph), 'node')}, the graph is sound")
        steps.next("run")
        arrays = plausible_feeds(graph, dims=sizes, seed=seed)
        if example:
            arrays |= plausible_parameters(graph, arrays, seed)
        for name, result in compile(graph)(arrays).items():
            finite = bool(np.isfinite(result).all()) if result.dtype.kind == "f" else True
            steps.show(f"output {name}: {TensorType.of(result)}" + ("" if finite else ", NOT all finite"))
        steps.next("differentiate")
        checker = GradientChecker(graph, arrays, _everything(graph))
        bad = 0
        generator = np.random.default_rng([seed, 1])
        for number in range(1, directions + 1):
            steps.next("check gradients")
            verdict = checker.check(generator)
            bad += verdict.conclusive and not verdict.ok
            steps.show(f"all gradients along random direction {number}: {verdict}")
        for verdict in checker.check_faint(generator):
            bad += not verdict.ok
            steps.show(f"small gradients along a direction of their own: {verdict}")
    if bad:
        raise click.exceptions.Exit(1)


def _everything(graph: Graph) -> list[str]:
    names = [name for name, value in graph.inputs.items() if value.type.differentiable] + list(graph.parameters)
    if not names:
        raise AdjointError("the model has no input or parameter of a floating-point dtype to differentiate by")
    return names
