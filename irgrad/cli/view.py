"""``irgrad view``: a model's graph in Netron, in the browser."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from irgrad import api
from irgrad.cli.common import counted, model_argument, show
from irgrad.cli.running import gradient_options
from irgrad.cli.shown import graph_or_joint
from irgrad.errors import UsageError

__all__ = ["command"]

HOST = "127.0.0.1"
"""The loopback address: nothing outside this machine can ask for the model."""


@click.command("view", short_help="Show a model's graph, or its joint graph, in the browser.")
@model_argument
@click.option("--grad", is_flag=True, help="Show the joint graph, with the backward nodes.")
@gradient_options
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="The port to serve at.  [default: a free one]")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the browser.")
def command(
    model: Path | None,
    example: str | None,
    grad: bool,
    wrt: str,
    loss: str | None,
    output: str | None,
    port: int | None,
    browser: bool,
) -> None:
    """Show the graph of an ONNX model, or with --grad its joint graph, in Netron, until interrupted.

    Netron is served on this machine only; it comes with the extra irgrad[view].

    \b
    Examples:
      irgrad view model.onnx
      irgrad view --example squeezenet --grad --no-browser --port 8080
    """
    netron = _netron()
    graph, label = graph_or_joint(model, example, grad=grad, wrt=wrt, loss=loss, output=output)
    # Netron serves whatever lies in the folder of the file: that is one of its own.
    with tempfile.TemporaryDirectory(prefix="irgrad-view-") as folder:
        path = Path(folder) / f"{'joint' if grad else 'graph'}.onnx"
        api.save(graph, path, functions=True)
        try:
            host, port = netron.serve(str(path), None, (HOST, port), browser)
        except OSError as error:
            raise UsageError(f"Netron cannot be served at {HOST}:{port}: {error.strerror or error}") from None
        show(f"{label}: {counted(len(graph), 'node')} at http://{host}:{port} (stop with Ctrl-C)")
        netron.wait()


def _netron() -> Any:
    try:
        return import_module("netron")
    except ImportError:
        raise UsageError("irgrad view needs the extra irgrad[view]: pip install 'irgrad[view]'") from None
