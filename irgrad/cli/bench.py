"""``irgrad bench``: what a model's forward pass and its gradients take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from irgrad.cli.common import Steps, model_argument, parse_wrt, seed_option, show, show_table
from irgrad.cli.running import (
    Joint,
    described,
    feed_options,
    gradient_options,
    load_with_loss,
    made_feeds,
    threads_option,
)
from irgrad.cli.tables import Table
from irgrad.cost import cost
from irgrad.graph import Graph
from irgrad.profiling import Times, measure, profile
from irgrad.report.units import bytes_text, flops_text
from irgrad.runtime import MemoryReport, compile
from irgrad.runtime.specialise import specialise
from irgrad.types import TensorType

__all__ = ["command"]


@click.command("bench", short_help="Measure a model and its gradients.")
@model_argument
@gradient_options
@feed_options
@seed_option
@click.option("--executor", default="numpy", show_default=True, metavar="NAME", help="What runs the graphs.")
@threads_option
@click.option(
    "--rounds", default=20, show_default=True, metavar="N", type=click.IntRange(1), help="How many runs are measured."
)
def command(
    model: Path | None,
    example: str | None,
    wrt: str,
    loss: str | None,
    output: str | None,
    feeds: tuple[str, ...],
    dims: tuple[str, ...],
    weights: str | None,
    seed: int,
    executor: str,
    threads: int | None,
    rounds: int,
) -> None:
    """Measure what the forward pass of an ONNX model takes, and its joint graph with all gradients.

    Times are medians over the runs, with their quartiles, after some runs that do not count. "first run" is what a first one
    takes beyond a later one: planning, and compiling as far as it is waited for. "outside of nodes" is what a run takes
    beside its kernels. Memory is that of results, without feeds and weights.

    \b
    Examples:
      irgrad bench --example squeezenet
      irgrad bench model.onnx --loss cross_entropy --dim N=32 --threads 2
      irgrad bench model.onnx --executor onnxruntime --rounds 100
    """
    with Steps("load", 5) as steps:
        loading = _Clock()
        graph, label, output = load_with_loss(model, example, loss, output)
        load_seconds = loading.seconds
        steps.next("feeds")
        arrays, notes = made_feeds(graph, feeds, dims, weights or ("random" if example else "model"), seed)
        steps.next("differentiate")
        differentiating = _Clock()
        joint = Joint.of(graph, parse_wrt(wrt), output)
        grad_seconds = differentiating.seconds
        steps.next("run the forward pass")
        forward = _measured(graph, arrays, executor, threads, rounds)
        steps.next("run the joint graph")
        both = _measured(joint.graph, {**arrays, **joint.cotangents(arrays, seed, executor)}, executor, threads, rounds)
    show(f"{label}: {described(graph)}")
    show(f"joint graph: {described(joint.graph)}")
    for note in notes:
        show(f"note: {note}")
    show(f"gradient of {joint.what}")
    table = Table("", ">forward", ">joint")
    for name, *cells in _rows(forward, both):
        table.add_row(name, *cells)
    show_table(table)
    show(f"the joint graph takes {both.run.median / forward.run.median:.2f} times the forward pass")
    show(f"read in {load_seconds:.3f} s, differentiated and simplified in {grad_seconds:.3f} s")


@dataclass(frozen=True)
class _Measured:
    """What a graph takes.

    Attributes:
        compiling: seconds of `irgrad.compile`.
        first: seconds of the first run beyond a later one.
        run: seconds of a run.
        outside: seconds of a run outside of its nodes; None where the executor does not tell.
        steps: how many nodes took time of their own; None likewise.
        flops: the arithmetic of a run.
        memory: what the executor tells.
    """

    compiling: float
    first: float
    run: Times
    outside: float | None
    steps: int | None
    flops: int
    memory: MemoryReport


class _Clock:
    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began


def _measured(graph: Graph, feeds: Mapping[str, Any], executor: str, threads: int | None, rounds: int) -> _Measured:
    clock = _Clock()
    executable = compile(graph, executor, threads=threads)
    compiling, clock = clock.seconds, _Clock()
    executable(feeds)
    first = clock.seconds
    run = measure(lambda: executable(feeds), rounds)
    memory = executable.memory
    profiled = profile(executable, feeds, runs=rounds) if executor == "numpy" else None
    inputs = {name: TensorType.of(feeds[name]) for name in graph.inputs}
    return _Measured(
        compiling,
        max(0.0, first - run.median),
        run,
        None if profiled is None else profiled.overhead,
        None if profiled is None else len(profiled.rows),
        cost(specialise(graph, inputs)).total().flops,
        memory,
    )


def _rows(*columns: _Measured) -> list[list[str]]:
    rows = [
        ["compile", *(f"{column.compiling:.3f} s" for column in columns)],
        ["first run", *(f"{column.first:.3f} s" for column in columns)],
        ["run", *(_milliseconds(column.run.median) for column in columns)],
        ["quartiles", *(f"{_milliseconds(c.run.low)} to {_milliseconds(c.run.high)}" for c in columns)],
        ["arithmetic", *(flops_text(column.flops) for column in columns)],
        ["", *(f"{flops_text(column.flops / column.run.median)}/s" for column in columns)],
        ["outside of nodes", *(_outside(column) for column in columns)],
        ["memory", *(_bytes(column.memory.measured_peak) for column in columns)],
    ]
    if any(column.memory.lower_bound is not None for column in columns):
        rows.append(["at least needed", *(_bytes(column.memory.lower_bound) for column in columns)])
    return [row for row in rows if any(row[1:])]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"


def _bytes(size: int | None) -> str:
    return "" if size is None else bytes_text(size)


def _outside(column: _Measured) -> str:
    if column.outside is None or not column.steps:
        return ""
    return f"{1e6 * column.outside:.0f} µs, {1e6 * column.outside / column.steps:.2f} a node"
