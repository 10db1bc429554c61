"""The group of commands, and what they have in common: errors in one sentence, exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from irgrad.errors import IrgradError

__all__ = ["cli", "main"]

_COMMANDS = ("check", "grad", "inspect", "ops", "opt")


class _Lazy(click.Group):
    """Imports a command's module only when that command is asked for, so that ``--help`` is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = import_module(f"irgrad.cli.{name}").command
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
    """Gradients of ONNX models, as graphs."""


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; a mistake of the user's prints one sentence and exits with 2."""
    try:
        return cli(args=None if arguments is None else list(arguments), prog_name="irgrad")
    except IrgradError as error:
        click.echo(f"irgrad: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        click.echo("irgrad: there is not enough memory for this model", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(0)
