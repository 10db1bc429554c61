"""``irgrad opt``: run a pipeline of passes over a model and print the result."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import load_model, model_argument
from irgrad.instruments import Instrument, NodeCounts, PrintAfter, Timing
from irgrad.pipeline import Pipeline

__all__ = ["command"]


@click.command("opt", short_help="Run passes over a model and print the result.")
@model_argument
@click.option("-p", "--pipeline", required=True, metavar="PIPELINE", help='Passes, as in "grad{wrt=inputs},simplify".')
@click.option("--print-after-all", is_flag=True, help="Print the graph after each pass.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took.")
@click.option("--count-nodes", is_flag=True, help="Print the number of nodes after each pass.")
@click.option("--verify-each/--no-verify-each", default=True, show_default=True, help="Verify the graph between passes.")
def command(
    model: Path | None,
    example: str | None,
    pipeline: str,
    print_after_all: bool,
    time_passes: bool,
    count_nodes: bool,
    verify_each: bool,
) -> None:
    """Run passes over a model and print the graph that results.

    \b
    Examples:
      irgrad opt model.onnx -p "vjp{wrt=inputs},simplify" --print-after-all
      irgrad opt --example squeezenet -p "vjp{wrt=inputs},simplify,convert_float{to=f64}" --count-nodes
    """
    graph, _ = load_model(model, example)
    instruments: list[Instrument] = []
    if print_after_all:
        instruments.append(PrintAfter())
    timing, counts = Timing(), NodeCounts()
    instruments += [timing] * time_passes + [counts] * count_nodes
    result = Pipeline(pipeline, verify=verify_each, instruments=instruments).apply(graph)
    if not print_after_all:
        click.echo(str(result))
    for report in [timing] * time_passes + [counts] * count_nodes:
        click.echo(str(report), err=True)
