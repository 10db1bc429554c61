"""Cases of irgrad/ops/fused.py; tests/runtime/test_tiles.py has what runs tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.types import TensorType
from tests.ops.bodies import subgraph
from tests.ops.harness import Case, rng

X, Y = rng(0).standard_normal((3, 4)), rng(1).standard_normal((3, 4))
ROW = rng(2).standard_normal(4)


def body(arrays: Sequence[np.ndarray], make: Callable[..., Sequence[Value]], *, ranks_only: bool = True) -> Graph:
    """A body for operands like some arrays; of unknown sizes, so that the same serves for all dtypes and shapes."""
    types = {f"v{k}": TensorType(a.dtype, (None,) * a.ndim if ranks_only else a.shape) for k, a in enumerate(arrays)}
    return subgraph(types, make)


def fused(id: str, arrays: Sequence[np.ndarray], make: Callable[..., Sequence[Value]], want: Callable, **options) -> Case:
    attrs = {"body": body(arrays, make), **{k: options.pop(k) for k in ("layout", "tiled") if k in options}}
    return Case("irgrad.Fused", list(arrays), attrs, id=id, oracle=want, **options)


def scaled(b: Builder, x: Value, row: Value) -> list[Value]:
    return [b.op("Tanh", x * row) + 0.5]


def several(b: Builder, x: Value, y: Value) -> list[Value]:
    product = x * y
    return [product, b.op("Sin", product), b.op("ReduceSum", product, b.ints([0]), keepdims=0)]


def normalised(b: Builder, x: Value) -> list[Value]:
    return [b.op("Softmax", x, axis=-1)]


def untiled(b: Builder, x: Value, y: Value) -> list[Value]:
    return [b.op("MatMul", x, b.op("Transpose", y, perm=[1, 0]))]


def same_and_constant(b: Builder, x: Value) -> list[Value]:
    return [b.op("Identity", x), b.op("Add", b.constant(np.ones(2)), b.constant(np.array(2.0)))]


CASES = [
    fused("map", [X, ROW], scaled, lambda x, r: np.tanh(x * r) + 0.5),
    fused("tiled", [X, ROW], scaled, lambda x, r: np.tanh(x * r) + 0.5, layout="ab,b->ab", tiled="ab"),
    fused(
        "sums",
        [X, Y],
        several,
        lambda x, y: (x * y, np.sin(x * y), (x * y).sum(0)),
        layout="ab,ab->ab,ab,b",
        tiled="a",
        outputs=3,
    ),
    fused("rows", [X], normalised, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), layout="ab->ab", tiled="a"),
    fused("whole", [X, Y], untiled, lambda x, y: x @ y.T),
    fused("passed-on", [X], same_and_constant, lambda x: (x, np.full(2, 3.0)), outputs=2, wanted=[0]),
]
