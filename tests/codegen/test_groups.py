"""Reductions and composite operations over all kinds of shapes, against the numpy kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from irgrad.codegen.composites import COMPOSITES
from irgrad.codegen.losses import LOSSES
from irgrad.graph import Value
from tests.codegen.bodies import agree, body, normal

SUMS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")


def reductions(axes: tuple[int, ...], keepdims: int) -> Callable[..., Any]:
    def emit(b: Any, x: Value) -> Any:
        found = [b.op(name, x, b.ints(axes), keepdims=keepdims) for name in SUMS]
        return [*found, b.op("ReduceLogSum", b.op("Abs", x), b.ints(axes), keepdims=keepdims)]

    return emit


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *(((5, 7), (1,)), ((5, 7), (0,)), ((1, 7), (1,)), ((5, 1), (1,)), ((37,), (0,)), ((8, 4, 16, 16), (1,))),
        *(((3, 4, 5, 6), (0, 2, 3)), ((2, 3, 1, 1), (0, 2, 3)), ((300, 257), (0,)), ((300, 257), (0, 1))),
        *(((16, 3, 40, 40), (0, 2, 3)), ((50001,), (0,))),
    ],
)
def test_reductions(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = normal(*shape)
    agree(body([x], reductions(axes, len(shape) % 2)), [x], scale=1)


def test_reductions_in_float64_and_of_integers() -> None:
    x, n = normal(30, 40, dtype=np.float64), np.arange(-60, 60).reshape(12, 10)

    def emit(b: Any, x: Value, n: Value) -> Any:
        return [
            *reductions((1,), 0)(b, x),
            b.op("ReduceProd", x, b.ints([1])),
            b.op("ReduceSum", x, b.ints([]), noop_with_empty_axes=1),
            b.op("irgrad.SumTo", x, b.ints([30, 1])),
            b.op("irgrad.SumTo", x, b.ints([40])),
        ]

    agree(body([x, x], emit), [x, x], scale=1)
    agree(
        body(
            [n, n > 3],
            lambda b, n, m: (
                [b.op(r, n, b.ints([1])) for r in ("ReduceSum", "ReduceMax", "ReduceMin")]
                + [b.op("ReduceMax", m, b.ints([1])), b.op("ReduceMin", m, b.ints([0]))]
            ),
        ),
        [n, n > 3],
    )


def test_reductions_of_infinities_and_nan() -> None:
    x = normal(6, 70)
    x[0, 3], x[1, 4], x[2, 5], x[2, 6], x[3, :] = np.inf, -np.inf, np.nan, np.inf, -np.inf

    def emit(b: Any, x: Value) -> Any:
        found = [b.op(name, x, b.ints([k])) for name in SUMS for k in (0, 1)]
        return [*found, b.op("Softmax", x), b.op("LogSoftmax", x), b.op("irgrad.SoftmaxGrad", b.op("Softmax", x), x)]

    agree(body([x], emit), [x], scale=1)


SHAPES = [(5, 7), (1, 7), (5, 1), (3, 4, 33), (70, 1000)]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows(shape: tuple[int, ...]) -> None:
    x, dy, scale, bias = normal(*shape), normal(*shape, seed=1), normal(shape[-1], seed=2), normal(shape[-1], seed=3)

    def emit(b: Any, x: Value, dy: Value, scale: Value, bias: Value) -> Any:
        y = b.op("Softmax", x)
        return [
            *(y, b.op("LogSoftmax", x), b.op("irgrad.SoftmaxGrad", y, dy), b.op("RMSNormalization", x, scale)),
            *b.multi("LayerNormalization", x, scale, bias, outputs=3),
            *(b.op("LpNormalization", x, p=1), b.op("LpNormalization", x)),
        ]

    agree(body([x, dy, scale, bias], emit), [x, dy, scale, bias], scale=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_of_a_layer_normalisation(dtype: Any) -> None:
    """Reductions along rows and along columns in one nest."""
    x, dy = normal(6, 50, 32, dtype=dtype), normal(6, 50, 32, dtype=dtype, seed=1)
    scale, mean, inverse = normal(32, dtype=dtype), normal(6, 50, 1, dtype=dtype), normal(6, 50, 1, dtype=dtype, seed=1)

    def emit(b: Any, x: Value, dy: Value, scale: Value, mean: Value, inverse: Value) -> Any:
        normalised, g = (x - mean) * inverse, dy * scale
        first, second = (b.op("ReduceMean", v, b.ints([-1])) for v in (g, g * normalised))
        dx = inverse * (g - (first + normalised * second))
        sums = b.op("ReduceSum", dy * normalised, b.ints([0, 1]), keepdims=0), b.op("irgrad.SumTo", dy, b.ints([32]))
        return dx, *sums, b.op("ReduceSum", dx, keepdims=0)

    arrays = [x, dy, scale, mean, inverse]
    agree(body(arrays, emit), arrays, scale=2)


@pytest.mark.parametrize("shape", [(4, 6, 5, 5), (40, 6), (3, 1, 1, 7), (1, 3, 2, 2), (6, 16, 30, 30)])
@pytest.mark.parametrize("training", [0, 1])
def test_channels(shape: tuple[int, ...], training: int) -> None:
    x, dy = normal(*shape), normal(*shape, seed=1)
    scale, bias, mean = (normal(shape[1], seed=k) for k in (2, 3, 4))
    var = np.abs(normal(shape[1], seed=5)) + 0.5

    def emit(b: Any, x: Value, dy: Value, scale: Value, bias: Value, mean: Value, var: Value) -> Any:
        y, *running = b.multi(
            "BatchNormalization", x, scale, bias, mean, var, outputs=3 if training else 1, training_mode=training
        )
        wrt = (0, 1, 2) if training else (0, 1, 2, 3, 4)
        cotangent = b.op("Where", y > 0, dy, b.scalar(0, dy))
        rest = () if training else (mean, var)
        grads = b.multi(
            "irgrad.BatchNormalizationGrad", cotangent, x, scale, *rest, outputs=len(wrt), wrt=wrt, training_mode=training
        )
        return b.op("Relu", y), *running, *grads

    arrays = [x, dy, scale, bias, mean, var]
    agree(body(arrays, emit), arrays, scale=3)


def test_groups_of_channels() -> None:
    x, scale, bias = normal(3, 4, 5, 6), normal(4), normal(4, seed=1)

    def emit(b: Any, x: Value, scale: Value, bias: Value) -> Any:
        return (
            b.op("InstanceNormalization", x, scale, bias),
            b.op("MeanVarianceNormalization", x, axes=(2, 3)),
        )

    agree(body([x, scale, bias], emit), [x, scale, bias], scale=1)
    group = body([x, scale, bias], lambda b, x, s, c: b.op("GroupNormalization", x, s, c, num_groups=2))
    agree(group, [x, scale, bias], scale=1)
    over = body([x], lambda b, x: b.op("MeanVarianceNormalization", x))
    agree(over, [x], scale=1)


LABELS = np.array([0, 6, -1, 3, 3])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(reduction: str, weighted: bool) -> None:
    x, weights, labels = normal(5, 7), np.abs(normal(7)) + 0.1, LABELS
    dloss = normal(5, seed=1) if reduction == "none" else np.array(1.5, np.float32)
    attrs = {"reduction": reduction, "ignore_index": -1}

    def emit(b: Any, x: Value, labels: Value, dloss: Value, weights: Value) -> Any:
        w = weights if weighted else None
        return (
            *b.multi("SoftmaxCrossEntropyLoss", x, labels, w, outputs=2, **attrs),
            b.op("NegativeLogLikelihoodLoss", b.op("LogSoftmax", x), labels, w, **attrs),
            b.op("irgrad.SoftmaxCrossEntropyLossGrad", dloss, x, labels, w, **attrs),
            b.op("irgrad.NegativeLogLikelihoodLossGrad", dloss, b.ints([5, 7]), labels, w, **attrs),
        )

    arrays = [x, labels, dloss, weights]
    agree(body(arrays, emit), arrays, scale=1)


def test_losses_of_all_samples() -> None:
    x, labels, dloss = normal(33, 300), np.arange(33, dtype=np.int32) * 9, np.array(0.5, np.float32)

    def emit(b: Any, x: Value, labels: Value, dloss: Value) -> Any:
        return b.op("SoftmaxCrossEntropyLoss", x, labels), b.op("irgrad.SoftmaxCrossEntropyLossGrad", dloss, x, labels)

    agree(body([x, labels, dloss], emit), [x, labels, dloss], scale=1)


@pytest.mark.parametrize("shape", [(4, 5), (300, 400), (100000,), ()])
def test_what_depends_on_sums_over_everything(shape: tuple[int, ...]) -> None:
    """Clipping by norm: a nest that sums up, another that uses the sum."""
    x, t = normal(*shape), normal(*shape, seed=1)

    def emit(b: Any, x: Value, t: Value) -> Any:
        norm = b.op("ReduceL2", x, keepdims=0)
        factor = b.op("Min", 1.0 / (norm + 1e-6), b.constant(np.float32(1)))
        clipped = x * factor
        return clipped, norm, b.op("ReduceMean", (clipped - t) * (clipped - t), keepdims=0)

    agree(body([x, t], emit), [x, t], scale=1)


def test_an_optimizer() -> None:
    arrays = [np.array(0.1, np.float32), np.array(3), *(normal(50, 60, seed=k) for k in range(3)), np.abs(normal(50, 60))]
    adam = body(arrays, lambda b, *vs: b.multi("ai.onnx.preview.training.Adam", *vs, outputs=3, norm_coefficient=0.1))
    agree(adam, arrays, scale=1)


def test_every_composite_operation_is_tried() -> None:
    from pathlib import Path

    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in (*COMPOSITES, *LOSSES) if f'"{name}"' not in text]


def test_several_spaces() -> None:
    """The updates of many parameters: one kernel, in which small ones share a function."""
    shapes = [(3,), (4, 5), (7, 1, 2), (), (300, 400), (5000,), *((k, 3) for k in range(2, 17))]
    rate = np.array(0.1, np.float32)
    arrays = [rate, *(normal(*shape, seed=k) for k in range(2) for shape in shapes)]

    def emit(b: Any, rate: Value, *vs: Value) -> Any:
        step = rate * 0.5
        count = len(shapes)
        updated = [x - step * g for x, g in zip(vs[:count], vs[count:], strict=True)]
        return [*updated, step, b.op("ReduceMax", vs[4])]

    graph = body(arrays, emit)
    kernel = agree(graph, arrays, scale=0.1)
    assert len(getattr(kernel, "function", kernel).functions) < len(shapes) // 2
