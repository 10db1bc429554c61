"""Derivatives as passes: vector-Jacobian and Jacobian-vector products, gradients, Hessian-vector products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import AdjointError
from irgrad.graph import Graph, Role, Value
from irgrad.passes.autodiff.adjoint import accumulate_adjoints
from irgrad.passes.simplify.dce import remove_dead
from irgrad.pipeline import Pass
from irgrad.types import TensorType

__all__ = ["Grad", "Hvp", "Jvp", "Vjp", "Wrt", "resolve_outputs", "resolve_wrt"]

Wrt: TypeAlias = "str | Sequence[str]"


def resolve_wrt(graph: Graph, wrt: Wrt) -> list[Value]:
    """The values that `wrt` means.

    Args:
        graph: where they live.
        wrt: "parameters", "inputs" (those of a floating-point dtype), one name, or names of any values.

    Raises:
        AdjointError: a name is unknown or not of a floating-point dtype, or there is nothing to differentiate by.
    """
    if wrt == "parameters":
        values = [value for value in graph.constants if value.is_parameter]
    elif wrt == "inputs":
        values = [value for value in graph.inputs.values() if value.type.differentiable]
    else:
        names = [wrt] if isinstance(wrt, str) else list(dict.fromkeys(wrt))
        values = [_named(graph, name) for name in names]
        for value in values:
            if not value.type.differentiable:
                raise AdjointError(
                    f"there is no gradient with respect to {value!r}: only floating-point values carry gradients"
                )
    if not values:
        what = f"{wrt} of a floating-point dtype" if isinstance(wrt, str) else "names in wrt"
        raise AdjointError(f"there is nothing to differentiate by: the graph has no {what}")
    return values


def resolve_outputs(graph: Graph, outputs: Sequence[str] | None) -> dict[str, Value]:
    """Name → value of the named outputs, by default of all those of a floating-point dtype.

    Raises:
        AdjointError: a name is no output, an output is not of a floating-point dtype, or none is.
    """
    if outputs is None:
        found = {n: v for n, v in graph.outputs.items() if v.type.differentiable and n not in graph.gradients.values()}
    else:
        found = {name: _named(graph, name) for name in outputs}
    for name, value in found.items():
        if not value.type.differentiable:
            raise AdjointError(f"the output {name!r} is {value.type}: only floating-point values can be differentiated")
    if not found:
        raise AdjointError("the graph has no output of a floating-point dtype to differentiate")
    return found


def _named(graph: Graph, name: str) -> Value:
    outputs = graph.outputs
    return outputs[name] if name in outputs else graph.value(name)


def _seed_input(graph: Graph, name: str, like: Value) -> Value:
    if graph.has_value(name):
        raise AdjointError(f"the graph already has a value {name!r}, which the derivative needs as the name of a new input")
    return graph.add_input(name, like.type)


def _return(graph: Graph, results: Mapping[str, Value], *, replace: bool = False) -> None:
    outputs = {} if replace else graph.outputs
    for name, value in results.items():
        if name in outputs:
            raise AdjointError(f"the graph already has an output {name!r}, which the derivative needs for its own")
        outputs[name] = value
        if not graph.has_value(name) and value.producer is not None and value not in graph.outputs.values():
            graph.rename(value, name)
    graph.set_outputs(outputs)


def _or_zeros(graph: Graph, cotangent: Value | None, like: Value) -> Value:
    if cotangent is not None:
        return cotangent
    origin = like.producer.name if like.producer is not None else None
    return Builder(graph, role=Role.BACKWARD, origin=origin).zeros_like(like)


def _pull_back(graph: Graph, seeds: Mapping[Value, Value], names: Sequence[str], stop: Sequence[str]) -> list[Value]:
    wrt = [_named(graph, name) for name in names]
    stopped = [_named(graph, name) for name in stop]
    cotangents = accumulate_adjoints(graph, seeds, wrt, stopped)
    # Looked up again: an expansion on the path may have put new values behind the names.
    return [_or_zeros(graph, c, _named(graph, name)) for c, name in zip(cotangents, names, strict=True)]


@dataclass(frozen=True)
class Vjp(Pass):
    """Add the vector-Jacobian product: inputs `<output>_cotangent`, outputs `<name>_grad`.

    Attributes:
        wrt: see `resolve_wrt`.
        outputs: names of the outputs to differentiate; all of a floating-point dtype by default.
        stop: names of values that count as constants.
    """

    name: ClassVar[str] = "vjp"
    wrt: Wrt = "inputs"
    outputs: Sequence[str] | None = None
    stop: Sequence[str] = ()

    def run(self, graph: Graph) -> bool:
        names = [value.name for value in resolve_wrt(graph, self.wrt)]
        outputs = resolve_outputs(graph, self.outputs)
        seeds = [_seed_input(graph, f"{name}_cotangent", value) for name, value in outputs.items()]
        _add_gradients(graph, dict(_summed(graph, list(outputs.values()), seeds)), names, self.stop)
        return True


@dataclass(frozen=True)
class Grad(Pass):
    """Add the gradient of a scalar output: outputs `<name>_grad`.

    Attributes:
        wrt: see `resolve_wrt`.
        output: the scalar output; may be left out where there is one output of a floating-point dtype.
        stop: names of values that count as constants.
    """

    name: ClassVar[str] = "grad"
    wrt: Wrt = "parameters"
    output: str | None = None
    stop: Sequence[str] = ()

    def run(self, graph: Graph) -> bool:
        names = [value.name for value in resolve_wrt(graph, self.wrt)]
        outputs = resolve_outputs(graph, None if self.output is None else [self.output])
        if len(outputs) != 1:
            raise AdjointError(
                f"the gradient is of one scalar output, but there are {len(outputs)} outputs: {', '.join(outputs)}; "
                "name one, or use vjp"
            )
        ((name, value),) = outputs.items()
        if not isinstance(value.type, TensorType) or value.type.shape is None or any(d != 1 for d in value.type.shape):
            raise AdjointError(
                f"the gradient is of a scalar, but the output {name!r} is {value.type}; add a loss (loss=...) or use vjp"
            )
        seed = Builder(graph, role=Role.BACKWARD).constant(np.ones(value.type.static_shape or (), value.dtype))
        _add_gradients(graph, {value: seed}, names, self.stop)
        return True


def _add_gradients(graph: Graph, seeds: Mapping[Value, Value], names: Sequence[str], stop: Sequence[str]) -> None:
    results = _pull_back(graph, seeds, names, stop)
    gradients = {f"{name}_grad": value for name, value in zip(names, results, strict=True)}
    _return(graph, gradients)
    graph.gradients.update(zip(names, gradients, strict=True))


@dataclass(frozen=True)
class Jvp(Pass):
    """Add the Jacobian-vector product: inputs `<name>_tangent`, outputs `<output>_tangent`.

    Forward mode is the adjoint of the adjoint: u ↦ Jᵀu is linear, and its own adjoint is t ↦ Jt. What only served u is
    dead afterwards and is removed.

    Attributes:
        wrt: see `resolve_wrt`.
        outputs: names of the outputs; all of a floating-point dtype by default.
    """

    name: ClassVar[str] = "jvp"
    wrt: Wrt = "inputs"
    outputs: Sequence[str] | None = None

    def run(self, graph: Graph) -> bool:
        names = [value.name for value in resolve_wrt(graph, self.wrt)]
        outputs = resolve_outputs(graph, self.outputs)
        before = set(graph.inputs)
        dummies = {n: _seed_input(graph, graph.fresh_name(f"{n}_dummy_cotangent"), v) for n, v in outputs.items()}
        seeds = dict(_summed(graph, list(outputs.values()), list(dummies.values())))
        pulled = _pull_back(graph, seeds, names, ())
        tangents = [_seed_input(graph, f"{name}_tangent", _named(graph, name)) for name in names]
        pushed = accumulate_adjoints(graph, dict(_summed(graph, pulled, tangents)), list(dummies.values()))
        results = {
            f"{name}_tangent": _or_zeros(graph, value, dummies[name]) for name, value in zip(outputs, pushed, strict=True)
        }
        _return(graph, results)
        remove_dead(graph)
        for value in [*dummies.values()]:
            if value.users:
                raise AdjointError(
                    f"the derivative depends on the cotangent of {value.name!r}: an adjoint rule is not linear"
                )
            graph.erase(value)
        assert before <= set(graph.inputs)
        return True


@dataclass(frozen=True)
class Hvp(Pass):
    """Add the Hessian-vector product of a scalar output: inputs `<name>_vector`, outputs `<name>_hvp`.

    The gradient is differentiated once more with the vectors as cotangents; the Hessian is symmetric.

    Attributes:
        wrt: see `resolve_wrt`.
        output: the scalar output; may be left out where there is one output of a floating-point dtype.
    """

    name: ClassVar[str] = "hvp"
    wrt: Wrt = "parameters"
    output: str | None = None

    def run(self, graph: Graph) -> bool:
        names = [value.name for value in resolve_wrt(graph, self.wrt)]
        Grad(names, self.output).run(graph)
        vectors = [_seed_input(graph, f"{name}_vector", _named(graph, name)) for name in names]
        gradients = [graph.outputs[graph.gradients[name]] for name in names]
        results = _pull_back(graph, dict(_summed(graph, gradients, vectors)), names, ())
        _return(graph, {f"{name}_hvp": value for name, value in zip(names, results, strict=True)})
        return True


def _summed(graph: Graph, values: Sequence[Value], seeds: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Pairs of value and seed; the seeds of a value that occurs several times are added."""
    b = Builder(graph, role=Role.BACKWARD)
    pairs: dict[Value, Value] = {}
    for value, seed in zip(values, seeds, strict=True):
        pairs[value] = b.op("Add", pairs[value], seed) if value in pairs else seed
    return list(pairs.items())
