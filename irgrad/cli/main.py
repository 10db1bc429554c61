"""The group of commands, and what they have in common: errors in one sentence, exit code 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click

from irgrad.errors import IrgradError

__all__ = ["cli", "main"]

_COMMANDS = (
    "artifacts",
    "bench",
    "check",
    "diff",
    "draw",
    "grad",
    "inspect",
    "new-plugin",
    "ops",
    "opt",
    "profile",
    "report",
    "trace",
    "view",
)


class _Lazy(click.Group):
    """Imports a command's module only when that command is asked for, so that ``--help`` is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = import_module(f"irgrad.cli.{name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command


def _version() -> str:
    try:
        return version("irgrad")
    except PackageNotFoundError:
        return "not installed"


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="irgrad")
def cli() -> None:
    """Gradients of ONNX models, as graphs.

    \b
    Start with a model that ships inside the onnx package:
      irgrad grad --example resnet50
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    The code is 0 where all went well, 1 where a check says no or the reader of a pipe has seen enough, 2 after one sentence
    about a mistake of the user's, and 130 after an interrupt.
    """
    _print_anything()
    code: Any
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="irgrad", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except IrgradError as error:
        code = _complain(str(error), 2)
    except MemoryError:
        code = _complain("there is not enough memory for this model", 2)
    except (KeyboardInterrupt, click.Abort):
        code = _complain("interrupted", 130)
    except BrokenPipeError:
        # As click and rich do when they meet it first. Nothing is left to be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _print_anything() -> None:
    """Names in a model may have characters that the terminal's encoding lacks: those are escaped, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(sentence: str, code: int) -> int:
    click.echo(f"irgrad: {sentence}", err=True)
    return code
