"""Cases of irgrad/ops/transcendental.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.ops.elementwise_cases import FLOATS
from tests.ops.harness import Case, rng

ANYWHERE = rng(10).uniform(-2.0, 2.0, (3, 4))
INSIDE = rng(11).uniform(-0.9, 0.9, (3, 4))
ABOVE = rng(12).uniform(1.1, 3.0, (3, 4))

erf: Any = np.vectorize(math.erf, otypes=[np.float64])  # onnx.reference rounds it to float32

FUNCTIONS: dict[str, tuple[np.ndarray, Any]] = {
    "Exp": (ANYWHERE, np.exp),
    "Log": (ABOVE - 1, np.log),
    "Sin": (ANYWHERE, np.sin),
    "Cos": (ANYWHERE, np.cos),
    "Tan": (INSIDE, np.tan),
    "Asin": (INSIDE, np.arcsin),
    "Acos": (INSIDE, np.arccos),
    "Atan": (ANYWHERE, np.arctan),
    "Sinh": (ANYWHERE, np.sinh),
    "Cosh": (ANYWHERE, np.cosh),
    "Tanh": (ANYWHERE, np.tanh),
    "Asinh": (ANYWHERE, np.arcsinh),
    "Acosh": (ABOVE, np.arccosh),
    "Atanh": (INSIDE, np.arctanh),
    "Erf": (ANYWHERE, erf),
}


def functions() -> list[Case]:
    cases = []
    for op, (x, oracle) in FUNCTIONS.items():
        cases += [Case(op, [x], oracle=oracle, rtol=1e-14), Case(op, [x[0, 0]], id="scalar", oracle=oracle)]
        cases += [
            Case(op, [x.astype(t)], id=t.name, rtol=rtol, oracle=lambda x, f=oracle: f(x.astype(np.float64)))
            for t, rtol in FLOATS
        ]
    return cases


CASES = [
    *functions(),
    Case("Asin", [np.array([0.99, -0.99])], id="near-1"),
    Case("Acos", [np.array([0.99, -0.99])], id="near-1"),
    Case("Acosh", [np.array([1.01, 100.0])], id="near-1-and-large"),
    Case("Asinh", [np.array([-100.0, 1e-3, 100.0])], id="large"),
    Case("Atanh", [np.array([0.99, -0.99])], id="near-1"),
    Case("Exp", [np.array([-np.inf, 1000.0, np.inf, np.nan])], id="special", order=0),
    Case("Log", [np.array([0.0, -1.0, np.inf, np.nan])], id="special", order=0),
    Case("Erf", [np.array([-np.inf, -7.0, 0.0, 7.0, np.inf, np.nan])], id="special", order=0),
    Case("Erf", [np.array([-5.0, -0.46875, 0.46875, 0.47, 3.0])], id="pieces", oracle=erf, rtol=1e-14),
]
