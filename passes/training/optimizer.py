"""What the optimizers have in common: which values are moved, the states and settings, and what the graph returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, TypeAlias

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Role, Value
from irgrad.passes.training.gradients import chosen, matches, wide
from irgrad.passes.training.updates import note_state, note_update, updates_of
from irgrad.pipeline import Pass
from irgrad.types import TensorType

__all__ = ["POSITIVE", "SHARE", "Optimizer", "Update"]

Update: TypeAlias = "Callable[..., tuple[Value, ...]]"
"""``update(x, g, decay, *states)`` → the next x and the next states, for a parameter x, its gradient and its decay."""

SHARE = (0.0, 1.0)
POSITIVE = (0.0, inf)
"""What options may be, see `Optimizer.limits`."""

_RATE = TensorType(np.dtype(np.float32), ())
_COUNT = TensorType(np.dtype(np.int64), ())


@dataclass(frozen=True)
class Optimizer(Pass, ABC):
    """Move parameters by their gradients: what all optimizers have in common.

    Each value that the graph returns a gradient of gets an output ``<name>_next``. What is remembered of it from step to
    step are inputs ``<name>.<optimizer>.<state>``, of its shape, with outputs of the same name and "_next" behind it.
    `irgrad.updates` tells which output is the next value of what, `irgrad.initial_state` the arrays to begin with. The
    learning rate is an input, a float32 scalar; where the formula needs the number of the step, that is one too: an int64
    scalar, 1 in the first step. The parameters stay what they are, and the gradients are still returned.

    Parameters of 16 bits are moved in float32, and their states are float32: most of what Adam remembers would be 0 in
    float16 (torch keeps the parameter's dtype). All others are moved in their own dtype.

    Values that have an update already are left out. So several optimizers, each for some parameters, follow one another:
    ``sgd{only=head.*},adamw``.

    Attributes:
        weight_decay: how strongly parameters are pulled to 0.
        decay: patterns with ``*`` and ``?``: the names of those that are.
        only: patterns of which a name has to match one, for the value to be moved.
        skip: patterns of which it must not match any.
        learning_rate: the name of the input for the learning rate. One that the graph has already is used.
        step: that of the input for the number of the step.
    """

    weight_decay: float = 0.0
    decay: Sequence[str] = ("*",)
    only: Sequence[str] = ("*",)
    skip: Sequence[str] = ()
    learning_rate: str = "learning_rate"
    step: str = "step"

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Option → the numbers that it may be: from the first to below the second."""

    @property
    def states(self) -> Mapping[str, float]:
        """The states of one parameter → the number that each begins with."""
        return {}

    @property
    def counts(self) -> bool:
        """Whether the formula needs the number of the step."""
        return False

    @abstractmethod
    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        """The update of parameters that are of the dtype of `rate`; what they share is emitted here.

        Args:
            b: the builder, whose ``with`` block is open.
            rate: the learning rate.
            count: the number of the step, for an optimizer that counts.
        """

    def requires(self, graph: Graph) -> None:
        for option, (low, high) in {"weight_decay": POSITIVE, **self.limits}.items():
            number = getattr(self, option)
            if not low <= number < high:
                below = "" if high == inf else f" and less than {high:g}"
                raise PassError(f"{option}={number:g} is out of range: it has to be at least {low:g}{below}")
        for name in self._waiting(graph):
            value = _parameter(graph, name)
            if value.producer is not None:
                raise PassError(f"{value!r} is computed, so that no update can be put back; leave it out (skip=)")
            inputs = [f"{name}.{self.name}.{state}" for state in self.states]
            outputs = [f"{new}_next" for new in (name, *inputs)]
            for new in (*inputs, *outputs):
                if graph.has_value(new) or new in graph.outputs:
                    raise PassError(f"the name {new!r}, which the update of {name!r} needs, is taken")
        for name, type in ((self.learning_rate, _RATE), *([(self.step, _COUNT)] if self.counts else ())):
            present = graph.inputs.get(name)
            if graph.has_value(name) and (present is None or present.type != type):
                raise PassError(f"the name {name!r}, which the optimizer needs for an input of {type}, is taken")

    def run(self, graph: Graph) -> bool:
        self.requires(graph)
        names = self._waiting(graph)
        if not names:
            return False
        b = Builder(graph, role=Role.UPDATE)
        rate = _input(graph, self.learning_rate, _RATE)
        count = _input(graph, self.step, _COUNT) if self.counts else None
        updates: dict[np.dtype, Update] = {}
        with b:
            for name in names:
                dtype = wide(_parameter(graph, name).dtype)
                if dtype not in updates:
                    updates[dtype] = self.rule(b, b.cast(rate, dtype), count)
                self._move(b, name, dtype, updates[dtype])
        return True

    def _waiting(self, graph: Graph) -> list[str]:
        """The values to be moved that have no update yet."""
        updated = updates_of(graph)
        return [name for name in chosen(graph, self.only, self.skip) if name not in updated]

    def _move(self, b: Builder, name: str, dtype: np.dtype, update: Update) -> None:
        graph, x = b.graph, _parameter(b.graph, name)
        gradient = graph.outputs[graph.gradients[name]]
        states = {f"{name}.{self.name}.{state}": fill for state, fill in self.states.items()}
        inputs = [graph.add_input(state, TensorType(dtype, x.shape)) for state in states]
        decay = self.weight_decay if matches(name, self.decay) else 0.0
        moved, *remembered = update(b.cast(x, dtype), b.cast(gradient, dtype), decay, *inputs)
        outputs = graph.outputs
        for value, new in zip((x, *inputs), (b.cast(moved, x.dtype), *remembered), strict=True):
            graph.set_type(new, value.type)  # a gradient of unknown shape must not make the next value one
            graph.rename(new, f"{name if value is x else value.name}_next")
            outputs[new.name] = new
            note_update(graph, name if value is x else value.name, new.name)
        graph.set_outputs(outputs)
        for state, fill in states.items():
            note_state(graph, state, fill)


def _parameter(graph: Graph, name: str) -> Value:
    """The value that a gradient is of."""
    return graph.outputs.get(name) or graph.value(name)


def _input(graph: Graph, name: str, type: TensorType) -> Value:
    return graph.inputs.get(name) or graph.add_input(name, type)
