"""``irgrad inspect``: what is in a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from irgrad.cli.common import load_model, model_argument, show, table
from irgrad.coverage import coverage_of
from irgrad.graph import Graph

__all__ = ["command"]


@click.command("inspect")
@model_argument
@click.option("--text", is_flag=True, help="Print the whole graph instead of the summary.")
@click.option("--rows", default=20, show_default=True, help="How many parameters are listed; 0 for all.")
def command(model: Path | None, example: str | None, text: bool, rows: int) -> None:
    """Show a model's inputs, outputs, parameters and operations, and which of those have no gradient.

    \b
    Example:
      irgrad inspect model.onnx
      irgrad inspect --example densenet121
    """
    graph, label = load_model(model, example)
    if text:
        click.echo(str(graph))
        return
    show(f"{label}: graph {graph.name!r}, {len(graph)} nodes")
    for key, told in graph.metadata.items():
        show(f"{key}: {told if len(told) < 200 else told[:200] + '...'}")
    signature = table("", "name", "type")
    for name, value in graph.inputs.items():
        signature.add_row("input", name, str(value.type))
    for name, value in graph.outputs.items():
        signature.add_row("output", name, str(value.type))
    show(signature)
    _show_parameters(graph, rows)
    _show_operations(graph)


def _show_parameters(graph: Graph, rows: int) -> None:
    parameters = graph.parameters
    elements = sum(array.size for array in parameters.values())
    size = sum(array.nbytes for array in parameters.values())
    show(f"\n{len(parameters)} parameters, {elements:,} elements, {size / 1e6:,.1f} MB")
    shown = table("parameter", "type")
    for name in list(parameters)[: rows or None]:
        shown.add_row(name, str(graph.value(name).type))
    if parameters:
        show(shown)
    if rows and len(parameters) > rows:
        show(f"... and {len(parameters) - rows} more (--rows 0 shows all)")


def _show_operations(graph: Graph) -> None:
    counts = Counter(node.op for node in graph.nodes())
    shown = table("operation", ">count", "kernel", "gradient")
    missing = []
    for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0].qualified_name)):
        row = coverage_of(op)
        shown.add_row(row.name, str(count), row.kernel, row.gradient)
        if row.gradient == "none":
            missing.append(row.name)
    show("")
    show(shown)
    show(f"without a gradient: {', '.join(missing)}" if missing else "every operation has a gradient (or a declared zero)")
