"""``irgrad profile``: which nodes the time of a run goes to."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import Steps, model_argument, refuse_early, seed_option, show, show_table
from irgrad.cli.running import described, feed_options, gradient_options, loaded_to_run, threads_option
from irgrad.cli.shown import refuse_without_grad
from irgrad.cli.tables import Table
from irgrad.profiling import NodeTime, Profile, Share, profile
from irgrad.report.units import bytes_text, flops_text

__all__ = ["command"]


@click.command("profile", short_help="Show which nodes the time goes to.")
@model_argument
@click.option("--grad", is_flag=True, help="Run the joint graph, with the backward nodes.")
@gradient_options
@feed_options
@seed_option
@threads_option
@click.option(
    "--rounds", default=10, show_default=True, metavar="N", type=click.IntRange(1), help="How many runs are measured."
)
@click.option(
    "--top", default=20, show_default=True, metavar="N", type=click.IntRange(0), help="How many nodes are listed; 0 for all."
)
@click.option("--trace", "traced", type=click.Path(path_type=Path), metavar="FILE.json", help="Write a trace for Chrome.")
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
    threads: int | None,
    rounds: int,
    top: int,
    traced: Path | None,
) -> None:
    """Run an ONNX model, or with --grad its joint graph, on numpy, and show which nodes the time goes to.

    The time of a node is the median over the runs, after some that do not count. Bytes are those that a node reads and
    writes. The file of --trace is for chrome://tracing or ui.perfetto.dev.

    \b
    Examples:
      irgrad profile --example squeezenet
      irgrad profile model.onnx --grad --loss cross_entropy --dim N=32 --top 5
      irgrad profile model.onnx --grad --trace trace.json
    """
    refuse_without_grad(grad)
    if traced is not None:
        refuse_early("--trace", traced, model)
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
        found = profile(graph, arrays, runs=rounds, threads=threads)
    show(f"{label}: {described(graph)}")
    for note in notes:
        show(f"note: {note}")
    step = found.step
    show(f"a run takes {1e3 * step.median:.3f} ms ({1e3 * step.low:.3f} to {1e3 * step.high:.3f} in half of the runs)")
    show(f"{len(found.rows):,} nodes take {1e3 * found.seconds:.3f} ms; outside of them pass {1e6 * found.overhead:.0f} µs")
    show("")
    show(str(found))
    _show_shares("operation", found.by_op(), found)
    if found.by_group():
        _show_shares("fused group", found.by_group(), found)
    _show_nodes(found.slowest(), top)
    if traced is not None:
        found.save(traced)
        show(f"wrote a trace to {traced}")


def _show_shares(what: str, shares: dict[str, Share], found: Profile) -> None:
    show("")
    table = Table(what, ">nodes", ">ms", ">share", ">FLOP/s", ">bytes", ">bytes/s")
    for name, share in shares.items():
        table.add_row(name, f"{share.nodes:,}", *_numbers(share.seconds, share.flops, share.bytes, found.seconds))
    show_table(table)


def _show_nodes(rows: list[NodeTime], top: int) -> None:
    show("")
    table = Table("node", "operation", "role", "made for", ">ms", ">share", ">FLOP/s", ">bytes", ">bytes/s")
    total = sum(row.seconds for row in rows)
    shown = rows[: top or None]
    for row in shown:
        op = row.op if row.group is None else f"{row.op}({row.group})"
        table.add_row(row.node, op, row.role.value, row.origin or "", *_numbers(row.seconds, row.flops, row.bytes, total))
    show_table(table)
    if len(rows) > len(shown):
        show(f"... and {len(rows) - len(shown):,} more (--top 0 shows all)")


def _numbers(seconds: float, flops: int | None, size: int | None, total: float) -> list[str]:
    time = seconds or 1e-9  # a clock may not have moved
    return [
        f"{1e3 * seconds:.3f}",
        f"{seconds / total:.0%}" if total else "",
        f"{flops_text(flops / time)}/s" if flops else "",
        bytes_text(size) if size else "",
        f"{bytes_text(size / time)}/s" if size else "",
    ]
