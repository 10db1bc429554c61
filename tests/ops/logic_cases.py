"""Cases of irgrad/ops/logic.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.cast_cases import FLOAT8, dtype
from tests.ops.elementwise_cases import BF16, FLOATS, INTEGERS
from tests.ops.harness import Case

COMPARISONS: dict[str, Any] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
NUMBERS = [*INTEGERS, *(t for t, _ in FLOATS), np.dtype(np.float64)]
T, F = True, False


def comparisons() -> list[Case]:
    cases = []
    for op, oracle in COMPARISONS.items():
        for t in NUMBERS:
            x, y = np.array([[1, 5, 3], [2, 2, 9]]).astype(t), np.array([2, 5, 1]).astype(t)
            cases.append(Case(op, [x, y], id=t.name, order=0, oracle=oracle))
        cases.append(Case(op, [np.array([np.nan, 1.0, np.inf]), np.array([np.nan, np.nan, np.inf])], id="special", order=0))
    large = [np.array([2**53, 2**63], np.uint64), np.array([2**53 + 1, 2**63], np.uint64)]
    words = [np.array([["a", "b"], ["ab", ""]], object), np.array(["a", ""], object)]
    cases += [
        Case("Equal", [np.array([T, F, T]), np.array([T])], id="bool", order=0),
        Case("Equal", large, id="beyond-float64", order=0),
        Case("Equal", words, id="text", order=0, oracle=lambda x, y: np.array([[T, F], [F, T]])),
    ]
    return cases


def logic() -> list[Case]:
    x, y = np.array([[T, T], [F, F]]), np.array([T, F])
    cases = [Case(op, [x, y], order=0) for op in ("And", "Or", "Xor")]
    cases += [Case(op, [x[0], np.array(T)], id="scalar", order=0) for op in ("And", "Or", "Xor")]
    return [*cases, Case("Not", [x], order=0)]


def bits() -> list[Case]:
    cases = []
    for t in INTEGERS:
        x, y = np.array([[0b1100, 0b0111], [0, 0b1010]]).astype(t), np.array([0b1010, 0b0110]).astype(t)
        cases += [Case(op, [x, y], id=t.name, order=0) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")]
        cases.append(Case("BitwiseNot", [x], id=t.name, order=0))
        width = 8 * t.itemsize
        shifts = np.array([0, 1, 3, width - 1, width, 100]).astype(t)
        for direction in ("LEFT", "RIGHT"):
            attrs = {"direction": direction}
            cases.append(
                Case("BitShift", [np.array([[5], [0x75]]).astype(t), shifts], attrs, id=f"{direction}-{t.name}", order=0)
            )
            if t.kind == "i":
                minus = np.array([[-5], [-1], [np.iinfo(t).min]]).astype(t)
                negative = np.append(shifts, np.array(-1, t))
                cases.append(Case("BitShift", [minus, negative], attrs, id=f"{direction}-{t.name}-negative", order=0))
    return cases


SPECIAL = np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 1.5]])


def special() -> list[Case]:
    cases = []
    for t in (np.float64, np.float32, np.float16, BF16, *map(dtype, FLOAT8)):
        x = SPECIAL.astype(t)
        name = np.dtype(t).name
        wide = x.astype(np.float32)
        cases.append(Case("IsNaN", [x], id=name, order=0, oracle=lambda x, wide=wide: np.isnan(wide)))
        cases.append(Case("IsInf", [x], id=name, order=0, oracle=lambda x, wide=wide: np.isinf(wide)))
        for negative, positive in ((0, 1), (1, 0), (0, 0)):
            attrs = {"detect_negative": negative, "detect_positive": positive}
            found = (np.isposinf(wide) & bool(positive)) | (np.isneginf(wide) & bool(negative))
            cases.append(
                Case("IsInf", [x], attrs, id=f"{name}-{negative}-{positive}", order=0, oracle=lambda x, found=found: found)
            )
    return cases


HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4, -2.6])


def rounding() -> list[Case]:
    oracles: dict[str, Any] = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Sign": np.sign}
    cases = []
    for op, oracle in oracles.items():
        cases += [Case(op, [HALVES], order=0), Case(op, [np.array(-0.5)], id="scalar", order=0)]
        cases += [
            Case(op, [HALVES.astype(t)], id=t.name, order=0, oracle=lambda x, f=oracle: f(x.astype(np.float64)))
            for t, _ in FLOATS
        ]
        cases.append(Case(op, [SPECIAL], id="special", order=0))
    cases += [Case("Sign", [np.array([3, 0, 5]).astype(t)], id=t.name, order=0) for t in INTEGERS]
    cases += [Case("Sign", [np.array([-3, 0, 5]).astype(t)], id=f"{t.name}-negative", order=0) for t in INTEGERS[:4]]
    return cases


CASES = [*comparisons(), *logic(), *bits(), *special(), *rounding()]
