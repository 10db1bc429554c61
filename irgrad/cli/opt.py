"""``irgrad opt``: run a pipeline of passes over a model and print the result, or write it to a file."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.api import save
from irgrad.cli.common import load_model, model_argument, refuse_early
from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.graph import Graph
from irgrad.instruments import DumpOnFailure, Instrument, NodeCounts, PrintAfter, Timing, read_reproducer
from irgrad.passes.fusion.fuse import FusionReasons
from irgrad.pipeline import Pipeline
from irgrad.text import to_text

__all__ = ["command"]


@click.command("opt", short_help="Run passes over a model and print or write the result.")
@model_argument
@click.option("-p", "--pipeline", metavar="PIPELINE", help='Passes, as in "grad{wrt=inputs},simplify".')
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result to this file instead: an ONNX model where its name ends in .onnx, otherwise text.",
)
@click.option("--print-after-all", is_flag=True, help="Print the graph after each pass.")
@click.option("--print-changed", is_flag=True, help="Print the graph after each pass that changed it.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took.")
@click.option("--count-nodes", is_flag=True, help="Print the number of nodes after each pass.")
@click.option("--explain-fusion", is_flag=True, help="Print which nodes each pass `fuse` leaves as they are, and why.")
@click.option("--verify-each/--no-verify-each", default=True, show_default=True, help="Verify the graph between passes.")
@click.option(
    "--reproducer",
    type=click.Path(path_type=Path),
    default="irgrad-reproducer.ir",
    show_default=True,
    metavar="FILE",
    help="Where a pass that fails, and the graph that it was given, are written to.",
)
@click.option("--no-reproducer", is_flag=True, help="Write no such file.")
@click.option(
    "--reproduce",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run what is in such a file, in place of a model and a pipeline.",
)
def command(
    model: Path | None,
    example: str | None,
    pipeline: str | None,
    output: Path | None,
    print_after_all: bool,
    print_changed: bool,
    time_passes: bool,
    count_nodes: bool,
    explain_fusion: bool,
    verify_each: bool,
    reproducer: Path,
    no_reproducer: bool,
    reproduce: Path | None,
) -> None:
    """Run passes over a model and print the graph that results, or write it to a file.

    Besides ONNX models, MODEL may be a graph as text, in a file whose name ends in .ir. Where a pass fails, it and the graph
    that it was given are written to a file, which --reproduce runs again.

    \b
    Examples:
      irgrad opt model.onnx -p "vjp{wrt=inputs},simplify" --print-after-all
      irgrad opt --example squeezenet -p "vjp{wrt=inputs},simplify,convert_float{to=f64}" --count-nodes
      irgrad opt model.onnx -p "grad{wrt=parameters},simplify" -o joint.onnx
      irgrad opt joint.onnx -p "simplify,fuse" --explain-fusion -o fused.ir
      irgrad opt --reproduce irgrad-reproducer.ir
    """
    if output is not None:
        refuse_early("--output", output, model)
    instruments: list[Instrument] = []
    if print_after_all or print_changed:
        instruments.append(PrintAfter(changed_only=not print_after_all))
    reports: list[Instrument] = [*([Timing()] if time_passes else []), *([NodeCounts()] if count_nodes else [])]
    if explain_fusion:
        reports.append(FusionReasons())
    dump = DumpOnFailure(reproducer.parent, reproducer.name)
    instruments += [*reports, *([] if no_reproducer or reproduce is not None else [dump])]
    graph, text = _asked(model, example, pipeline, reproduce)
    try:
        result = Pipeline(text, verify=verify_each, instruments=instruments).apply(graph)
    finally:
        for report in reports:
            click.echo(str(report), err=True)
        if dump.path is not None:
            click.echo(
                f"irgrad: wrote {dump.path}; irgrad opt --reproduce {dump.path} runs the failing pass again", err=True
            )
    if output is not None:
        _write(result, output)
    elif not print_after_all and not print_changed:
        click.echo(str(result))


def _asked(model: Path | None, example: str | None, pipeline: str | None, reproduce: Path | None) -> tuple[Graph, str]:
    """The graph and the pipeline that the options ask for.

    Raises:
        UsageError: there are none, or two of one.
        PassError: the pipeline is misspelt, which is said before a large model is read.
    """
    if reproduce is not None:
        if (model, example, pipeline) != (None, None, None):
            raise UsageError("--reproduce takes the place of a model and of --pipeline; give neither of these")
        return read_reproducer(reproduce)
    if pipeline is None:
        raise UsageError('say what to run, as in --pipeline "simplify"')
    Pipeline(pipeline)
    return load_model(model, example)[0], pipeline


def _write(graph: Graph, path: Path) -> None:
    if path.suffix.lower() == ".onnx":
        save(graph, path)
        return
    with replacing(path) as file:
        file.write(to_text(graph, "full").encode())
