"""What several commands share: the model argument, feeds, tables, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from irgrad.api import load
from irgrad.bundled import BUNDLED, bundled_model
from irgrad.errors import UsageError
from irgrad.graph import Graph

__all__ = ["load_model", "model_argument", "parse_dims", "parse_feeds", "progress", "show", "table"]

F = TypeVar("F", bound=Callable[..., Any])

console = Console(highlight=False, soft_wrap=True)


def model_argument(command: F) -> F:
    """Decorator: the argument MODEL and the option --example."""
    command = click.option(
        "--example",
        metavar="NAME",
        help=f"Use a model that ships inside the onnx package: {', '.join(BUNDLED)}.",
    )(command)
    return click.argument("model", required=False, type=click.Path(path_type=Path))(command)


def load_model(model: Path | None, example: str | None) -> tuple[Graph, str]:
    """The graph that MODEL or --example names, and what to call it.

    Raises:
        UsageError: neither is given, or both are; the file does not exist.
        ModelError: it is defective.
    """
    if (model is None) == (example is None):
        raise UsageError("name one model: a file, or --example NAME")
    path = bundled_model(example) if example is not None else model
    return load(path), example or str(path)


def parse_feeds(pairs: Sequence[str], graph: Graph) -> dict[str, np.ndarray]:
    """The arrays of ``NAME=file.npy`` options.

    Raises:
        UsageError: an option has another form, the name is no input, or the file holds no array.
    """
    feeds = {}
    for pair in pairs:
        name, separator, file = pair.rpartition("=")
        if not separator:
            raise UsageError(f"--feed takes NAME=file.npy, not {pair!r}")
        if name not in graph.inputs and name not in graph.parameters:
            raise UsageError(f"{name!r} is no input of the model; its inputs are {', '.join(graph.inputs) or 'none'}")
        try:
            feeds[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"the file {file!r} cannot be read as a .npy array: {error}") from None
        if not isinstance(feeds[name], np.ndarray):
            raise UsageError(f"the file {file!r} is an .npz archive; --feed takes a single array in a .npy file")
    return feeds


def parse_dims(pairs: Sequence[str]) -> dict[str, int]:
    """The sizes of ``NAME=SIZE`` options.

    Raises:
        UsageError: an option has another form.
    """
    dims = {}
    for pair in pairs:
        name, separator, size = pair.rpartition("=")
        if not separator or not size.isdigit():
            raise UsageError(f"--dim takes NAME=SIZE with a whole number, not {pair!r}")
        dims[name] = int(size)
    return dims


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table; names of columns that start with ">" are flushed right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        # Names are what people look for: they wrap, but are never cut.
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


def show(thing: Any) -> None:
    """Print a line or a table."""
    console.print(thing, markup=False) if isinstance(thing, str) else console.print(thing)


def progress() -> Progress:
    """A progress display on the terminal's error stream; nothing where that is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal,
    )
