"""The public face: load a model, differentiate it, rewrite it, run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from irgrad.frontend import load as read
from irgrad.frontends.onnx.source import read_source
from irgrad.frontends.onnx.training import read_training
from irgrad.frontends.onnx.writer import graph_to_model, write_model
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Grad, Hvp, Jvp, Vjp, Wrt
from irgrad.passes.autodiff.gradient_op import GRADIENT_OP, LowerGradientOp
from irgrad.passes.loss import Loss
from irgrad.passes.simplify import Simplify
from irgrad.passes.training.updates import updates_of
from irgrad.pipeline import Pass, Pipeline
from irgrad.training import Training

__all__ = ["apply", "grad", "hvp", "jvp", "load", "load_training", "save", "to_onnx", "updates", "vjp"]


def load(source: Any, frontend: str | None = None, *, training: bool = False, **options: Any) -> Graph:
    """Read a model into a graph, in today's opset.

    Gradient nodes of ai.onnx.preview.training are replaced by the backward nodes that they stand for.

    Args:
        source: a path (of an ONNX model, or of a graph as text where it ends in .ir), bytes, a ModelProto, or whatever else
            an installed frontend accepts.
        frontend: the name of the frontend to use; by default the first, by name, that accepts the source.
        training: put the model into training mode, by the passes `train_mode` and `explicit_keys`: batch statistics are used
            and Dropout drops. Running statistics get outputs for their next values, see `updates`, and a model that draws
            random numbers gets an input `key`, an int64 that they come from.
        options: what that frontend takes.

    Raises:
        UsageError: the path does not exist, or no frontend accepts the source.
        ModelError: the model is defective; the subclass says how.
        PassError: the model has something that cannot be put into training mode.
    """
    graph = read(source, frontend, **options)
    if any(node.op.qualified_name == GRADIENT_OP for node in graph.nodes()):
        LowerGradientOp().run(graph)
    if training:
        Pipeline("train_mode,explicit_keys").run(graph)
    return graph


def load_training(source: Any, *, folder: str | Path | None = None) -> Training:
    """Read an ONNX model with its training information (TrainingInfoProto).

    Args:
        source: a path, bytes, or a ModelProto.
        folder: where external data lies; by default beside the file.

    Raises:
        UsageError: the path does not exist, or the model has no training information.
        ModelError: the model is defective; the subclass says how.
        UnsupportedOpError: a gradient that the file asks for leads through nodes that cannot be differentiated.
    """
    return Training(read_training(*read_source(source, folder)))


def save(
    graph: Graph,
    path: str | Path,
    *,
    opset: int | None = None,
    functions: bool = False,
    external_data: bool | None = None,
    threshold: int = 1024,
) -> None:
    """Write a graph as an ONNX model.

    The file holds operations of ONNX only, and onnx's checker has passed it. Names, symbolic dimensions, types, roles,
    origins, gradients and metadata are in it, so that `load` gives the graph as it was, except that irgrad's own operations
    have become what they mean (with `functions` they have not). The file is written whole or not at all.

    Args:
        graph: it is left as it is.
        path: the file.
        opset: the opset of ai.onnx, 13 to 28; by default the lowest in which all nodes mean the same, at least 13.
        functions: keep irgrad's own operations, as functions of the model whose bodies are what they mean. Other tools
            inline them; `load` makes operations of them again.
        external_data: put large tensors into a file beside the model that is called like it with ".data" behind; by default
            where they are too large for one file (2 GiB).
        threshold: the number of bytes from which on a tensor counts as large.

    Raises:
        ExportError: a node has no meaning in ONNX (an operation that only irgrad or a plugin knows and that has no lowering,
            element types that ONNX does not have for its operation), or none in the opset; all such nodes are named.
        UsageError: the path cannot be written, or an option is out of range.
    """
    write_model(graph, path, opset=opset, functions=functions, external_data=external_data, threshold=threshold)


def to_onnx(graph: Graph, *, opset: int | None = None, functions: bool = False) -> onnx.ModelProto:
    """A graph as an ONNX model in memory; see `save`.

    Raises:
        ExportError, UsageError: see `save`.
    """
    return graph_to_model(graph, opset=opset, functions=functions)


def updates(graph: Graph) -> dict[str, str]:
    """What a training step writes back: name of a parameter or input → name of the output that is its next value."""
    return updates_of(graph)


def grad(
    graph: Graph,
    wrt: Wrt = "parameters",
    loss: str | None = None,
    *,
    output: str | None = None,
    stop: Sequence[str] = (),
    simplify: bool = True,
) -> Graph:
    """The joint graph of a scalar output and its gradient.

    Args:
        graph: a forward graph; it is left as it is.
        wrt: "parameters" (the float initializers that can be learned), "inputs", or names of any floating-point values,
            intermediates included.
        loss: a loss to add first, by name (see `irgrad.passes.loss.LOSSES`): it adds the input `target` and the output
            `loss`, which is then what is differentiated. Without one the output itself must be a scalar.
        output: the output that is differentiated, or that the loss is of; may be left out where there is only one of a
            floating-point dtype.
        stop: names of values that count as constants.
        simplify: clean the joint graph up afterwards.

    Returns:
        A new graph with a further output `<name>_grad` for each value of `wrt`, of its shape and dtype (zeros where the
        output does not depend on it); `graph.gradients` maps the one name to the other.

    Raises:
        AdjointError: a name is unknown or no floating-point value; the output is no scalar.
        UnsupportedOpError: nodes on the path have neither a rule nor an expansion; all of them are named.
        PassError: the loss is unknown.
    """
    passes: list[Pass] = []
    if loss is not None:
        head = Loss(loss, output)
        passes.append(head)
        output = head.result
    return _derive(graph, [*passes, Grad(wrt, output, stop)], simplify)


def vjp(
    graph: Graph,
    wrt: Wrt = "inputs",
    outputs: Sequence[str] | None = None,
    *,
    stop: Sequence[str] = (),
    simplify: bool = True,
) -> Graph:
    """The joint graph of a vector-Jacobian product.

    Args:
        graph: a forward graph; it is left as it is.
        wrt: see `grad`.
        outputs: which outputs to pull back; all of a floating-point dtype by default.
        stop: names of values that count as constants.
        simplify: clean the joint graph up afterwards.

    Returns:
        A new graph with further inputs `<output>_cotangent` and further outputs `<name>_grad`.

    Raises:
        AdjointError, UnsupportedOpError: see `grad`.
    """
    return _derive(graph, [Vjp(wrt, outputs, stop)], simplify)


def jvp(graph: Graph, wrt: Wrt = "inputs", outputs: Sequence[str] | None = None, *, simplify: bool = True) -> Graph:
    """The graph of a Jacobian-vector product (forward mode), made as the adjoint of the adjoint.

    Args:
        graph: a forward graph; it is left as it is.
        wrt: see `grad`.
        outputs: which outputs to push forward to; all of a floating-point dtype by default.
        simplify: clean the graph up afterwards.

    Returns:
        A new graph with further inputs `<name>_tangent` and further outputs `<output>_tangent`.

    Raises:
        AdjointError, UnsupportedOpError: see `grad`.
    """
    return _derive(graph, [Jvp(wrt, outputs)], simplify)


def hvp(graph: Graph, wrt: Wrt = "parameters", output: str | None = None, *, simplify: bool = True) -> Graph:
    """The joint graph of a scalar output, its gradient and a Hessian-vector product.

    Args:
        graph: a forward graph; it is left as it is.
        wrt: see `grad`.
        output: the scalar output; may be left out where there is only one of a floating-point dtype.
        simplify: clean the graph up afterwards.

    Returns:
        A new graph with further inputs `<name>_vector` and further outputs `<name>_grad` and `<name>_hvp`: the product of
        the whole Hessian, all of `wrt` together, with the vectors.

    Raises:
        AdjointError, UnsupportedOpError: see `grad`.
    """
    return _derive(graph, [Hvp(wrt, output)], simplify)


def apply(graph: Graph, pipeline: str | Pass | Sequence[Any], **options: Any) -> Graph:
    """A copy of a graph with passes run over it.

    Args:
        graph: it is left as it is.
        pipeline: passes, or a text such as ``"simplify,convert_float{to=f64}"``.
        options: those of `irgrad.pipeline.Pipeline`.

    Raises:
        PassError: the text is misspelt, or a pass's own conditions do not hold.
    """
    return Pipeline(pipeline, **options).apply(graph)


def _derive(graph: Graph, passes: Sequence[Pass], simplify: bool) -> Graph:
    return apply(graph, [*passes, Simplify()] if simplify else list(passes))
