"""``irgrad draw``: a picture of a model's graph."""

from __future__ import annotations

from pathlib import Path

import click

from irgrad.cli.common import counted, model_argument, refuse_early, show
from irgrad.cli.running import gradient_options
from irgrad.cli.shown import graph_or_joint
from irgrad.drawing import FORMATS, draw
from irgrad.drawing.options import Collapse
from irgrad.errors import UsageError
from irgrad.graph import Role

__all__ = ["command"]


def _collapse(_: click.Context, __: click.Parameter, text: str) -> Collapse:
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    if text.isascii() and text.isdecimal():
        return int(text)
    raise UsageError(f"--collapse takes auto, none or the depth of the scopes that are drawn, not {text!r}")


@click.command("draw", short_help="Draw a model's graph, or its joint graph.")
@model_argument
@click.option(
    "-o",
    "--file",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The picture; its name ends in {', '.join(FORMATS)}.",
)
@click.option("--grad", is_flag=True, help="Draw the joint graph, with the backward nodes beside the forward ones.")
@gradient_options
@click.option("--around", multiple=True, metavar="NAME", help="Only what is near this node or value.")
@click.option(
    "--radius",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="How many nodes away from --around.",
)
@click.option("--role", "roles", multiple=True, type=click.Choice([r.value for r in Role]), help="Only nodes of this role.")
@click.option("--only", multiple=True, metavar="PATTERN", help='Only nodes of this name or origin, such as "layer1/*".')
@click.option(
    "--collapse",
    default="auto",
    show_default=True,
    callback=_collapse,
    metavar="auto|none|N",
    help="Put nodes of one scope into one box: as far as it takes to be legible, not at all, or below the N-th level.",
)
@click.option(
    "--depth",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="How many levels of subgraphs are drawn.",
)
@click.option("--shapes/--no-shapes", default=True, show_default=True, help="Write types on the edges.")
@click.option("--origins", is_flag=True, help="Draw a dotted line from each node to those made for it.")
def command(
    model: Path | None,
    example: str | None,
    path: Path,
    grad: bool,
    wrt: str,
    loss: str | None,
    output: str | None,
    around: tuple[str, ...],
    radius: int,
    roles: tuple[str, ...],
    only: tuple[str, ...],
    collapse: Collapse,
    depth: int,
    shapes: bool,
    origins: bool,
) -> None:
    """Draw the graph of an ONNX model, or with --grad its joint graph, to a file.

    Pictures (.svg, .png, .pdf) need the program dot of Graphviz; .dot, .mmd and .md (Mermaid) need nothing.

    \b
    Examples:
      irgrad draw --example resnet50 --grad -o joint.svg
      irgrad draw model.onnx --grad --around "/encoder/layer.0/attention/MatMul" --radius 3 -o near.png
      irgrad draw model.onnx --only "/decoder/*" --collapse 3 -o decoder.md
    """
    refuse_early("--file", path, model)
    graph, label = graph_or_joint(model, example, grad=grad, wrt=wrt, loss=loss, output=output)
    draw(
        graph,
        path,
        around=around or None,
        radius=radius,
        roles=roles or None,
        only=only or None,
        collapse=collapse,
        depth=depth,
        shapes=shapes,
        origins=origins,
    )
    show(f"{label}: drew {counted(len(graph), 'node')} to {path}")
