"""``irgrad diff``: what differs between two graphs."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import counted, load_model, model_argument, rows_option, show, show_table
from irgrad.cli.tables import Table
from irgrad.diff import GraphDiff, diff_graphs
from irgrad.errors import UsageError
from irgrad.graph import Graph
from irgrad.pipeline import Pipeline

__all__ = ["command"]


@click.command("diff", short_help="Show what differs between two graphs.")
@model_argument
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--passes", metavar="PIPELINE", help="Compare the model with what these passes make of it.")
@rows_option("nodes of each kind")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where anything differs.")
def command(
    model: Path | None, other: Path | None, example: str | None, passes: str | None, rows: int, exit_code: bool
) -> None:
    """Show what differs between two models (or graphs as text, .ir), or between a model and what passes make of it.

    Nodes belong together where they do the same with the same, or have the same name.

    \b
    Examples:
      irgrad diff before.onnx after.onnx
      irgrad diff model.onnx --passes "vjp{wrt=inputs},simplify"
      irgrad diff --example resnet50 --passes train_mode
    """
    before, after, labels = _graphs(model, other, example, passes)
    diff = diff_graphs(before, after)
    for label, graph in zip(labels, (before, after), strict=True):
        show(f"{label}: {counted(len(graph), 'node')}")
    if not diff:
        show("nothing differs")
        return
    _show_summary(diff)
    show("")
    for line in diff.lines(rows or None):
        show(line)
    if rows and any(len(kind) > rows for kind in (diff.interface, diff.added, diff.removed, diff.changed)):
        show("(--rows 0 shows all)")
    if exit_code:
        raise click.exceptions.Exit(1)


def _graphs(
    model: Path | None, other: Path | None, example: str | None, passes: str | None
) -> tuple[Graph, Graph, tuple[str, str]]:
    """Both graphs, and what to call them.

    Raises:
        UsageError: it is not clear which two.
    """
    if example is not None and other is None:
        model, other = None, model  # the one file that is given is the second graph then
    if (other is None) == (passes is None):
        raise UsageError("name two models, or one and --passes PIPELINE")
    if passes is not None:
        pipeline = Pipeline(passes)
        before, label = load_model(model, example)
        return before, pipeline.apply(before), (label, f"after {passes}")
    before, label = load_model(model, example)
    after, its_label = load_model(other, None)
    return before, after, (label, its_label)


def _show_summary(diff: GraphDiff) -> None:
    for what, counts in (("operation", diff.by_operation()), ("role", diff.by_role())):
        if counts:
            table = Table(what, ">added", ">removed", ">changed")
            for name, numbers in counts.items():
                table.add_row(name, *(str(number) if number else "-" for number in numbers))
            show_table(table)
            show("")
    show(diff.summary())
