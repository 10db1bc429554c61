"""What passes over the gradients of a graph share, and clipping them: clip_grad_norm and clip_grad_value.

Reference: torch.nn.utils.clip_grad_norm_ and clip_grad_value_, whose formulae these are; Pascanu, Mikolov and Bengio, On the
difficulty of training recurrent neural networks, ICML 2013, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from typing import ClassVar

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Role, Value
from irgrad.passes.training.updates import updates_of
from irgrad.pipeline import Pass

__all__ = ["ClipGradNorm", "ClipGradValue", "chosen", "matches", "wide"]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of some patterns with ``*`` and ``?``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def chosen(graph: Graph, only: Sequence[str], skip: Sequence[str]) -> list[str]:
    """The values that a graph returns gradients of and whose names match a pattern of `only` and none of `skip`.

    Raises:
        PassError: there is none.
    """
    if not graph.gradients:
        raise PassError("the graph returns no gradients; differentiate it first (grad)")
    names = [name for name in graph.gradients if matches(name, only) and not matches(name, skip)]
    if not names:
        raise PassError(f"only= and skip= leave none of the gradients, which are those of {', '.join(graph.gradients)}")
    return names


def wide(dtype: np.dtype) -> np.dtype:
    """The dtype to compute with numbers of a dtype in: float32 for those of 16 bits, otherwise the dtype itself."""
    return np.dtype(np.float32) if dtype.itemsize < 4 else dtype


def _check(graph: Graph, only: Sequence[str], skip: Sequence[str], option: str, limit: float) -> None:
    if not limit >= 0:
        raise PassError(f"{option}={limit:g} is out of range: it has to be at least 0")
    updated = updates_of(graph)
    late = [name for name in chosen(graph, only, skip) if name in updated]
    if late:
        raise PassError(f"the gradient of {late[0]!r} is in use by its update already; clipping has to come before it")


def _replace(graph: Graph, clipped: Mapping[str, Value]) -> None:
    """Return other values as gradients, under their names."""
    outputs = graph.outputs
    for name, value in clipped.items():
        output = graph.gradients[name]
        old, outputs[output] = outputs[output], value
        if old.name == output and old.producer is not None:
            graph.rename(old, graph.fresh_name(f"{output}_whole"))
            graph.rename(value, output)
    graph.set_outputs(outputs)


@dataclass(frozen=True)
class ClipGradValue(Pass):
    """Clip the elements of gradients to the interval from −`value` to `value`.

    Attributes:
        value: the largest absolute value.
        only: patterns of which the name of the value that a gradient is of has to match one.
        skip: patterns of which it must not match any.
    """

    name: ClassVar[str] = "clip_grad_value"
    value: float
    only: Sequence[str] = ("*",)
    skip: Sequence[str] = ()

    def requires(self, graph: Graph) -> None:
        _check(graph, self.only, self.skip, "value", self.value)

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        b, outputs = Builder(graph, role=Role.UPDATE), graph.outputs
        clipped = {}
        for name in chosen(graph, self.only, self.skip):
            gradient = outputs[graph.gradients[name]]
            clipped[name] = b.op("Clip", gradient, b.scalar(-self.value, gradient), b.scalar(self.value, gradient))
        _replace(graph, clipped)
        return True


@dataclass(frozen=True)
class ClipGradNorm(Pass):
    """Scale gradients so that their norm, all of them together, is at most `max_norm`.

    Each is multiplied by min(1, max_norm / (norm + 1e-6)). The norm is computed in the widest of their dtypes, in float32 at
    least.

    Attributes:
        max_norm: the largest norm.
        norm: which norm: p for (Σ|g|ᵖ)^(1/p), inf for the largest absolute value.
        total: the name of an output for the norm as it was before; by default it is not returned.
        only: patterns of which the name of the value that a gradient is of has to match one.
        skip: patterns of which it must not match any.
    """

    name: ClassVar[str] = "clip_grad_norm"
    max_norm: float
    norm: float = 2.0
    total: str | None = None
    only: Sequence[str] = ("*",)
    skip: Sequence[str] = ()

    def requires(self, graph: Graph) -> None:
        _check(graph, self.only, self.skip, "max_norm", self.max_norm)
        if not self.norm > 0:
            raise PassError(f"norm={self.norm:g} is out of range: it has to be greater than 0")
        if self.total is not None and (self.total in graph.outputs or graph.has_value(self.total)):
            raise PassError(f"the name {self.total!r}, which the norm needs, is taken; choose another (total=)")

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        outputs = graph.outputs
        gradients = {name: outputs[graph.gradients[name]] for name in chosen(graph, self.only, self.skip)}
        dtype = max((wide(g.dtype) for g in gradients.values()), key=lambda d: d.itemsize)
        clipped = {}
        with Builder(graph, role=Role.UPDATE) as b:
            whole = {name: b.cast(gradient, dtype) for name, gradient in gradients.items()}
            total = self._norm(b, [g for g in whole.values() if g.shape is None or 0 not in g.shape])
            factor = b.op("Min", self.max_norm / (total + 1e-6), 1)
            for name, gradient in gradients.items():
                clipped[name] = b.cast(whole[name] * factor, gradient.dtype)
        _replace(graph, clipped)
        if self.total is not None:
            graph.rename(total, self.total)
            graph.set_outputs({**graph.outputs, self.total: total})
        return True

    def _norm(self, b: Builder, gradients: Sequence[Value]) -> Value:
        if self.norm == inf:
            return b.op("Max", *(b.op("ReduceMax", b.op("Abs", g), keepdims=0) for g in gradients))
        if self.norm == 2:
            return b.op("Sqrt", b.total([b.op("ReduceSumSquare", g, keepdims=0) for g in gradients]))
        if self.norm == 1:
            return b.total([b.op("ReduceL1", g, keepdims=0) for g in gradients])
        powers = [b.op("ReduceSum", b.op("Abs", g) ** self.norm, keepdims=0) for g in gradients]
        return b.total(powers) ** (1 / self.norm)
