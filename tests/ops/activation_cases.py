"""Cases of irgrad/ops/activation.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.ops.elementwise_cases import FLOATS, SIGNED, away_from_zero
from tests.ops.harness import Case, rng

X = away_from_zero(rng(30).standard_normal((3, 4)))
IMAGE = away_from_zero(rng(31).standard_normal((2, 3, 2, 2)))
EXTREME = np.array([-1000.0, -200.0, -90.0, -20.0, 20.0, 90.0, 200.0, 1000.0])

erf: Any = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Any) -> Any:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


def normal_distribution(x: Any) -> Any:
    return 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def shrink(x: Any, lambd: float = 0.5, bias: float = 0.0) -> Any:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


ONCE: dict[str, Any] = {
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x: np.where(x < 0, 0.01 * x, x),
    "ThresholdedRelu": lambda x: np.where(x > 1, x, 0),
    "Shrink": shrink,
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "Selu": lambda x: 1.0507010221481323 * np.where(x > 0, x, 1.6732631921768188 * (np.exp(x) - 1)),
    "Celu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "Softplus": softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Gelu": lambda x: x * normal_distribution(x),
    "Mish": lambda x: x * np.tanh(softplus(x)),
    "Swish": lambda x: x * sigmoid(x),
}
"""Their definitions, in float64 and without attributes: onnx.reference goes by way of float32 in some."""


def plain() -> list[Case]:
    cases = []
    for op, f in ONCE.items():
        if op == "Tanh":
            continue
        cases += [
            Case(op, [X], oracle=f, rtol=1e-7),
            Case(op, [X[0, 0]], id="scalar", oracle=f, rtol=1e-7),
            Case(op, [2 * IMAGE.transpose(3, 1, 0, 2)], id="four-axes", oracle=f, rtol=1e-7),
            Case(op, [np.zeros((0, 3))], id="of-nothing", order=0, oracle=f),
        ]
        cases += [
            Case(op, [X.astype(t)], id=t.name, rtol=rtol, oracle=lambda x, f=f: f(x.astype(np.float64)))
            for t, rtol in FLOATS
            if (op, t.name) != ("Shrink", "bfloat16")  # which ONNX does not have
        ]
        if op not in ("Selu", "Elu", "Celu", "Mish"):
            cases.append(Case(op, [EXTREME], id="extreme", oracle=f, rtol=1e-7, order=0))
        cases.append(
            Case(op, [EXTREME.astype(np.float32)], id="extreme-float32", order=0, oracle=lambda x, f=f: f(x.astype(float)))
        )
    return cases


def parametric() -> list[Case]:
    cases = [Case("LeakyRelu", [X], {"alpha": a}, id=f"alpha-{a}") for a in (0.2, 0.0, 1.5, -0.3)]
    cases += [Case("ThresholdedRelu", [X], {"alpha": a}, id=f"alpha-{a}") for a in (0.9, 0.0, -0.35)]
    cases += [
        Case("Shrink", [X], {"lambd": a, "bias": c}, id=f"lambd-{a}-bias-{c}")
        for a, c in ((0.9, 0.25), (0.0, -0.5), (-0.2, 0.1))
    ]
    cases += [Case("HardSigmoid", [2 * X], {"alpha": a, "beta": c}, id=f"alpha-{a}") for a, c in ((0.35, 0.45), (-0.3, 0.6))]
    cases += [Case("Elu", [X], {"alpha": a}, id=f"alpha-{a}") for a in (0.3, 2.0, 0.0, -0.7)]
    cases += [Case("Celu", [X], {"alpha": a}, id=f"alpha-{a}") for a in (0.3, 2.0)]
    cases += [
        Case(
            "Celu", [X], {"alpha": -0.7}, id="alpha-negative", oracle=lambda x: np.where(x > 0, x, -0.7 * np.expm1(x / -0.7))
        )
    ]
    cases += [
        Case("Selu", [X], {"alpha": a, "gamma": c}, id=f"alpha-{a}-gamma-{c}")
        for a, c in ((0.7, 1.3), (-0.5, 0.8), (0.5, -0.8))
    ]
    cases += [Case("Swish", [X], {"alpha": a}, id=f"alpha-{a}") for a in (1.7, -0.5, 0.0)]
    cases += [
        Case(
            "Gelu",
            [x],
            {"approximate": "tanh"},
            id=f"tanh-{id}",
            oracle=lambda x: gelu_tanh(x.astype(np.float64)),
            rtol=rtol,
        )
        for id, x, rtol in (
            ("float64", X, 1e-12),
            ("float32", X.astype(np.float32), 1e-5),
            ("float16", X.astype(np.float16), 3e-3),
        )
    ]
    cases.append(Case("Gelu", [X], {"approximate": "none"}, id="none", oracle=ONCE["Gelu"], rtol=1e-14))
    cases.append(Case("Gelu", [EXTREME], {"approximate": "tanh"}, id="tanh-extreme", order=0, oracle=gelu_tanh))
    return cases


def prelu() -> list[Case]:
    slopes = rng(32).uniform(0.1, 0.5, (3, 1, 1))
    cases = [
        Case("PRelu", [X, np.array(0.25)], id="scalar"),
        Case("PRelu", [X, np.array([0.25])], id="one"),
        Case("PRelu", [X, rng(33).standard_normal((3, 4))], id="full"),
        Case("PRelu", [IMAGE, slopes], id="per-channel"),
        Case("PRelu", [IMAGE, slopes], id="operand-only", wrt=[0]),
        Case("PRelu", [IMAGE.astype(np.float32), slopes.astype(np.float32)], id="float32"),
        Case("PRelu", [IMAGE.astype(np.float16), slopes.astype(np.float16)], id="float16", rtol=2e-3),
    ]
    cases += [
        Case("PRelu", [np.array([-3, 2, -1]).astype(t), np.array(2).astype(t)], id=t.name, order=0) for t in SIGNED[2:]
    ]
    cases += [
        Case("PRelu", [np.array([3, 2, 1], t), np.array(2, t)], id=np.dtype(t).name, order=0) for t in (np.uint32, np.uint64)
    ]
    return cases


def swiglu() -> list[Case]:
    gate, linear = X, rng(34).standard_normal(X.shape)

    def oracle(alpha: float = 1.0) -> Any:
        return lambda a, z: (a.astype(np.float64) * sigmoid(alpha * a.astype(np.float64)) * z).astype(a.dtype)

    cases = [Case("SwiGLU", [gate, linear], {"alpha": a}, id=f"alpha-{a}", oracle=oracle(a)) for a in (1.7, -0.5, 0.0)]
    cases += [
        Case("SwiGLU", [gate, linear], oracle=oracle()),
        Case("SwiGLU", [gate, linear], id="by-gate", wrt=[0], oracle=oracle()),
        Case("SwiGLU", [gate, linear], id="by-linear", wrt=[1], oracle=oracle()),
    ]
    for dtype, rtol in ((np.float32, 1e-5), (np.float16, 1e-3)):
        operands = [gate.astype(dtype), linear.astype(dtype)]
        cases.append(Case("SwiGLU", operands, id=np.dtype(dtype).name, oracle=oracle(), rtol=rtol))
    return cases


INTEGERS = [
    *(Case("Relu", [np.array([-3, 0, 5]).astype(t)], id=t.name, order=0) for t in SIGNED),
    *(Case("Shrink", [np.array([-3, 0, 5]).astype(t)], {"lambd": 1.5, "bias": 1.5}, id=t.name, order=0) for t in SIGNED),
    Case("Shrink", [np.array([3, 0, 5], np.uint8)], {"bias": 2.0}, id="uint8", order=0),
]

CASES = [*plain(), *parametric(), *prelu(), *swiglu(), *INTEGERS]
