"""What the commands that run a joint graph share: options, feeds, cotangents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from irgrad import api
from irgrad.cli.common import F, Steps, counted, load_model, parse_dims, parse_feeds, parse_wrt
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.derivatives import resolve_outputs
from irgrad.passes.loss import LOSSES, Loss
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.runtime import compile
from irgrad.types import TensorType

__all__ = [
    "Joint",
    "described",
    "feed_options",
    "gradient_options",
    "load_with_loss",
    "loaded_to_run",
    "made_feeds",
    "threads_option",
]


def gradient_options(command: F) -> F:
    """Decorator: the options --wrt, --loss and --output."""
    command = click.option(
        "--output", metavar="NAME", help="What to differentiate: an output or any other value.  [default: all outputs]"
    )(command)
    command = click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Add this loss and differentiate it.")(command)
    return click.option(
        "--wrt",
        default="parameters",
        show_default=True,
        metavar="WHAT",
        help='"parameters", "inputs", or names of any float values, separated by commas.',
    )(command)


def feed_options(command: F) -> F:
    """Decorator: the options --feed, --dim and --weights."""
    command = click.option(
        "--weights",
        type=click.Choice(["model", "random"]),
        help="The model's own weights (default), or random ones (default with --example: those models ship without theirs).",
    )(command)
    command = click.option(
        "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="The size of a symbolic dimension of random feeds."
    )(command)
    return click.option(
        "--feed", "feeds", multiple=True, metavar="NAME=FILE.npy", help="An array for an input (or a parameter)."
    )(command)


def threads_option(command: F) -> F:
    """Decorator: the option --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        metavar="N",
        help="How many threads a run uses.  [default: the executor's choice]",
    )(command)


def load_with_loss(
    model: Path | None, example: str | None, loss: str | None, output: str | None
) -> tuple[Graph, str, str | None]:
    """The graph of MODEL or --example, what to call it, and the output to differentiate: that of --loss where it is given.

    Raises:
        IrgradError: the model cannot be read, or a name is unknown.
    """
    graph, label = load_model(model, example)
    if output is not None and output not in graph.outputs:
        graph.set_outputs({**graph.outputs, output: graph.value(output)})
    if loss is not None:
        return api.apply(graph, [Loss(loss, output)]), label, Loss.result
    return graph, label, output


def made_feeds(
    graph: Graph, pairs: tuple[str, ...], dims: tuple[str, ...], weights: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays for a graph, and notes on those that were made up.

    Raises:
        UsageError: an option is malformed, or nothing plausible can be made up for an input.
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
    """A joint graph, and what it is the gradient of.

    Attributes:
        forward: the graph that was differentiated.
        graph: the joint graph.
        types: name → type of the outputs that are differentiated.
        what: what that is, in words.
    """

    forward: Graph
    graph: Graph
    types: Mapping[str, TensorType]
    what: str

    @classmethod
    def of(cls, forward: Graph, wrt: Any, output: str | None) -> Joint:
        """The joint graph of an output, or of all of them.

        Raises:
            AdjointError, UnsupportedOpError: see `irgrad.vjp`.
        """
        outputs = resolve_outputs(forward, None if output is None else [output])
        types = {name: value.tensor_type for name, value in outputs.items()}
        what = " + ".join(f"sum(c * {name})" for name in types) + " with random c"
        return cls(forward, api.vjp(forward, wrt, list(types)), types, next(iter(types)) if _is_scalar(types) else what)

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


def loaded_to_run(
    model: Path | None,
    example: str | None,
    steps: Steps,
    *,
    grad: bool,
    wrt: str,
    loss: str | None,
    output: str | None,
    feeds: tuple[str, ...],
    dims: tuple[str, ...],
    weights: str | None,
    seed: int,
) -> tuple[Graph, str, dict[str, np.ndarray], list[str]]:
    """The graph that MODEL or --example and --grad ask for, what to call it, arrays for it, and notes on what was made up.

    Raises:
        IrgradError: the model cannot be read, an option is malformed, or there is no gradient.
    """
    graph, label, output = load_with_loss(model, example, loss, output)
    steps.next("feeds")
    arrays, notes = made_feeds(graph, feeds, dims, weights or ("random" if example else "model"), seed)
    if grad:
        steps.next("differentiate")
        joint = Joint.of(graph, parse_wrt(wrt), output)
        graph, arrays = joint.graph, {**arrays, **joint.cotangents(arrays, seed)}
        notes.append(f"gradient of {joint.what}")
    return graph, label, arrays, notes


def _is_scalar(types: Mapping[str, TensorType]) -> bool:
    return len(types) == 1 and all(t.shape is not None and all(d == 1 for d in t.shape) for t in types.values())


def described(graph: Graph) -> str:
    """The size of a graph: its nodes by role and its parameters."""
    roles = dict.fromkeys(Role, 0)
    for node in graph.nodes():
        roles[node.role] += 1
    parts = [f"{count} {role.value}" for role, count in roles.items() if count]
    weights = sum(array.size for array in graph.parameters.values())
    parameters = f"{counted(len(graph.parameters), 'parameter')} with {counted(weights, 'element')}"
    return f"{counted(len(graph), 'node')} ({', '.join(parts)}), {parameters}"
