"""What the operations with subgraphs share: their types for given operands, and running them.

The last `captured` operands of such an operation are values of the scope around it that its subgraphs read; they are the
last inputs of each subgraph. The types inside of a subgraph follow from those of its inputs, so that they are inferred
afresh for each node: the types that the subgraph itself carries are those of the general case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from irgrad.contents import follows_contents, infer_contents
from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.graph import Graph, Value
from irgrad.infer import infer_types
from irgrad.op import Call
from irgrad.runtime.interpreter import Subprogram
from irgrad.runtime.specialise import sharper, specialise
from irgrad.types import Dim, OptionalType, SequenceType, TensorType, Type, same_dtypes

__all__ = ["Body", "Known", "joined", "plain_operands", "possible_branches", "single"]


@dataclass(frozen=True)
class Known:
    """What is known of a value before it runs: its type, the elements of a small integer tensor, a constant's array."""

    type: Type
    contents: tuple[Dim, ...] | None = None
    array: np.ndarray | None = None


def plain_operands(call: Call) -> int:
    """How many operands of an operation with subgraphs are its own: those before the captured ones."""
    return len(call.inputs) - int(call.attrs["captured"])


def possible_branches(call: Call) -> list[str]:
    """The attributes of an If that hold the branches that may be taken."""
    condition = call.contents.get(0)
    if condition is None or not isinstance(condition[0], int):
        return ["then_branch", "else_branch"]
    return ["then_branch" if condition[0] else "else_branch"]


class Body:
    """One subgraph of a node.

    Args:
        call: the node.
        name: the attribute that holds the subgraph.

    Raises:
        TypeInferenceError: the attribute is absent, or the subgraph has fewer inputs than the node captures values.
    """

    def __init__(self, call: Call, name: str) -> None:
        graph = call.attrs.get(name)
        if not isinstance(graph, Graph):
            raise TypeInferenceError(f"{call.op.qualified_name} has no subgraph {name!r}")
        self.name = name
        self.graph = graph
        self.inputs = list(graph.inputs.values())
        self.outputs = list(graph.outputs.values())
        first = plain_operands(call)
        self.captured = [_known(call, position) for position in range(first, len(call.inputs))]
        self.own = self.inputs[: len(self.inputs) - len(self.captured)]
        if len(self.inputs) < len(self.captured):
            raise TypeInferenceError(
                f"the subgraph {name!r} has {len(self.inputs)} inputs, but its node captures {len(self.captured)} values"
            )

    def expect(self, inputs: int, outputs: int, *, exactly: bool) -> None:
        """Check how many inputs of its own, and how many outputs, the subgraph has.

        Raises:
            TypeInferenceError: it has another number of inputs, or of outputs (not `exactly`: fewer).
        """
        if len(self.own) != inputs:
            raise TypeInferenceError(
                f"the subgraph {self.name!r} has {len(self.own)} inputs, but there is work for {inputs}"
            )
        if len(self.outputs) < outputs or (exactly and len(self.outputs) != outputs):
            raise TypeInferenceError(f"the subgraph {self.name!r} has {len(self.outputs)} outputs, but {outputs} are needed")

    def infer(self, own: Sequence[Known]) -> list[Known]:
        """What is known of the outputs, given what is known of the inputs that are not captured.

        Raises:
            TypeInferenceError: the operands do not fit a node inside, or not the subgraph.
        """
        known = self._given(own)
        for value, array in self.graph.constants.items():
            known[value] = Known(value.type, value.contents, array)
        for node in self.graph.nodes():
            operands = [None if v is None else known[v] for v in node.inputs]
            call = Call(
                op=node.op,
                attrs={**node.op.defaults, **node.attrs},
                inputs=tuple(None if o is None else o.type for o in operands),
                constants={k: o.array for k, o in enumerate(operands) if o is not None and o.array is not None},
                contents={k: o.contents for k, o in enumerate(operands) if o is not None and o.contents is not None},
                n_outputs=len(node.outputs),
            )
            try:
                types = [sharper(t, v.type) for t, v in zip(infer_types(call), node.outputs, strict=True)]
            except TypeInferenceError as error:
                raise TypeInferenceError(f"at the node {node.name!r} of the subgraph {self.name!r}: {error}") from None
            contents: Sequence[tuple[Dim, ...] | None] = [None] * len(types)
            if follows_contents(node.op):
                contents = infer_contents(replace(call, outputs=tuple(types)))
            known.update(zip(node.outputs, map(Known, types, contents), strict=True))
        return [known[value] for value in self.outputs]

    def _given(self, own: Sequence[Known]) -> dict[Value, Known]:
        """Input → what is known of it: of what it is given, and where that leaves gaps, of what it takes."""
        known: dict[Value, Known] = {}
        for value, given in zip(self.inputs, [*own, *self.captured], strict=True):
            if not same_dtypes(value.type, given.type):
                raise TypeInferenceError(
                    f"the input {value.name!r} of the subgraph {self.name!r} is {value.type}, but it gets {given.type}"
                )
            known[value] = replace(given, type=sharper(given.type, value.type))
        return known

    def invariant(
        self, first: Sequence[Known], states: Sequence[Type], rest: Sequence[Known], at: int
    ) -> tuple[list[Type], list[Known]]:
        """The types of loop states that hold in every iteration, and what is known of the outputs then.

        From those of the initial values on, a dimension that an iteration changes becomes unknown, until none does.

        Args:
            first: the inputs of the body before the states.
            states: the types of the initial states.
            rest: the inputs of the body after the states.
            at: the position of the first state among the outputs of the body.

        Raises:
            TypeInferenceError: an iteration changes the element type of a state.
        """
        while True:
            results = self.infer([*first, *map(Known, states), *rest])
            after = [joined(s, r.type) for s, r in zip(states, results[at : at + len(states)], strict=True)]
            if after == list(states):
                return after, results
            states = after

    def compiled(self, own: Sequence[Known]) -> Callable[..., list[Any]]:
        """The subgraph as a function of arrays, compiled when it is first called: a branch that is never taken never is."""
        return _Lazy(self, own)

    def specialised(self, own: Sequence[Known]) -> Graph:
        """A copy of the subgraph in which all types are those that follow from what it is given.

        Raises:
            TypeInferenceError: the operands do not fit a node inside, or not the subgraph.
        """
        known = {value.name: given for value, given in self._given(own).items()}
        types = {name: given.type for name, given in known.items()}
        return specialise(self.graph, types, {n: given.contents for n, given in known.items() if given.contents is not None})


@dataclass
class _Lazy:
    body: Body
    own: Sequence[Known]

    @cached_property
    def _program(self) -> Subprogram:
        return Subprogram(self.body.specialised(self.own))

    def __call__(self, *operands: Any) -> list[Any]:
        return self._program(*operands)


def _known(call: Call, position: int) -> Known:
    type = call.inputs[position]
    if type is None:
        raise TypeInferenceError(f"{call.op.qualified_name} captures an absent operand")
    return Known(type, call.contents.get(position), call.constants.get(position))


# --- types ------------------------------------------------------------------------------------------------------------


def joined(a: Type, b: Type) -> Type:
    """The type of a value that is of one type or of the other.

    Raises:
        TypeInferenceError: they differ in more than shape.
    """
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype == b.dtype:
        if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
            return a.with_shape(None)
        return a.with_shape(tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)))
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(joined(a.element, b.element))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        # A value may stand for an optional that is there.
        return OptionalType(joined(*(t.element if isinstance(t, OptionalType) else t for t in (a, b))))
    raise TypeInferenceError(f"a value would be {a} or {b}, depending on what runs")


# --- values -----------------------------------------------------------------------------------------------------------


def single(array: np.ndarray, what: str) -> Any:
    """The only element of an array, as a Python number.

    Raises:
        ExecutionError: there is not exactly one.
    """
    if array.size != 1:
        raise ExecutionError(f"{what} must be one element, not an array of shape {list(array.shape)}")
    return array.item()
