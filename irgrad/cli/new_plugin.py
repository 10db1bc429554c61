"""``irgrad new-plugin``: the skeleton of a plugin."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import show
from irgrad.scaffold import KINDS, Kind, new_plugin

__all__ = ["command"]


@click.command("new-plugin", short_help="Make the skeleton of a plugin: an operation, a pass, tests.")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default="all", show_default=True, help="What it is to have an example of.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    metavar="FOLDER",
    help="Where the new folder goes.",
)
def command(name: str, kind: Kind, folder: Path) -> None:
    """Make a folder NAME with an installable plugin: pyproject.toml, a package, and tests that pass.

    \b
    Examples:
      irgrad new-plugin my-passes
      irgrad new-plugin my-ops --kind op --folder ~/src
    """
    made = new_plugin(name, kind, folder)
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        show(f"wrote {path}")
    show(f"now: cd {made} && pip install -e '.[test]' && pytest")
