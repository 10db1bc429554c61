"""What the commands that show a graph share: the model's, or its joint graph."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from irgrad.cli.common import parse_wrt
from irgrad.cli.running import Joint, load_with_loss
from irgrad.errors import UsageError
from irgrad.graph import Graph

__all__ = ["graph_or_joint", "refuse_without_grad"]


def refuse_without_grad(grad: bool) -> None:
    """--wrt says nothing of a graph that is not differentiated.

    Raises:
        UsageError: it is given all the same.
    """
    source = click.get_current_context().get_parameter_source("wrt")
    if not grad and source is not ParameterSource.DEFAULT:
        raise UsageError("--wrt is for the joint graph; give --grad too")


def graph_or_joint(
    model: Path | None, example: str | None, *, grad: bool, wrt: str, loss: str | None, output: str | None
) -> tuple[Graph, str]:
    """The graph of MODEL or --example, with a loss where one is named, differentiated with --grad, and what to call it.

    Raises:
        IrgradError: the model cannot be read, a name is unknown, or there is no gradient.
    """
    refuse_without_grad(grad)
    graph, label, output = load_with_loss(model, example, loss, output)
    return (Joint.of(graph, parse_wrt(wrt), output).graph if grad else graph), label
