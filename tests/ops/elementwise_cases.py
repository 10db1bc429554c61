"""Cases of irgrad/ops/elementwise.py."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from tests.ops.harness import Case, rng

BF16 = np.dtype(ml_dtypes.bfloat16)
INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
SIGNED = INTEGERS[:4]
FLOATS: list[tuple[np.dtype, float]] = [(np.dtype(np.float32), 1e-6), (np.dtype(np.float16), 2e-3), (BF16, 2e-2)]

A = rng(0).standard_normal((3, 4))
B = rng(1).standard_normal((3, 4))
ROW = rng(2).standard_normal((4,))
COLUMN = rng(3).standard_normal((3, 1))
CUBE = rng(4).standard_normal((2, 1, 4))
POSITIVE = rng(5).uniform(0.5, 2.0, (3, 4))
BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


def away_from_zero(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * (np.abs(x) + 0.3)


def binary() -> list[Case]:
    cases = []
    for op, function in BINARY.items():
        second = away_from_zero if op == "Div" else np.asarray
        cases += [
            Case(op, [A, second(B)]),
            Case(op, [A, second(ROW)], id="row"),
            Case(op, [ROW, second(A)], id="row-first"),
            Case(op, [COLUMN, second(CUBE)], id="both"),
            Case(op, [A, second(np.array(0.7))], id="scalar"),
            Case(op, [np.array(0.7), second(np.array(-1.3))], id="scalars"),
            Case(op, [A, second(np.array([[[1.5]]]))], id="one-element-of-higher-rank"),
            Case(op, [np.zeros((0, 4)), second(ROW)], id="of-nothing", order=0),
        ]
        cases += [
            Case(op, [A.astype(t), second(ROW).astype(t)], id=t.name, rtol=rtol, oracle=function) for t, rtol in FLOATS
        ]
        cases += [
            Case(op, [np.array([[7, 120, 3], [1, 0, 9]]).astype(t), np.array([2, 5, 7]).astype(t)], id=t.name, order=0)
            for t in INTEGERS
        ]
    return cases


def quotients(t: np.dtype) -> Case:
    x, y = np.array([7, -7, 7, -7, 6, -6, 0, -1]).astype(t), np.array([2, 2, -2, -2, 3, 3, -5, 5]).astype(t)
    return Case("Div", [x, y], id=f"{t.name}-negative", order=0, oracle=lambda x, y: np.trunc(x / y).astype(t))


LARGE = [np.array([2**62 + 1, -(2**62) - 1, 2**53 + 1]), np.array([3, 3, -1])]
DIV = [
    *(quotients(t) for t in SIGNED),
    Case(
        "Div",
        LARGE,
        id="beyond-float64",
        order=0,
        oracle=lambda x, y: [1537228672809129301, -1537228672809129301, -(2**53) - 1],
    ),
]


def unary() -> list[Case]:
    operands = {"Neg": A, "Abs": away_from_zero(A), "Reciprocal": away_from_zero(A), "Sqrt": POSITIVE}
    cases = []
    for op, x in operands.items():
        cases += [Case(op, [x]), Case(op, [x[0, 0]], id="scalar")]
        oracle: Any = getattr(np, {"Neg": "negative", "Abs": "abs", "Reciprocal": "reciprocal", "Sqrt": "sqrt"}[op])
        cases += [Case(op, [x.astype(t)], id=t.name, rtol=rtol, oracle=oracle) for t, rtol in FLOATS]
    cases += [Case("Neg", [np.array([3, -4, 0]).astype(t)], id=t.name, order=0) for t in SIGNED]
    cases += [Case("Abs", [np.array([3, -4, 0]).astype(t)], id=t.name, order=0) for t in SIGNED]
    return cases


# --- remainders -------------------------------------------------------------------------------------------------------

DIVIDENDS = np.array([5.3, -5.3, 5.3, -5.3, 0.4, -7.5])
DIVISORS = np.array([2.1, 2.1, -2.1, -2.1, 3.0, 0.7])


def remainders() -> list[Case]:
    cases = []
    for fmod, id in ((0, "floor"), (1, "fmod")):
        attrs = {"fmod": fmod}
        cases += [
            Case("Mod", [DIVIDENDS, DIVISORS], attrs, id=id),
            Case("Mod", [DIVIDENDS[:, None], np.array([2.3, -0.9])], attrs, id=f"{id}-broadcast"),
            Case("Mod", [DIVIDENDS.astype(np.float32), DIVISORS.astype(np.float32)], attrs, id=f"{id}-float32"),
            Case("Mod", [DIVIDENDS.astype(np.float16), DIVISORS.astype(np.float16)], attrs, id=f"{id}-float16"),
            # Whose quotient rounds up to 10, so that its floor is one too many.
            Case("Mod", [np.array([1.0]), np.array([0.1])], attrs, id=f"{id}-near-a-jump", order=0),
        ]
        cases += [
            Case(
                "Mod",
                [np.array([7, 9, 120, 0]).astype(t), np.array([4, 3, 7, 5]).astype(t)],
                attrs,
                id=f"{id}-{t.name}",
                order=0,
            )
            for t in INTEGERS
        ]
        cases += [
            Case(
                "Mod",
                [np.array([-7, 7, -7]).astype(t), np.array([4, -4, -4]).astype(t)],
                attrs,
                id=f"{id}-{t.name}-negative",
                order=0,
            )
            for t in SIGNED
        ]
    special = [np.array([-0.0, 0.0, -1.0, 1.0, 5.0, np.inf]), np.array([3.0, -3.0, np.inf, -np.inf, 0.0, 2.0])]
    cases.append(
        Case(
            "Mod", special, id="special", order=0, oracle=lambda x, y: np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.nan])
        )
    )
    return cases


# --- powers -----------------------------------------------------------------------------------------------------------


def powers() -> list[Case]:
    signed = away_from_zero(A)
    cases = [
        Case("Pow", [POSITIVE, B]),
        Case("Pow", [POSITIVE, ROW], id="row"),
        Case("Pow", [COLUMN**2 + 0.5, CUBE], id="both"),
        # Which has no derivative by the exponent.
        Case("Pow", [signed, np.round(2 * B)], id="negative-base", wrt=[0], order=1),
        Case(
            "Pow",
            [np.array([0.0, 0.0, 0.0, 1.5, -1.5]), np.array([2.0, 3.0, 1.0, 0.0, 0.0])],
            id="zero-base",
            wrt=[0],
            order=1,
        ),
        Case("Pow", [POSITIVE.astype(np.float32), B], id="float32-float64"),
        Case("Pow", [POSITIVE, B.astype(np.float32)], id="float64-float32"),
        Case("Pow", [POSITIVE.astype(np.float16), B.astype(np.float32)], id="float16-float32", rtol=2e-3),
        Case("Pow", [POSITIVE.astype(BF16), B.astype(np.float32)], id="bfloat16-float32", rtol=2e-2, order=0),
        Case("Pow", [signed, np.array([[3, -2, 0, 1]])], id="integer-exponents"),
        Case("Pow", [signed.astype(np.float32), np.array([[3, -2, 0, 1]], np.int32)], id="float32-int32"),
        Case("Pow", [signed, np.array([[3, 2, 0, 1]], np.uint8)], id="uint8-exponents"),
        Case("Pow", [signed, np.array([[[2]]])], id="exponent-of-higher-rank"),
        Case(
            "Pow",
            [signed.astype(BF16), np.array(3)],
            id="bfloat16-int64",
            rtol=2e-2,
            oracle=lambda x, y: x.astype(np.float32) ** 3,
        ),
    ]
    cases += [Case("Pow", [POSITIVE, np.array(e)], id=f"to-{e}") for e in (0.0, 0.5, 1.0, 2.0, 3.0, -1.0, -0.5, 2.5)]
    cases += [Case("Pow", [signed, np.array([e])], id=f"to-integer-{e}") for e in (-2, -1, 0, 1, 2, 3, 4)]
    integers = np.array([[2, -3, 1, -1, 0, 7]])
    for x, e in (
        (np.int64, np.int64),
        (np.int32, np.int64),
        (np.int32, np.uint8),
        (np.int64, np.uint64),
        (np.int64, np.float32),
    ):
        exponents = np.array([5, 3, 9, 7, 4, 0]).astype(e)
        cases.append(Case("Pow", [integers.astype(x), exponents], id=f"{np.dtype(x).name}-{np.dtype(e).name}", order=0))
    cases += [
        Case("Pow", [np.array([3, -3, 7]), np.array([39, 39, 20])], id="beyond-float64", order=0),
        Case(
            "Pow",
            [np.array([2, -2, 1, -1, -1]), np.array([-1, -3, -2, -2, -3])],
            id="negative-powers-of-integers",
            order=0,
            oracle=lambda x, e: np.array([0, 0, 1, 1, -1]),  # onnx.reference raises
        ),
    ]
    return cases


# --- any number of operands -------------------------------------------------------------------------------------------


def variadic() -> list[Case]:
    cases = []
    oracles: dict[str, Any] = {
        "Max": lambda *a: np.maximum.reduce(np.broadcast_arrays(*a)),
        "Min": lambda *a: np.minimum.reduce(np.broadcast_arrays(*a)),
        "Sum": lambda *a: np.add.reduce(np.broadcast_arrays(*a)),
        "Mean": lambda *a: np.add.reduce(np.broadcast_arrays(*a)) / len(a),
    }
    for op, oracle in oracles.items():
        cases += [
            Case(op, [A], id="one"),
            Case(op, [A, B], id="two"),
            Case(op, [A, ROW], id="two-broadcast"),
            Case(op, [A, np.array(0.1)], id="two-one-differentiated", wrt=[0]),
            Case(op, [A, B, rng(6).standard_normal((3, 4))], id="three"),
            # onnx.reference adds in place, which does not broadcast.
            Case(op, [ROW, COLUMN, CUBE, np.array(0.1)], id="four-broadcast", oracle=oracle),
            Case(op, [A.astype(np.float32), B.astype(np.float32), ROW.astype(np.float32)], id="float32"),
        ]
        for t, rtol in FLOATS[1:]:
            cases += [
                Case(op, [x.astype(t) for x in operands], id=f"{t.name}-{len(operands)}", rtol=rtol, oracle=oracle)
                for operands in ([A], [A, B], [A, B, ROW])
            ]
    for op in ("Max", "Min"):
        cases += [
            Case(
                op, [np.array([3, 5, 1]).astype(t), np.array([4, 2, 1]).astype(t), np.array(3).astype(t)], id=t.name, order=0
            )
            for t in INTEGERS
        ]
        cases.append(Case(op, [np.array([np.nan, 1.0]), np.array([0.0, np.nan])], id="nan", order=0))
    return cases


# --- choices ----------------------------------------------------------------------------------------------------------

FLAGS = np.array([[True, False, False, True], [False, True, True, False], [True, True, False, False]])
ANY = [np.float32, np.float16, BF16, np.uint8, np.int16, np.uint32, np.int64, np.bool_]


def choices() -> list[Case]:
    cases = [
        Case("Where", [FLAGS, A, B]),
        Case("Where", [FLAGS[:, :1], A, ROW], id="broadcast"),
        Case("Where", [FLAGS, np.array(1.5), np.array(-0.5)], id="scalars"),
        Case("Where", [FLAGS, A, np.array(0.0)], id="or-zero"),
        Case("Where", [FLAGS, np.array(0.0), A], id="zero-or"),
        Case("Where", [FLAGS, np.array(-0.0), A], id="negative-zero-or"),
        Case("Where", [np.array(True), A, CUBE], id="one-condition"),
        Case(
            "Where",
            [FLAGS[0], np.array([np.inf, np.nan, 1, -np.inf]), np.array([0.0, -np.inf, np.nan, 1])],
            id="special",
            order=0,
        ),
        Case("Where", [FLAGS[0], np.array(["1", "2", "3", "4"], object), np.array(["5"], object)], id="text", order=0),
        Case("Where", [FLAGS[:0], A[:0], B[:0]], id="of-nothing", order=0),
    ]
    for t in ANY:
        x, y = np.array([3, 0, 1, 0]).astype(t), np.array([1, 1, 0, 0]).astype(t)
        cases.append(Case("Where", [FLAGS, x, y], id=np.dtype(t).name, order=0, oracle=np.where))
    return cases


SPREAD = np.array([[-3.0, -1.2, -0.4, 0.1], [0.7, 1.3, 2.2, 4.0]])


def bounds() -> list[Case]:
    low, high = np.array(-1.0), np.array(1.0)
    cases = [
        Case("Clip", [SPREAD], id="unbounded"),
        Case("Clip", [SPREAD, low], id="min"),
        Case("Clip", [SPREAD, None, high], id="max"),
        Case("Clip", [SPREAD, low, high], id="both"),
        Case("Clip", [SPREAD, low, high], id="operand-only", wrt=[0]),
        Case("Clip", [SPREAD, high, low], id="min-above-max"),
        Case("Clip", [SPREAD[0, 1], low, high], id="scalar"),
        Case("Clip", [SPREAD, low.reshape(1), high.reshape(1)], id="vector-bounds", oracle=np.clip),
        Case("Clip", [np.array([np.nan, np.inf, -np.inf]), low, high], id="special", order=0),
    ]
    for t, _ in FLOATS:
        cases.append(
            Case(
                "Clip",
                [SPREAD.astype(t), low.astype(t), high.astype(t)],
                id=t.name,
                oracle=lambda x, a, b: np.minimum(np.maximum(x, a), b),
            )
        )
    cases += [
        Case("Clip", [np.array([1, 4, 9]).astype(t), np.array(3).astype(t), np.array(7).astype(t)], id=t.name, order=0)
        for t in INTEGERS
    ]
    return cases


CASES = [*binary(), *DIV, *unary(), *remainders(), *powers(), *variadic(), *choices(), *bounds()]
