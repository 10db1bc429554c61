"""``irgrad trace``: a run step by step, with what each value is like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from irgrad.cli.common import (
    Steps,
    counted,
    model_argument,
    refuse_early,
    rows_option,
    seed_option,
    show,
    show_table,
)
from irgrad.cli.running import described, feed_options, gradient_options, loaded_to_run
from irgrad.cli.shown import refuse_without_grad
from irgrad.cli.tables import Table
from irgrad.errors import ExecutionError
from irgrad.files import save_arrays
from irgrad.tracing import Step, Trace, TracedValue, trace

__all__ = ["command"]


@click.command("trace", short_help="Run a model step by step.")
@model_argument
@click.option("--grad", is_flag=True, help="Run the joint graph, with the backward nodes.")
@gradient_options
@feed_options
@seed_option
@click.option("--nan", is_flag=True, help="Stop at the first node that makes a NaN or an Inf out of finite operands.")
@click.option(
    "--node", "patterns", multiple=True, metavar="PATTERN", help='Only nodes of this name or origin, such as "layer1/*".'
)
@rows_option("values")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write the values to this file.")
def command(
    model: Path | None,
    example: str | None,
    grad: bool,
    wrt: str,
    loss: str | None,
    output: str | None,
    feeds: tuple[str, ...],
    dims: tuple[str, ...],
    weights: str | None,
    seed: int,
    nan: bool,
    patterns: tuple[str, ...],
    rows: int,
    save: Path | None,
) -> None:
    """Run an ONNX model, or with --grad its joint graph, node by node, and show what each value is like.

    The statistics are those of the finite elements. With --nan, what is shown ends with the node to blame, and the exit code
    is 1; where that is a backward node, its origin is the forward node that it differentiates.

    \b
    Examples:
      irgrad trace --example squeezenet --rows 0
      irgrad trace model.onnx --feed x=x.npy --node "layer1/*" --save values.npz
      irgrad trace model.onnx --grad --loss cross_entropy --nan
    """
    refuse_without_grad(grad)
    if save is not None:
        refuse_early("--save", save, model)
    seen: list[Step] = []
    found: Trace | None = None
    with Steps("load", 4 if grad else 3) as steps:
        graph, label, arrays, notes = loaded_to_run(
            model,
            example,
            steps,
            grad=grad,
            wrt=wrt,
            loss=loss,
            output=output,
            feeds=feeds,
            dims=dims,
            weights=weights,
            seed=seed,
        )
        steps.next("run")
        try:
            found = trace(graph, arrays, nodes=patterns or "*", stop_at_nan=nan, keep=save is not None, on_step=seen.append)
        except ExecutionError as error:
            failure = error
    show(f"{label}: {described(graph)}")
    for note in notes:
        show(f"note: {note}")
    if found is None:
        _show_steps(seen, rows, last=True)
        raise failure
    for value in found.inputs:
        if not value.finite:
            show(f"note: not finite from the start: {value}")
    _show_steps(seen, rows, last=nan)
    if save is not None:
        kept = {value.name: value.array for step in seen for value in step.outputs}
        save_arrays(save, kept)
        show(f"saved {counted(len(kept), 'value')} to {save}")
    if found.culprit is not None:
        show(found.culprit.complaint)
        if nan:
            raise click.exceptions.Exit(1)
    elif nan:
        show("no node makes a NaN or an Inf out of finite operands")


def _show_steps(steps: Sequence[Step], rows: int, *, last: bool) -> None:
    """A table of the values of some steps: of all, or of the first or last ones.

    Args:
        steps: the steps.
        rows: how many values at most, 0 for all.
        last: leave out the first ones where there are more, which otherwise are the last ones.
    """
    values = [(step, value) for step in steps for value in step.outputs]
    shown = values if not rows else values[-rows:] if last else values[:rows]
    left_out = len(values) - len(shown)
    if left_out and last:
        show(f"... {left_out:,} before (--rows 0 shows all)")
    table = Table(
        "node", "operation", "role", "made for", "value", *(f">{name}" for name in (*_NUMBERS, "zeros", "NaN", "Inf"))
    )
    for step, value in shown:
        table.add_row(step.node, step.op, step.role.value, step.origin or "", f"{value.name}: {value.type}", *_cells(value))
    show_table(table)
    if left_out and not last:
        show(f"... and {left_out:,} more (--rows 0 shows all)")


_NUMBERS = ("min", "max", "mean", "std", "norm")


def _cells(value: TracedValue) -> list[str]:
    found = value.statistics
    if found is None:
        return [""] * (len(_NUMBERS) + 3)
    numbers = [getattr(found, name) for name in _NUMBERS]
    texts = ["" if number is None else f"{number:.4g}" for number in numbers]
    return [*texts, f"{found.zeros:.0%}", f"{found.nan:,}", f"{found.inf:,}"]
