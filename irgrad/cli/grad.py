"""``irgrad grad``: the gradients of a model, in a table, checked against finite differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import click
import numpy as np

from irgrad import api
from irgrad.cli.common import (
    Steps,
    counted,
    load_model,
    model_argument,
    parse_dims,
    parse_feeds,
    rows_option,
    seed_option,
    show,
    show_table,
)
from irgrad.cli.tables import Table, align
from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.gradcheck import GradientChecker
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.derivatives import resolve_outputs
from irgrad.passes.loss import LOSSES, Loss
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType

__all__ = ["command"]


@click.command("grad", short_help="Compute the gradients of a model.")
@model_argument
@click.option(
    "--wrt",
    default="parameters",
    show_default=True,
    metavar="WHAT",
    help='"parameters", "inputs", or names of any float values, separated by commas.',
)
@click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Add this loss and differentiate it.")
@click.option(
    "--output", metavar="NAME", help="What to differentiate: an output or any other value.  [default: all outputs]"
)
@click.option("--feed", "feeds", multiple=True, metavar="NAME=FILE.npy", help="An array for an input (or a parameter).")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds.")
@click.option(
    "--weights",
    type=click.Choice(["model", "random"]),
    help="The model's own weights (default), or random ones (default with --example: those models ship without theirs).",
)
@seed_option
@click.option("--check/--no-check", default=True, show_default=True, help="Check against finite differences in float64.")
@rows_option("gradients")
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
    a random c. Inputs that are not fed get random arrays. Exits with 1 where a gradient disagrees with finite differences.

    \b
    Examples:
      irgrad grad --example resnet50
      irgrad grad model.onnx --loss cross_entropy --feed x=x.npy --feed target=y.npy
      irgrad grad model.onnx --wrt inputs --dim N=4 --save grads.npz
    """
    if save is not None:
        _refuse_early(save, model)
    with Steps("load", 5 if check else 4) as steps:
        graph, label = load_model(model, example)
        if output is not None and output not in graph.outputs:
            graph.set_outputs({**graph.outputs, output: graph.value(output)})
        if loss is not None:
            graph, output = api.apply(graph, [Loss(loss, output)]), Loss.result
        steps.next("feeds")
        arrays, notes = _feeds(graph, feeds, dims, weights or ("random" if example else "model"), seed)
        steps.next("differentiate")
        joint, seeds, what = _joint(graph, _names(wrt), output)
        steps.next("run")
        results = compile(joint)({**arrays, **_cotangents(graph, seeds, arrays, seed)})
        verdict = None
        if check:
            steps.next("check against finite differences")
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
        show(f"saved {counted(len(results), 'array')} to {save}")
    if verdict is not None and verdict.conclusive and not verdict.ok:
        raise click.exceptions.Exit(1)


def _names(wrt: str) -> Any:
    names = [name.strip() for name in wrt.split(",") if name.strip()]
    if not names:
        raise UsageError('--wrt names nothing; give "parameters", "inputs" or names of values')
    return names[0] if names in (["parameters"], ["inputs"]) else names


def _refuse_early(save: Path, model: Path | None) -> None:
    """What would fail at the very end, or cost the user the model, is said before the work is done."""
    if save.is_dir() or not save.parent.is_dir():
        reason = "it is a folder" if save.is_dir() else f"there is no folder {str(save.parent)!r}"
        raise UsageError(f"{str(save)!r} cannot be written: {reason}")
    if model is not None and model.exists() and save.exists() and save.samefile(model):
        raise UsageError(f"--save {save} would overwrite the model itself")


def _feeds(
    graph: Graph, pairs: tuple[str, ...], dims: tuple[str, ...], weights: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    given = parse_feeds(pairs, graph)
    arrays = plausible_feeds(graph, {k: v for k, v in given.items() if k in graph.inputs}, parse_dims(dims, graph), seed)
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
    parameters = f"{counted(len(graph.parameters), 'parameter')} with {counted(weights, 'element')}"
    return f"{counted(len(graph), 'node')} ({', '.join(parts)}), {parameters}"


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
