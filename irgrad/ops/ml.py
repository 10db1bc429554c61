"""Operations of the domain ai.onnx.ml that onnx tests: those that step, and the one that picks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.op import ZERO, Call, OpTable
from irgrad.runtime.kernels import deliver
from irgrad.types import Type, multiply_dims

ops = OpTable()

_DOMAIN = "ai.onnx.ml"

# Both answer with one of finitely many values: decision trees have no slope, whatever the transform behind them.
ops.define("TreeEnsemble", domain=_DOMAIN, gradient=ZERO)
ops.define("LabelEncoder", domain=_DOMAIN, gradient=ZERO)


@ops.define("Binarizer", domain=_DOMAIN, gradient=ZERO).kernel
def _binarizer(x: np.ndarray, *, threshold: float = 0.0, out: np.ndarray | None = None) -> np.ndarray:
    return deliver((x > threshold).astype(x.dtype), out)


extractor = ops.define("ArrayFeatureExtractor", domain=_DOMAIN)


@extractor.kernel
def _extract(x: np.ndarray, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """The elements at the indices along the last axis; of a vector, as a matrix of one row."""
    return deliver(np.take(np.atleast_2d(x), indices.reshape(-1), -1), out)


@extractor.infer
def _extracted_type(call: Call) -> Sequence[Type]:
    x, indices = call.tensor(0), call.tensor(1)
    if x.shape is None:
        return [x]
    count = None if indices.shape is None else multiply_dims(*indices.shape)
    return [x.with_shape((*(x.shape[:-1] or (1,)), count))]


@extractor.lower
def _(b: Builder, node: Node) -> Value:
    return b.op("Gather", _at_least_a_matrix(b, node.operand(0)), b.op("Reshape", node.operand(1), b.ints([-1])), axis=-1)


def _at_least_a_matrix(b: Builder, x: Value) -> Value:
    """The operand with axes of size 1 before its own, so that there are two."""
    if x.rank is not None:
        return x if x.rank > 1 else b.op("Unsqueeze", x, b.ints(range(2 - x.rank)))
    shape = b.op("Shape", x)
    missing = b.op("Max", b.op("Sub", b.ints([2]), b.op("Shape", shape)), b.ints([0]))
    ones = b.op("ConstantOfShape", missing, value=np.ones(1, np.int64))
    return b.op("Reshape", x, b.op("Concat", ones, shape, axis=0), allowzero=1)
