"""``irgrad grad``: the gradients of a model, in a table, checked against finite differences."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from irgrad import api
from irgrad.cli.common import (
    Steps,
    counted,
    model_argument,
    parse_wrt,
    refuse_early,
    rows_option,
    seed_option,
    show,
    show_table,
)
from irgrad.cli.running import (
    Joint,
    described,
    feed_options,
    gradient_options,
    load_with_loss,
    made_feeds,
)
from irgrad.cli.tables import Table, align
from irgrad.files import save_arrays
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph
from irgrad.runtime import compile

__all__ = ["command"]


@click.command("grad", short_help="Compute the gradients of a model.")
@model_argument
@gradient_options
@feed_options
@seed_option
@click.option("--check/--no-check", default=True, show_default=True, help="Check against finite differences in float64.")
@click.option("--executor", default="numpy", show_default=True, metavar="NAME", help="What runs the joint graph.")
@rows_option("gradients")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write all results to this file.")
@click.option(
    "--onnx", "written", type=click.Path(path_type=Path), metavar="FILE.onnx", help="Write the joint graph to this file."
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
    check: bool,
    executor: str,
    rows: int,
    save: Path | None,
    written: Path | None,
) -> None:
    """Compute the gradients of an ONNX model.

    A scalar output (or --loss) is differentiated as it is; for any other output y, the gradient is that of sum(c * y) with
    a random c. Inputs that are not fed get random arrays. Exits with 1 where a gradient disagrees with finite differences.

    \b
    Examples:
      irgrad grad --example resnet50
      irgrad grad model.onnx --loss cross_entropy --feed x=x.npy --feed target=y.npy
      irgrad grad model.onnx --wrt inputs --dim N=4 --save grads.npz
      irgrad grad model.onnx --wrt inputs --onnx joint.onnx
      irgrad grad model.onnx --executor onnxruntime
    """
    for option, path in (("--save", save), ("--onnx", written)):
        if path is not None:
            refuse_early(option, path, model)
    with Steps("load", 5 if check else 4) as steps:
        graph, label, output = load_with_loss(model, example, loss, output)
        steps.next("feeds")
        arrays, notes = made_feeds(graph, feeds, dims, weights or ("random" if example else "model"), seed)
        steps.next("differentiate")
        joint = Joint.of(graph, parse_wrt(wrt), output)
        steps.next("run")
        results = compile(joint.graph, executor)({**arrays, **joint.cotangents(arrays, seed, executor)})
        verdict = None
        if check:
            steps.next("check against finite differences")
            verdict = GradientChecker(graph, arrays, parse_wrt(wrt), list(joint.types)).check(np.random.default_rng(seed))
    show(f"{label}: {described(graph)}")
    show(f"joint graph: {described(joint.graph)}")
    for note in notes:
        show(f"note: {note}")
    show(f"gradient of {joint.what}")
    _show_gradients(joint.graph, results, rows)
    if verdict is not None:
        show(f"check in float64 along a random direction of all of them: {verdict}")
    if save is not None:
        save_arrays(save, results)
        show(f"saved {counted(len(results), 'array')} to {save}")
    if written is not None:
        api.save(joint.graph, written)
        show(f"wrote the joint graph to {written}")
    if verdict is not None and verdict.conclusive and not verdict.ok:
        raise click.exceptions.Exit(1)


def _show_gradients(joint: Graph, results: dict[str, np.ndarray], rows: int) -> None:
    shown = Table("gradient of", "shape", ">norm", ">largest")
    names = list(joint.gradients)[: rows or None]
    arrays = [results[joint.gradients[name]].astype(np.float64) for name in names]
    norms = align([float(np.linalg.norm(array)) for array in arrays])
    largest = align([float(np.abs(array).max(initial=0)) for array in arrays])
    for name, array, *numbers in zip(names, arrays, norms, largest, strict=True):
        shown.add_row(name, str(list(array.shape)), *numbers)
    show_table(shown)
    if len(joint.gradients) > len(names):
        show(f"... and {len(joint.gradients) - len(names)} more (--rows 0 shows all)")
