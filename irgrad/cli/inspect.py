"""``irgrad inspect``: what is in a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from irgrad.cli.common import counted, load_model, model_argument, rows_option, show, show_table
from irgrad.cli.tables import Table
from irgrad.coverage import coverage_of
from irgrad.graph import Graph

__all__ = ["command"]


@click.command("inspect", short_help="Show what is in a model.")
@model_argument
@click.option("--text", is_flag=True, help="Print the whole graph instead of the summary.")
@rows_option("parameters")
def command(model: Path | None, example: str | None, text: bool, rows: int) -> None:
    """Show a model's inputs, outputs, parameters and operations, and which of those have no gradient.

    \b
    Examples:
      irgrad inspect model.onnx
      irgrad inspect --example densenet121
    """
    graph, label = load_model(model, example)
    if text:
        click.echo(str(graph))
        return
    show(f"{label}: graph {graph.name!r}, {counted(len(graph), 'node')}")
    for key, told in graph.metadata.items():
        show(f"{key}: {told if len(told) < 200 else told[:200] + '...'}")
    signature = Table("", "name", "type")
    for name, value in graph.inputs.items():
        signature.add_row("input", name, str(value.type))
    for name, value in graph.outputs.items():
        signature.add_row("output", name, str(value.type))
    show_table(signature)
    _show_parameters(graph, rows)
    _show_operations(graph)


def _show_parameters(graph: Graph, rows: int) -> None:
    parameters = graph.parameters
    elements = sum(array.size for array in parameters.values())
    size = sum(array.nbytes for array in parameters.values())
    show(f"\n{counted(len(parameters), 'parameter')}, {counted(elements, 'element')}, {_size(size)}")
    shown = Table("parameter", "type")
    for name in list(parameters)[: rows or None]:
        shown.add_row(name, str(graph.value(name).type))
    if parameters:
        show_table(shown)
    if rows and len(parameters) > rows:
        show(f"... and {len(parameters) - rows} more (--rows 0 shows all)")


def _size(bytes: int) -> str:
    return counted(bytes, "byte") if bytes < 100_000 else f"{bytes / 1e6:,.1f} MB"


def _show_operations(graph: Graph) -> None:
    counts = Counter(node.op for node in graph.nodes())
    shown = Table("operation", ">count", "kernel", "gradient")
    missing = []
    for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0].qualified_name)):
        row = coverage_of(op)
        shown.add_row(row.name, str(count), row.kernel, row.gradient)
        if row.gradient == "none":
            missing.append(row.name)
    show("")
    show_table(shown)
    show(f"without a gradient: {', '.join(missing)}" if missing else "every operation has a gradient (or a declared zero)")
