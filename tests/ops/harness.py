"""One case per operation and mode, and what is checked of each.

Forward: our kernel against onnx.reference (or the oracle that the case names), dtype and shape against type inference.
Backward: against finite differences in float64. Second order: the gradient's own gradient, likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph
from irgrad.op import Op, find_op
from irgrad.types import TensorType, is_differentiable


@dataclass(frozen=True)
class Case:
    """One application of an operation to concrete operands.

    Attributes:
        op: qualified name.
        inputs: operands (float64 or float32 arrays, integers, None); floating-point ones are float64 in gradient checks.
        attrs: attributes.
        outputs: how many outputs the node has.
        id: what makes the case special, for the test's name.
        order: the highest derivative that is checked: 2 for smooth operations, 1, or 0 where there is none.
        wrt: positions of the operands to differentiate by; all floating-point ones by default.
        wanted: positions of the outputs whose gradient is checked; all floating-point ones by default.
        dynamic: also run with no dimension known at compile time and integer operands fed at run time.
        oracle: function of the operands that returns the expected results; onnx.reference by default.
        rtol: tolerance of the forward comparison.
    """

    op: str
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

    @property
    def name(self) -> str:
        return f"{self.op}-{self.id}" if self.id else self.op

    @property
    def definition(self) -> Op:
        domain, _, short = self.op.rpartition(".")
        return find_op(short, domain)

    def differentiated(self) -> list[int]:
        """Positions of the operands to differentiate by."""
        if self.wrt is not None:
            return list(self.wrt)
        return [k for k, a in enumerate(self.inputs) if a is not None and is_differentiable(np.asarray(a).dtype)]

    def graph(self, *, dynamic: bool = False) -> Graph:
        """The case as a graph: operand k is the input `x<k>` (a constant where it is no float, unless dynamic)."""
        graph = Graph(self.name)
        operands = []
        for k, array in enumerate(self.inputs):
            if array is None:
                operands.append(None)
                continue
            array = np.asarray(array)
            if is_differentiable(array.dtype) or dynamic:
                shape = (None,) * array.ndim if dynamic else array.shape
                operands.append(graph.add_input(f"x{k}", TensorType(array.dtype, shape)))
            else:
                operands.append(graph.add_constant(array, f"x{k}"))
        node = Builder(graph).node(self.definition, operands, self.attrs, outputs=self.outputs)
        graph.set_outputs({f"y{k}": value for k, value in enumerate(node.outputs)})
        return graph

    def feeds(self, graph: Graph) -> dict[str, np.ndarray]:
        names = graph.inputs
        return {f"x{k}": np.asarray(a) for k, a in enumerate(self.inputs) if a is not None and f"x{k}" in names}


def rng(seed: int = 0) -> np.random.Generator:
    """The random numbers of a case; each case makes its own, so that adding one does not move the others."""
    return np.random.default_rng(seed)
