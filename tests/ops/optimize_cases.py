"""Cases of irgrad/ops/optimize.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

NAME = "ai.onnx.preview.training."
FIRST, SECOND = (2, 3), (4,)
RATE = np.array(0.1)


def operands(op: str, count: int, *shapes: tuple[int, ...], rate: Any = RATE) -> list[np.ndarray]:
    """Rate, count, and for all tensors: tensors, gradients, states (sums of squares are positive)."""
    generator = rng(520)
    kinds = {"Adagrad": "xgh", "Adam": "xgvh", "Momentum": "xgv"}[op]
    arrays = [
        generator.uniform(0.5, 1.5, shape) if kind == "h" else generator.standard_normal(shape)
        for kind in kinds
        for shape in shapes
    ]
    return [rate, np.array(count), *arrays]


def case(op: str, id: str, count: int = 3, *shapes: tuple[int, ...], order: int = 2, rate: Any = RATE, **attrs: Any) -> Case:
    shapes = shapes or (FIRST,)
    states = 2 if op == "Adam" else 1
    inputs = operands(op, count, *shapes, rate=rate)
    return Case(NAME + op, inputs, attrs, outputs=(1 + states) * len(shapes), id=id, order=order)


def momentum(id: str, count: int = 3, *shapes: tuple[int, ...], **attrs: Any) -> Case:
    attrs = {"norm_coefficient": 0.0, "alpha": 0.9, "beta": 0.8, "mode": "standard", **attrs}
    return case("Momentum", id, count, *shapes, **attrs)


def single(op: str, **attrs: Any) -> Case:
    inputs = [a if a.dtype == np.int64 else a.astype(np.float32) for a in operands(op, 5, FIRST)]
    return Case(NAME + op, inputs, attrs, outputs=3 if op == "Adam" else 2, id="float32", rtol=1e-4, order=1)


def mixed(op: str, rate: Any, data: Any) -> Case:
    """A rate in another dtype than the tensors."""
    rest = [a if a.dtype == np.int64 else a.astype(data) for a in operands(op, 5, FIRST)[1:]]
    attrs = {"decay_factor": 0.5} if op == "Adagrad" else {}
    outputs = 3 if op == "Adam" else 2
    return Case(NAME + op, [RATE.astype(rate), *rest], attrs, outputs, f"{rate.__name__}-rate", rtol=1e-5, order=0)


def unusual(op: str, **attrs: Any) -> Case:
    """Sums of squares that are 0, or none at all: the lowering says of all of them what the kernel says."""
    zero, one = np.zeros(4), np.ones(4)
    sums = np.array([0, -1, np.nan, np.inf])
    states = [zero, sums] if op == "Adam" else [sums]
    inputs = [RATE, np.array(1), one, zero, *states]
    return Case(NAME + op, inputs, attrs, outputs=len(states) + 1, id="unusual-sums", order=0)


CASES = [
    case("Adagrad", "defaults"),
    case("Adagrad", "norm", norm_coefficient=0.3),
    case("Adagrad", "decay", decay_factor=0.2),
    case("Adagrad", "decay-first", 0, decay_factor=0.2),
    case("Adagrad", "epsilon", epsilon=0.5),
    case("Adagrad", "several", 2, FIRST, SECOND, (), norm_coefficient=0.01, decay_factor=0.1),
    case("Adagrad", "rate-of-rank-1", 2, FIRST, SECOND, rate=np.array([0.2])),
    single("Adagrad", decay_factor=0.1),
    mixed("Adagrad", np.float32, np.float64),
    mixed("Adagrad", np.float64, np.float32),
    unusual("Adagrad"),
    case("Adam", "defaults"),
    case("Adam", "first", 0),
    case("Adam", "second", 1),
    case("Adam", "late", 100_000),
    case("Adam", "alpha-beta", alpha=0.5, beta=0.7),
    case("Adam", "norm", norm_coefficient=0.3),
    case("Adam", "norm-post", norm_coefficient_post=0.3),
    case("Adam", "epsilon", epsilon=0.5),
    case("Adam", "several", 2, FIRST, SECOND, (), norm_coefficient=0.01, norm_coefficient_post=0.02),
    case("Adam", "rate-of-rank-1", 2, FIRST, SECOND, rate=np.array([0.2])),
    single("Adam"),
    mixed("Adam", np.float32, np.float64),
    mixed("Adam", np.float64, np.float32),
    unusual("Adam"),
    momentum("standard"),
    momentum("standard-first", 0),
    momentum("nesterov", mode="nesterov"),
    momentum("nesterov-first", 0, mode="nesterov"),
    momentum("undamped", beta=1.0, alpha=0.5),
    momentum("norm", norm_coefficient=0.3),
    momentum("nesterov-norm", norm_coefficient=0.3, mode="nesterov"),
    momentum("several", 2, FIRST, SECOND, (), norm_coefficient=0.01, mode="nesterov"),
    momentum("rate-of-rank-1", 2, FIRST, SECOND, rate=np.array([0.2])),
    single("Momentum", norm_coefficient=0.1, alpha=0.9, beta=0.8, mode="standard"),
]
