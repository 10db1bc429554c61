"""The public face: load a model, differentiate it, rewrite it, run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irgrad.frontend import load as read
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Grad, Hvp, Jvp, Vjp, Wrt
from irgrad.passes.autodiff.gradient_op import GRADIENT_OP, LowerGradientOp
from irgrad.passes.loss import Loss
from irgrad.passes.simplify import Simplify
from irgrad.pipeline import Pass, Pipeline

__all__ = ["apply", "grad", "hvp", "jvp", "load", "vjp"]


def load(source: Any, frontend: str | None = None, **options: Any) -> Graph:
    """Read a model into a graph, in today's opset.

    Gradient nodes of ai.onnx.preview.training are replaced by the backward nodes that they stand for.

    Args:
        source: a path, bytes, a ModelProto, or whatever else an installed frontend accepts.
        frontend: the name of the frontend to use; by default the first, by name, that accepts the source.
        options: what that frontend takes.

    Raises:
        UsageError: the path does not exist, or no frontend accepts the source.
        ModelError: the model is defective; the subclass says how.
    """
    graph = read(source, frontend, **options)
    if any(node.op.qualified_name == GRADIENT_OP for node in graph.nodes()):
        LowerGradientOp().run(graph)
    return graph


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
        wrt: "parameters" (the float initializers), "inputs", or names of any floating-point values, intermediates included.
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
