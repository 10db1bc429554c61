"""What the commands that differentiate share: their options, the joint graph, feeds, what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile

import click
import numpy as np

from irgrad import api
from irgrad.cli.common import counted, parse_dims, parse_feeds
from irgrad.errors import UsageError
from irgrad.files import replacing
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.derivatives import resolve_outputs
from irgrad.passes.loss import LOSSES
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType

__all__ = ["Joint", "described", "feed_options", "gradient_options", "made_feeds", "save_arrays", "wrt_names"]

F = TypeVar("F", bound=Callable[..., Any])


def gradient_options(command: F) -> F:
    """Decorator: the options --wrt, --loss and --output."""
    for option in (
        click.option(
            "--output", metavar="NAME", help="What to differentiate: an output or any other value.  [default: all outputs]"
        ),
        click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Add this loss and differentiate it."),
        click.option(
            "--wrt",
            default="parameters",
            show_default=True,
            metavar="WHAT",
            help='"parameters", "inputs", or names of any float values, separated by commas.',
        ),
    ):
        command = option(command)
    return command


def feed_options(command: F) -> F:
    """Decorator: the options --feed, --dim and --weights."""
    for option in (
        click.option(
            "--weights",
            type=click.Choice(["model", "random"]),
            help="The model's own weights (default), or random ones (default with --example: those models ship without "
            "theirs).",
        ),
        click.option(
            "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds."
        ),
        click.option(
            "--feed", "feeds", multiple=True, metavar="NAME=FILE.npy", help="An array for an input (or a parameter)."
        ),
    ):
        command = option(command)
    return command


def wrt_names(wrt: str) -> Any:
    """What `wrt` means to `irgrad.api`: "parameters", "inputs", or a list of names.

    Raises:
        UsageError: it names nothing.
    """
    names = [name.strip() for name in wrt.split(",") if name.strip()]
    if not names:
        raise UsageError('--wrt names nothing; give "parameters", "inputs" or names of values')
    return names[0] if names in (["parameters"], ["inputs"]) else names


def made_feeds(
    graph: Graph, pairs: tuple[str, ...], dims: tuple[str, ...], weights: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of all inputs, random where none is given, and what there is to say about them.

    Args:
        graph: what is fed.
        pairs: those of --feed.
        dims: those of --dim.
        weights: "model", or "random" for random parameters.
        seed: the seed of what is random.

    Raises:
        UsageError: an option is malformed or names what there is not.
    """
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


@dataclass(frozen=True)
class Joint:
    """A joint graph and what it differentiates.

    Attributes:
        forward: the graph that it was made of.
        graph: the joint graph.
        types: name → type of the outputs that are differentiated.
        what: what is differentiated, in words.
    """

    forward: Graph
    graph: Graph
    types: Mapping[str, TensorType]
    what: str

    @classmethod
    def of(cls, graph: Graph, wrt: Any, output: str | None) -> Joint:
        """The joint graph of an output, or of all of them.

        Raises:
            AdjointError, UnsupportedOpError: see `irgrad.api.vjp`.
        """
        outputs = resolve_outputs(graph, None if output is None else [output])
        types = {name: value.tensor_type for name, value in outputs.items()}
        joint = api.vjp(graph, wrt, list(types))
        if _is_scalar(types):
            return cls(graph, joint, types, next(iter(types)))
        return cls(graph, joint, types, " + ".join(f"sum(c * {name})" for name in types) + " with random c")

    def cotangents(self, arrays: Mapping[str, np.ndarray], seed: int, executor: str = "numpy") -> dict[str, np.ndarray]:
        """One for a scalar output, otherwise random ones of the shapes that the outputs have for these feeds."""
        shapes: dict[str, tuple[int, ...] | None] = {name: type.static_shape for name, type in self.types.items()}
        if None in shapes.values():
            results = compile(self.forward, executor)(arrays)
            shapes = {name: results[name].shape for name in self.types}
        generator = np.random.default_rng(seed + 1)
        cotangents = {}
        for name, type in self.types.items():
            shape = shapes[name] or ()
            array = np.ones(shape) if _is_scalar(self.types) else generator.standard_normal(shape)
            cotangents[f"{name}_cotangent"] = array.astype(type.dtype)
        return cotangents


def _is_scalar(types: Mapping[str, TensorType]) -> bool:
    return len(types) == 1 and all(t.shape is not None and all(d == 1 for d in t.shape) for t in types.values())


def save_arrays(path: Path, results: Mapping[str, np.ndarray]) -> None:
    """An .npz archive; written entry by entry, since np.savez takes names as keywords and cannot have one called "file"."""
    with replacing(path) as file, ZipFile(file, "w") as archive:
        for name, array in results.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def described(graph: Graph) -> str:
    """How many nodes of which role a graph has, and how many parameters."""
    roles = dict.fromkeys(Role, 0)
    for node in graph.nodes():
        roles[node.role] += 1
    parts = [f"{count} {role.value}" for role, count in roles.items() if count]
    weights = sum(array.size for array in graph.parameters.values())
    parameters = f"{counted(len(graph.parameters), 'parameter')} with {counted(weights, 'element')}"
    return f"{counted(len(graph), 'node')} ({', '.join(parts)}), {parameters}"
