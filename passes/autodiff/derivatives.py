"""Derivatives as passes: vector-Jacobian and Jacobian-vector products, gradients, Hessian-vector products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import AdjointError
from irgrad.graph import Graph, Role, Value
from irgrad.influence import influenced
from irgrad.passes.autodiff.adjoint import accumulate_adjoints
from irgrad.passes.simplify.dce import remove_dead
from irgrad.passes.training.updates import updates_of
from irgrad.pipeline import Pass
from irgrad.types import TensorType

__all__ = ["Grad", "Hvp", "Jvp", "Vjp", "Wrt", "resolve_outputs", "resolve_wrt"]

Wrt: TypeAlias = "str | Sequence[str]"


def resolve_wrt(graph: Graph, wrt: Wrt) -> dict[str, Value]:
    """The values that `wrt` means, by the names that it gives them.

    Args:
        graph: where they live.
        wrt: "parameters" (but for running statistics and settings, such as the scales of a Resize, which are not learned),
            "inputs" (those of a floating-point dtype), one name, or names of any outputs and other values. A name that is
            an output's means what is returned under it, whatever that value itself is called.

    Raises:
        AdjointError: a name is unknown or not of a floating-point dtype, or there is nothing to differentiate by.
    """
    if wrt == "parameters":
        moved = updates_of(graph)
        learned = [v for v in graph.constants if v.is_parameter and v.name not in moved and not _is_setting(v)]
        values = {value.name: value for value in learned}
    elif wrt == "inputs":
        values = {name: value for name, value in graph.inputs.items() if value.type.differentiable}
    else:
        values = {name: _named(graph, name) for name in ([wrt] if isinstance(wrt, str) else wrt)}
        for value in values.values():
            if not value.type.differentiable:
                raise AdjointError(
                    f"there is no gradient with respect to {value!r}: only floating-point values carry gradients"
                )
    if not values:
        what = f"{wrt} of a floating-point dtype" if isinstance(wrt, str) else "names in wrt"
        raise AdjointError(f"there is nothing to differentiate by: the graph has no {what}")
    return values


def _is_setting(value: Value) -> bool:
    """Whether a value is read, and only as a setting, see `Op.settings`."""
    places = [k in user.op.settings for user in value.users for k, operand in enumerate(user.inputs) if operand is value]
    return bool(places) and all(places)


def resolve_outputs(graph: Graph, outputs: Sequence[str] | None) -> dict[str, Value]:
    """Name → value of the named outputs, by default of all those of a floating-point dtype that are no gradients or updates.

    Raises:
        AdjointError: a name is no output, an output is not of a floating-point dtype, or none is.
    """
    if outputs is None:
        others = {*graph.gradients.values(), *updates_of(graph).values()}
        found = {n: v for n, v in graph.outputs.items() if v.type.differentiable and n not in others}
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


def _pull_back(
    graph: Graph, seeds: Mapping[Value, Value], wrt: Mapping[str, Value], stop: Sequence[str] = ()
) -> tuple[dict[str, Value], dict[Value, Value]]:
    """Name → cotangent of each value of `wrt`; and what took the place of values that an expansion replaced."""
    renewed: dict[Value, Value] = {}
    cotangents = accumulate_adjoints(graph, seeds, list(wrt.values()), [_named(graph, name) for name in stop], renewed)
    pairs = zip(wrt.items(), cotangents, strict=True)
    return {name: _or_zeros(graph, c, renewed.get(value, value)) for (name, value), c in pairs}, renewed


def _renewed(values: Mapping[str, Value], renewed: Mapping[Value, Value]) -> dict[str, Value]:
    return {name: renewed.get(value, value) for name, value in values.items()}


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
        wrt = resolve_wrt(graph, self.wrt)
        outputs = resolve_outputs(graph, self.outputs)
        seeds = [_seed_input(graph, f"{name}_cotangent", value) for name, value in outputs.items()]
        _add_gradients(graph, dict(_summed(graph, list(outputs.values()), seeds)), wrt, self.stop)
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
        _differentiate(graph, resolve_wrt(graph, self.wrt), self.output, self.stop)
        return True


def _differentiate(graph: Graph, wrt: Mapping[str, Value], output: str | None, stop: Sequence[str]) -> dict[str, Value]:
    """Add the gradient of a scalar output; the values of `wrt` as they are afterwards."""
    outputs = resolve_outputs(graph, None if output is None else [output])
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
    return _add_gradients(graph, {value: seed}, wrt, stop)


def _add_gradients(
    graph: Graph, seeds: Mapping[Value, Value], wrt: Mapping[str, Value], stop: Sequence[str]
) -> dict[str, Value]:
    results, renewed = _pull_back(graph, seeds, wrt, stop)
    _return(graph, {f"{name}_grad": value for name, value in results.items()})
    graph.gradients.update({name: f"{name}_grad" for name in results})
    return _renewed(wrt, renewed)


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
        wrt = resolve_wrt(graph, self.wrt)
        outputs = resolve_outputs(graph, self.outputs)
        dummies = {n: _seed_input(graph, graph.fresh_name(f"{n}_dummy_cotangent"), v) for n, v in outputs.items()}
        pulled, renewed = _pull_back(graph, dict(_summed(graph, list(outputs.values()), list(dummies.values()))), wrt)
        wrt, outputs = _renewed(wrt, renewed), _renewed(outputs, renewed)
        tangents = [_seed_input(graph, f"{name}_tangent", value) for name, value in wrt.items()]
        seeds = dict(_summed(graph, list(pulled.values()), tangents))
        again: dict[Value, Value] = {}
        pushed = accumulate_adjoints(graph, seeds, list(dummies.values()), renewed=again)
        outputs = _renewed(outputs, again)
        results = {
            f"{name}_tangent": _or_zeros(graph, value, outputs[name]) for name, value in zip(outputs, pushed, strict=True)
        }
        _return(graph, results)
        remove_dead(graph)
        for name, dummy in dummies.items():
            if any(value.is_output for value in influenced(graph, [dummy])):
                raise AdjointError(
                    f"the derivative depends on the cotangent of {outputs[name]!r}: an adjoint rule is not linear"
                )
            # Only its shape is still asked for, and that is the output's own.
            graph.replace_all_uses(dummy, outputs[name])
            graph.erase(dummy)
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
        wrt = _differentiate(graph, resolve_wrt(graph, self.wrt), self.output, ())
        vectors = [_seed_input(graph, f"{name}_vector", value) for name, value in wrt.items()]
        gradients = [graph.outputs[graph.gradients[name]] for name in wrt]
        results, _ = _pull_back(graph, dict(_summed(graph, gradients, vectors)), wrt)
        _return(graph, {f"{name}_hvp": value for name, value in results.items()})
        return True


def _summed(graph: Graph, values: Sequence[Value], seeds: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Pairs of value and seed; the seeds of a value that occurs several times are added."""
    b = Builder(graph, role=Role.BACKWARD)
    pairs: dict[Value, Value] = {}
    for value, seed in zip(values, seeds, strict=True):
        pairs[value] = b.total([pairs[value], seed]) if value in pairs else seed
    return list(pairs.items())
