"""``irgrad report``: a page about a model, or about its joint graph."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import counted, model_argument, parse_dims, refuse_early, show
from irgrad.cli.running import gradient_options
from irgrad.cli.shown import graph_or_joint
from irgrad.cost import symbols_of
from irgrad.report import report

__all__ = ["command"]

_ASSUMED = 1  # the size of a symbolic dimension that nobody told


@click.command("report", short_help="Write a page about a model's cost and memory.")
@model_argument
@click.option(
    "-o",
    "--file",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: the model's name with .html, in this folder]",
)
@click.option("--grad", is_flag=True, help="Report on the joint graph, with the backward nodes.")
@gradient_options
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of the inputs.")
def command(
    model: Path | None,
    example: str | None,
    path: Path | None,
    grad: bool,
    wrt: str,
    loss: str | None,
    output: str | None,
    dims: tuple[str, ...],
) -> None:
    """Write an HTML page about an ONNX model, or with --grad about its joint graph.

    It shows what every node costs, forward against backward, which results the backward pass keeps alive, and the bytes that
    are alive over the whole step. Nothing is run. The page is one file that loads nothing from elsewhere.

    \b
    Examples:
      irgrad report --example resnet50 --grad -o resnet50.html
      irgrad report model.onnx --grad --loss cross_entropy --dim N=32
    """
    path = path or Path(f"{example or Path(str(model)).stem}.html")
    refuse_early("--file", path, model)
    graph, label = graph_or_joint(model, example, grad=grad, wrt=wrt, loss=loss, output=output)
    given = parse_dims(dims, graph)
    sizes = {name: given.get(name, _ASSUMED) for name in symbols_of(graph)}
    assumed = [name for name in sizes if name not in given]
    if assumed:
        told = ", ".join(f"{name} = {_ASSUMED}" for name in assumed)
        show(f"note: {told} (give --dim NAME=SIZE for another size)")
    report(graph, path, sizes, title=f"{Path(label).name}: joint graph" if grad else Path(label).name)
    show(f"{label}: wrote a report on {counted(len(graph), 'node')} to {path}")
