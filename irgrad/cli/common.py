"""What several commands share: the model argument, feeds, tables, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from irgrad.api import load
from irgrad.bundled import BUNDLED, bundled_model
from irgrad.cli.tables import Table
from irgrad.errors import UsageError
from irgrad.graph import Graph
from irgrad.literals import counted
from irgrad.types import TensorType

__all__ = [
    "Steps",
    "counted",
    "load_model",
    "model_argument",
    "parse_dims",
    "parse_feeds",
    "parse_wrt",
    "refuse_early",
    "rows_option",
    "seed_option",
    "show",
    "show_table",
]

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


def rows_option(what: str) -> Callable[[F], F]:
    """Decorator: the option --rows, of a table of `what`."""
    return click.option(
        "--rows",
        default=20,
        show_default=True,
        metavar="N",
        type=click.IntRange(0),
        help=f"How many {what} are listed; 0 for all.",
    )


def seed_option(command: F) -> F:
    """Decorator: the option --seed."""
    return click.option(
        "--seed",
        default=0,
        show_default=True,
        metavar="N",
        type=click.IntRange(0),
        help="The seed of all random numbers.",
    )(command)


def load_model(model: Path | None, example: str | None) -> tuple[Graph, str]:
    """The graph that MODEL or --example names, and what to call it.

    Raises:
        UsageError: neither is given, or both are; the file does not exist.
        ModelError: it is defective.
    """
    if (model is None) == (example is None):
        raise UsageError("name one model: a file, or --example NAME")
    if example is None and str(model) in BUNDLED and not Path(str(model)).exists():
        raise UsageError(f"there is no file {str(model)!r}; the bundled model of that name is --example {model}")
    path = bundled_model(example) if example is not None else model
    return load(path), example or str(path)


def refuse_early(option: str, path: Path, model: Path | None) -> None:
    """What would fail at the very end, or cost the user the model, is said before the work is done.

    Raises:
        UsageError: the file that an option names cannot be written, or is the model.
    """
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        raise UsageError(f"{str(path)!r} cannot be written: {reason}")
    if model is not None and model.exists() and path.exists() and path.samefile(model):
        raise UsageError(f"{option} {path} would overwrite the model itself")


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
        except OSError as error:
            raise UsageError(f"the file {file!r} cannot be read: {error.strerror or error}") from None
        except (EOFError, ValueError) as error:
            raise UsageError(f"the file {file!r} is no whole .npy array: {error}") from None
        if not isinstance(feeds[name], np.ndarray):
            raise UsageError(f"the file {file!r} is an .npz archive; --feed takes a single array in a .npy file")
    return feeds


def parse_dims(pairs: Sequence[str], graph: Graph) -> dict[str, int]:
    """The sizes of ``NAME=SIZE`` options.

    Raises:
        UsageError: an option has another form, or no input has a dimension of that name.
    """
    types = [value.type for value in graph.inputs.values()]
    symbols = dict.fromkeys(d for t in types if isinstance(t, TensorType) for d in t.shape or () if isinstance(d, str))
    dims = {}
    for pair in pairs:
        name, separator, size = pair.rpartition("=")
        if not separator or not (size.isascii() and size.isdecimal()):
            raise UsageError(f"--dim takes NAME=SIZE with a whole number, not {pair!r}")
        if name not in symbols:
            known = ", ".join(symbols) or "none"
            raise UsageError(f"no input has a symbolic dimension {name!r}; those of the inputs are {known}")
        dims[name] = int(size)
    return dims


def parse_wrt(wrt: str) -> Any:
    """What --wrt names: "parameters", "inputs", or a list of names.

    Raises:
        UsageError: it names nothing.
    """
    names = [name.strip() for name in wrt.split(",") if name.strip()]
    if not names:
        raise UsageError('--wrt names nothing; give "parameters", "inputs" or names of values')
    return names[0] if names in (["parameters"], ["inputs"]) else names


def show(line: str) -> None:
    """Print a line."""
    console.print(line, markup=False)


def show_table(table: Table) -> None:
    """Print a table: folded to the terminal's width, or one line per row where the output is no terminal."""
    heading, *lines = table.lines(console.width if console.is_terminal else None)
    console.print(Text(heading, style="bold"))
    for line in lines:
        show(line)


class Steps:
    """A progress display on the terminal's error stream; nothing where that is no terminal.

    Args:
        first: what is being done to begin with.
        total: how many steps there are.
    """

    def __init__(self, first: str, total: int) -> None:
        terminal = Console(stderr=True)
        self._bar: Progress | None = None
        if terminal.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
            self._bar = Progress(*columns, console=terminal, transient=True)
            self._task = self._bar.add_task(first, total=total)

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def next(self, description: str) -> None:
        """One step is done; the next one begins."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=description)

    def show(self, line: str) -> None:
        """Print a line above the display."""
        self.__exit__()
        show(line)
        self.__enter__()
