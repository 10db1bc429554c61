"""One application of an operation to concrete operands, as a graph: what the checks of operations are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.op import Op, find_op
from irgrad.types import SequenceType, TensorType, Type

__all__ = ["Case", "leaves", "loosened", "mapped", "type_of"]


@dataclass(frozen=True)
class Case:
    """One application of an operation to concrete operands.

    Attributes:
        op: qualified name, or an operation that need not be registered.
        inputs: operands (float64 or float32 arrays, integers, lists of arrays for sequences, None); floating-point ones are
            float64 in gradient checks.
        attrs: attributes.
        outputs: how many outputs the node has.
        id: what makes the case special, for the test's name.
        order: the highest derivative that is checked: 2 for smooth operations, 1, or 0 where there is none.
        wrt: positions of the operands to differentiate by; all floating-point ones by default.
        wanted: positions of the outputs whose gradient is checked; all floating-point ones by default.
        dynamic: also run with no dimension known at compile time and integer operands fed at run time.
        oracle: function of the operands that returns the expected results; onnx.reference by default.
        rtol: tolerance of the forward comparison.
        types: position → type of an operand that does not tell its own: an empty sequence, an optional.
        requires: a module without which the case is skipped.
    """

    op: str | Op
    inputs: Sequence[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    id: str = ""
    order: int = 2
    wrt: Sequence[int] | None = None
    wanted: Sequence[int] | None = None
    dynamic: bool = True
    oracle: Callable[..., Any] | None = None
    rtol: float = 1e-5
    types: Mapping[int, Type] = field(default_factory=dict)
    requires: str = ""

    @property
    def name(self) -> str:
        """The name of the operation, and what makes the case special."""
        name = self.op if isinstance(self.op, str) else self.op.qualified_name
        return f"{name}-{self.id}" if self.id else name

    @property
    def definition(self) -> Op:
        """The operation."""
        if isinstance(self.op, Op):
            return self.op
        domain, _, short = self.op.rpartition(".")
        return find_op(short, domain)

    def differentiated(self) -> list[int]:
        """Positions of the operands to differentiate by."""
        if self.wrt is not None:
            return list(self.wrt)
        return self._floats()

    def forgotten(self) -> list[int]:
        """Positions of the floating-point operands that are left out of the gradient check."""
        return [k for k in self._floats() if k not in self.differentiated()]

    def checked_outputs(self, graph: Graph) -> list[str]:
        """The outputs, of a graph that `graph` made, whose gradient is checked."""
        if self.wanted is not None:
            return [f"y{k}" for k in self.wanted]
        return [name for name, value in graph.outputs.items() if value.type.differentiable]

    def operands(self) -> list[Any]:
        """The operands as kernels get them: arrays, lists of arrays, None."""
        return [mapped(np.asarray, operand) for operand in self.inputs]

    def operand_types(self) -> list[Type | None]:
        """The types of the operands, None for an absent one."""
        found = enumerate(self.operands())
        return [self.types[k] if k in self.types else None if o is None else type_of(o) for k, o in found]

    def graph(self, *, dynamic: bool = False) -> Graph:
        """The case as a graph: operand k is the input `x<k>`; a tensor without floats is a constant, unless dynamic."""
        graph = Graph(self.name)
        operands: list[Value | None] = []
        for k, (operand, type) in enumerate(zip(self.operands(), self.operand_types(), strict=True)):
            if type is None:
                operands.append(None)
            elif not isinstance(type, TensorType) or type.differentiable or dynamic:
                operands.append(graph.add_input(f"x{k}", loosened(type) if dynamic else type))
            else:
                operands.append(graph.add_constant(operand, f"x{k}"))
        attrs = {key: value.copy() if isinstance(value, Graph) else value for key, value in self.attrs.items()}
        node = Builder(graph).node(self.definition, operands, attrs, outputs=self.outputs)
        graph.set_outputs({f"y{k}": value for k, value in enumerate(node.outputs)})
        return graph

    def feeds(self, graph: Graph) -> dict[str, Any]:
        """The operands that are inputs of a graph that `graph` made, by name."""
        names = graph.inputs
        return {f"x{k}": operand for k, operand in enumerate(self.operands()) if f"x{k}" in names}

    def _floats(self) -> list[int]:
        return [k for k, type in enumerate(self.operand_types()) if type is not None and type.differentiable]


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """A function applied to the tensors that a value is made of: to itself, to each of a sequence, to none."""
    if isinstance(value, list):
        return [mapped(function, element) for element in value]
    return None if value is None else function(value)


def leaves(value: Any) -> list[np.ndarray]:
    """The tensors that a value is made of."""
    if isinstance(value, list):
        return [leaf for element in value for leaf in leaves(element)]
    return [] if value is None else [np.asarray(value)]


def type_of(value: Any) -> Type:
    """The type of an array, or of a list of arrays, in which a dimension that differs is unknown."""
    if not isinstance(value, list):
        return TensorType.of(value)
    shapes = {element.shape for element in value}
    same_rank = len({len(shape) for shape in shapes}) == 1
    shape = tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)) if same_rank else None
    return SequenceType(TensorType(value[0].dtype, shape))


def loosened(type: Type) -> Type:
    """The type with no dimension known."""
    if not isinstance(type, TensorType):
        return replace(type, element=loosened(type.element))
    return type.with_shape(None if type.shape is None else (None,) * len(type.shape))
