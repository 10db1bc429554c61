"""Random graphs, made of cases of operations.

The differentiable operands of a case are moved by what the graph has computed so far: a little, so that they stay about
where the case put them, off the kinks and in the domain of the operation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import UsageError, did_you_mean
from irgrad.graph import Graph, Value
from irgrad.testing.case import Case
from irgrad.types import TensorType, is_differentiable

__all__ = ["START", "TEMPLATES", "compose", "random_graph", "usable"]

F64 = np.dtype(np.float64)
START = np.array([0.3, -0.7, 1.1])
"""A feed for the input ``x`` of the graphs."""


def random_graph(seed: int, ops: Sequence[str | Case] | None = None, size: int = 10, *, reach: float = 0.02) -> Graph:
    """A random graph in float64: an input ``x`` of three elements, and scalar outputs ``y0``, ``y1``, ...

    All of it can be verified, run (a good feed is `START`), differentiated by ``x`` and printed. The same arguments make
    the same graph.

    Args:
        seed: of everything that is random.
        ops: what to choose from: names of `TEMPLATES`, and cases of one's own; all templates by default.
        size: how many cases are put in, each of one node and what joins it to the others.
        reach: how far at most an element of an operand is moved from where its case put it; the templates have no kink and
            no tie within the default.

    Raises:
        UsageError: a name is none of a template, a case is not `usable`, or there is nothing to choose from.
    """
    pool = [_template(op) for op in (TEMPLATES if ops is None else ops)]
    if not pool:
        raise UsageError("a random graph needs something to choose from: ops is empty")
    chosen = np.random.default_rng([seed, 1]).integers(len(pool), size=size).tolist()
    return compose([pool[k] for k in chosen], seed, reach)


def _template(op: str | Case) -> Case:
    if isinstance(op, str) and op not in TEMPLATES:
        raise UsageError(f"there is no template {op!r} for random graphs{did_you_mean(op, TEMPLATES)}; give a Case")
    case = TEMPLATES[op] if isinstance(op, str) else op
    if not usable(case):
        raise UsageError(f"the case {case.name!r} cannot be part of a random graph: see irgrad.testing.usable")
    return case


def usable(case: Case) -> bool:
    """Whether a case can be part of a random graph: tensors only, not too many elements, finite, and nothing random."""
    arrays = [a for a in case.inputs if a is not None]
    if any(isinstance(a, list) for a in arrays) or case.definition.random:
        return False
    return all(np.size(a) <= 500 for a in arrays) and all(
        np.isfinite(np.asarray(a, np.float64)).all() for a in arrays if is_differentiable(np.asarray(a).dtype)
    )


def compose(cases: Sequence[Case], seed: int, reach: float = 1e-3) -> Graph:
    """The graph of `random_graph` that has these cases, in this order."""
    graph = Graph("random")
    b = Builder(graph)
    generator = np.random.default_rng(seed)
    pool = [graph.add_input("x", TensorType(F64, START.shape))]
    with b:
        for case in cases:
            pool += _extended(b, pool, case, generator, reach)
        ends = [v for v in pool if not v.users] or pool[-1:]
        graph.set_outputs({f"y{k}": b.op("ReduceSum", b.op("Tanh", v), keepdims=0) for k, v in enumerate(ends)})
    return graph


def _extended(b: Builder, pool: Sequence[Value], case: Case, generator: np.random.Generator, reach: float) -> list[Value]:
    """Emit a case; its results that can be differentiated."""
    operands: list[Value | None] = []
    for position, array in enumerate(case.inputs):
        if array is None:
            operands.append(None)
            continue
        array = np.asarray(array)
        array = array.astype(F64) if is_differentiable(array.dtype) else array
        constant = b.constant(array)
        if position in case.differentiated() and array.size:
            moved = _reshaped(b, pool[int(generator.integers(len(pool)))], array.shape)
            operands.append(constant + reach * b.op("Tanh", moved))
        else:
            operands.append(constant)
    attrs = {name: value.copy() if isinstance(value, Graph) else value for name, value in case.attrs.items()}
    node = b.node(case.definition, operands, attrs, outputs=case.outputs)
    wanted = range(case.outputs) if case.wanted is None else case.wanted
    outputs = [node.outputs[k] for k in wanted]
    return [
        v for v in outputs if isinstance(v.type, TensorType) and v.dtype == F64 and v.type.static_shape and v.type.nbytes
    ]


def _reshaped(b: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    """The elements of a value, as many of them and as often as a shape has."""
    have, want = int(np.prod(value.tensor_type.static_shape or ())), int(np.prod(shape))
    flat = b.op("Reshape", value, b.ints([-1]))
    if have < want:
        flat = b.op("Tile", flat, b.ints([-(-want // have)]))
    if have != want and have * -(-want // have) != want:
        flat = b.op("Slice", flat, b.ints([0]), b.ints([want]))
    return b.op("Reshape", flat, b.ints(shape), allowzero=1 if 0 in shape else None)


# --- what to choose from ----------------------------------------------------------------------------------------------


def _spread(*shape: int, low: float = -1.3, high: float = 1.7) -> np.ndarray:
    """Numbers over a range, none of them twice, in no order that a shape would show, and none near 0."""
    numbers = np.linspace(low, high, int(np.prod(shape)))
    order = np.random.default_rng(int(np.prod(shape))).permutation(numbers.size)
    return np.where(np.abs(numbers) < 0.05, 0.07, numbers)[order].reshape(shape)


def _templates() -> list[Case]:
    vector, matrix, image = _spread(3), _spread(3, 4), _spread(1, 2, 5, 5)
    positive = _spread(3, 4, low=0.4, high=2.1)
    unary = ["Abs", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh"]
    binary = ["Add", "Max", "Min", "Mul", "Sub"]
    return [
        *(Case(name, [matrix]) for name in unary),
        *(Case(name, [positive]) for name in ("Exp", "Log", "Reciprocal", "Sqrt")),
        *(Case(name, [matrix, 0.9 * matrix.T.reshape(3, 4)[::-1]]) for name in binary),
        *(Case(name, [matrix, _spread(4)], id="row") for name in ("Add", "Mul")),
        Case("Mul", [matrix, _spread(3, 1)], id="column"),
        Case("Div", [matrix, positive]),
        Case("Pow", [positive, np.array(3.0)], wrt=[0]),
        Case("Clip", [matrix, np.array(-0.52), np.array(0.81)], wrt=[0]),
        Case("Where", [_spread(3, 4) > 0, matrix, _spread(4)]),
        Case("MatMul", [matrix, _spread(4, 2)]),
        Case("MatMul", [_spread(2, 3, 4), _spread(4, 3)], id="stack"),
        Case("Gemm", [_spread(4, 3), matrix.T.reshape(4, 3), vector[:1]], {"transA": 1, "alpha": 0.5}),
        Case("Conv", [image, _spread(3, 2, 3, 3), vector], {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        Case("MaxPool", [image], {"kernel_shape": (2, 2), "strides": (1, 1)}),
        Case("AveragePool", [image], {"kernel_shape": (3, 3), "pads": (1, 0, 1, 0)}),
        Case("BatchNormalization", [image, vector[:2], vector[1:], vector[:2], np.array([0.8, 1.3])], wrt=[0, 1, 2, 3]),
        Case("LayerNormalization", [matrix, _spread(4), _spread(4)]),
        Case("Softmax", [matrix], {"axis": 1}),
        Case("LogSoftmax", [matrix], {"axis": 0}),
        *(Case(name, [matrix, np.array([1])], {"keepdims": 0}) for name in ("ReduceSum", "ReduceMean", "ReduceMax")),
        Case("ReduceSum", [_spread(2, 3, 2), np.array([0, 2])], {"keepdims": 1}, id="kept"),
        Case("Transpose", [matrix], {"perm": (1, 0)}),
        Case("Reshape", [matrix, np.array([2, -1])]),
        Case("Unsqueeze", [vector, np.array([1])]),
        Case("Squeeze", [_spread(3, 1), np.array([1])]),
        Case("Flatten", [_spread(2, 3, 2)]),
        Case("Expand", [_spread(3, 1), np.array([2, 3, 4])]),
        Case("Concat", [matrix, _spread(1, 4)], {"axis": 0}),
        Case("Split", [matrix, np.array([1, 3])], {"axis": 1}, outputs=2),
        Case("Slice", [matrix, np.array([2]), np.array([-5]), np.array([0]), np.array([-1])]),
        Case("Gather", [matrix, np.array([[2, 0], [1, 2]])], {"axis": 0}),
        Case("Pad", [matrix, np.array([1, 0, 0, 2])]),
        Case("Tile", [vector, np.array([2])]),
    ]


TEMPLATES: dict[str, Case] = {case.name: case for case in _templates()}
"""Name → case: what random graphs are made of by default. Every one is covered by the tests of irgrad."""
