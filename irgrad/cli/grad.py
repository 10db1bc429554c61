"""``irgrad grad``: the gradients of a model, in a table, checked against finite differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import click
import numpy as np

from irgrad import api
from irgrad.cli.common import load_model, model_argument, parse_dims, parse_feeds, progress, show, table
from irgrad.files import replacing
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.derivatives import resolve_outputs
from irgrad.passes.loss import LOSSES, Loss
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType

__all__ = ["command"]


@click.command("grad")
@model_argument
@click.option(
    "--wrt",
    default="parameters",
    show_default=True,
    metavar="WHAT",
    help='"parameters", "inputs", or names of any float values, separated by commas.',
)
@click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Add this loss and differentiate it.")
@click.option("--output", metavar="NAME", help="The output to differentiate, where there are several.")
@click.option("--feed", "feeds", multiple=True, metavar="NAME=FILE.npy", help="An array for an input (or a parameter).")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds.")
@click.option(
    "--weights",
    type=click.Choice(["model", "random"]),
    help="The model's own weights (default), or random ones (default with --example: those models ship without theirs).",
)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--check/--no-check", default=True, help="Check against finite differences in float64.")
@click.option("--rows", default=20, show_default=True, help="How many gradients the table shows; 0 for all.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write all results to this file.")
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
    rows: int,
    save: Path | None,
) -> None:
    """Compute the gradients of an ONNX model.

    A scalar output (or --loss) is differentiated as it is; for any other output y, the gradient is that of sum(c * y) with
    a random c.

    \b
    Example:
      irgrad grad --example resnet50
      irgrad grad model.onnx --loss cross_entropy --feed x=x.npy --feed target=y.npy --save grads.npz
    """
    with progress() as bar:
        task = bar.add_task("load", total=5 if check else 4)
        graph, label = load_model(model, example)
        if loss is not None:
            graph, output = api.apply(graph, [Loss(loss, output)]), Loss.result
        bar.update(task, advance=1, description="feeds")
        arrays, notes = _feeds(graph, feeds, dims, weights or ("random" if example else "model"), seed)
        bar.update(task, advance=1, description="differentiate")
        joint, seeds, what = _joint(graph, _names(wrt), output)
        bar.update(task, advance=1, description="run")
        results = compile(joint)({**arrays, **_cotangents(graph, seeds, arrays, seed)})
        verdict = None
        if check:
            bar.update(task, advance=1, description="check against finite differences")
            verdict = GradientChecker(graph, arrays, _names(wrt), list(seeds)).check(np.random.default_rng(seed))
    show(f"{label}: {_count(graph)}")
    show(f"joint graph: {_count(joint)}")
    for note in notes:
        show(f"note: {note}")
    show(f"gradient of {what}")
    _show_gradients(joint, results, rows)
    if verdict is not None:
        show(f"check in float64 along a random direction of all of them: {verdict}")
    if save is not None:
        _save(save, results)
        show(f"saved {len(results)} arrays to {save}")
    if verdict is not None and verdict.conclusive and not verdict.ok:
        raise click.exceptions.Exit(1)


def _names(wrt: str) -> Any:
    return wrt if wrt in ("parameters", "inputs") else [name.strip() for name in wrt.split(",") if name.strip()]


def _feeds(
    graph: Graph, pairs: tuple[str, ...], dims: tuple[str, ...], weights: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    given = parse_feeds(pairs, graph)
    arrays = plausible_feeds(graph, {k: v for k, v in given.items() if k in graph.inputs}, parse_dims(dims), seed)
    notes = []
    made_up = [f"{name} {list(arrays[name].shape)}" for name in arrays if name not in given]
    if made_up:
        notes.append(f"random feeds (seed {seed}) for {', '.join(made_up)}")
    if weights == "random":
        arrays |= plausible_parameters(graph, arrays, seed)
        notes.append(f"random weights (seed {seed}) in place of the model's own")
    return {**arrays, **given}, notes


def _joint(graph: Graph, wrt: Any, output: str | None) -> tuple[Graph, dict[str, TensorType], str]:
    """The joint graph; name → type of the outputs that are differentiated; what that is, in words."""
    outputs = resolve_outputs(graph, None if output is None else [output])
    types = {name: value.tensor_type for name, value in outputs.items()}
    joint = api.vjp(graph, wrt, list(types))
    if _is_scalar(types):
        return joint, types, next(iter(types))
    return joint, types, " + ".join(f"sum(c * {name})" for name in types) + " with random c"


def _is_scalar(types: Mapping[str, TensorType]) -> bool:
    return len(types) == 1 and all(t.shape is not None and all(d == 1 for d in t.shape) for t in types.values())


def _cotangents(
    graph: Graph, types: Mapping[str, TensorType], arrays: Mapping[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """One for a scalar output, otherwise random ones of the shapes that the outputs have for these feeds."""
    shapes: dict[str, tuple[int, ...] | None] = {name: type.static_shape for name, type in types.items()}
    if None in shapes.values():
        results = compile(graph)(arrays)
        shapes = {name: results[name].shape for name in types}
    generator = np.random.default_rng(seed + 1)
    cotangents = {}
    for name, type in types.items():
        shape = shapes[name] or ()
        array = np.ones(shape) if _is_scalar(types) else generator.standard_normal(shape)
        cotangents[f"{name}_cotangent"] = array.astype(type.dtype)
    return cotangents


def _save(path: Path, results: Mapping[str, np.ndarray]) -> None:
    """An .npz archive; written entry by entry, since np.savez takes names as keywords and cannot have one called "file"."""
    with replacing(path) as file, ZipFile(file, "w") as archive:
        for name, array in results.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _count(graph: Graph) -> str:
    roles = dict.fromkeys(Role, 0)
    for node in graph.nodes():
        roles[node.role] += 1
    parts = [f"{count} {role.value}" for role, count in roles.items() if count]
    weights = sum(array.size for array in graph.parameters.values())
    return f"{len(graph)} nodes ({', '.join(parts)}), {len(graph.parameters)} parameters with {weights:,} elements"


def _show_gradients(joint: Graph, results: dict[str, np.ndarray], rows: int) -> None:
    shown = table("gradient of", "shape", ">norm", ">largest")
    pairs = list(joint.gradients.items())
    for name, gradient in pairs[: rows or None]:
        array = results[gradient].astype(np.float64)
        largest = float(np.abs(array).max()) if array.size else 0.0
        shown.add_row(name, str(list(array.shape)), f"{float(np.linalg.norm(array)):.6g}", f"{largest:.6g}")
    show(shown)
    if rows and len(pairs) > rows:
        show(f"... and {len(pairs) - rows} more (--rows 0 shows all)")
