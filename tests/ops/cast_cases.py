"""Cases of irgrad/ops/cast.py."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from tests.ops.harness import Case, rng

X = rng(20).standard_normal((3, 4))
NUMERIC = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
]
FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


def dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def elem(name: str) -> int:
    return int(TensorProto.STRING if name == "text" else helper.np_dtype_to_tensor_dtype(dtype(name)))


def numeric() -> list[Case]:
    """From each numeric dtype into each other; 0 and 1 are in all of them."""
    return [
        Case(
            "Cast",
            [np.array([0, 1, 1, 0]).astype(dtype(source))],
            {"to": elem(target)},
            id=f"{source}-{target}",
            order=0,
            dynamic=False,
            oracle=lambda x: np.array([0.0, 1.0, 1.0, 0.0]),
        )
        for source in NUMERIC
        for target in NUMERIC
    ]


HUGE = np.array([0.3, -1.7, 1e9, -1e9, np.inf, -np.inf, np.nan], np.float32)


def float8() -> list[Case]:
    cases = []
    for target in FLOAT8:
        largest = float(ml_dtypes.finfo(dtype(target)).max)
        saturated = np.clip(HUGE, -largest, largest).astype(dtype(target))
        overflowed = HUGE.astype(dtype(target))
        for saturate, expected in ((1, saturated), (0, overflowed)):
            cases.append(
                Case(
                    "Cast",
                    [HUGE],
                    {"to": elem(target), "saturate": saturate},
                    id=f"{target}-saturate-{saturate}",
                    order=0,
                    dynamic=False,
                    oracle=lambda x, expected=expected: expected,
                )
            )
    powers: list[tuple[str, int, list[float]]] = [
        ("up", 1, [1.0, 2.0, 4.0, 0.5]),
        ("down", 1, [1.0, 1.0, 2.0, 0.5]),
        ("nearest", 0, [1.0, 2.0, 4.0, 0.5]),
    ]
    cases += [
        Case(
            "Cast",
            [np.array([1.0, 1.6, 3.2, 0.5], np.float32)],
            {"to": elem("float8_e8m0fnu"), "round_mode": mode, "saturate": saturate},
            id=f"e8m0-{mode}",
            order=0,
            oracle=lambda x, expected=expected: np.array(expected),
        )
        for mode, saturate, expected in powers
    ]
    return cases


def converted(*expected: Any) -> Any:
    return lambda *operands: np.array(expected)


def like(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return x.astype(target.dtype)


INTEGERS = np.array([300, -7, 2**40 + 5, 128])
OTHER = [
    Case("Cast", [INTEGERS], {"to": elem("int8")}, id="wraps-int8", order=0, oracle=converted(44, -7, 5, -128)),
    Case("Cast", [INTEGERS], {"to": elem("uint8")}, id="wraps-uint8", order=0, oracle=converted(44, 249, 5, 128)),
    Case("Cast", [INTEGERS], {"to": elem("int4")}, id="wraps-int4", order=0, oracle=converted(-4, -7, 5, 0)),
    Case(
        "Cast",
        [np.array([-1, 5], ml_dtypes.int4)],
        {"to": elem("uint4")},
        id="wraps-uint4",
        order=0,
        oracle=converted(15, 5),
    ),
    Case("Cast", [np.array([1.9, -1.9, 0.0])], {"to": elem("int32")}, id="truncates", order=0),
    Case("Cast", [np.array([0.3, -0.0, np.nan])], {"to": elem("bool")}, id="truth", order=0),
    Case("Cast", [np.array([1e6, -1e6, 1.0])], {"to": elem("float16")}, id="overflows", order=0),
    Case("Cast", [X], {"to": elem("float32")}, id="float64-float32-differentiated"),
    Case("Cast", [X.astype(np.float32)], {"to": elem("float64")}, id="float32-float64-differentiated"),
    Case("Cast", [X.astype(np.float16)], {"to": elem("float32")}, id="float16-float32-differentiated"),
    Case("Cast", [X], {"to": elem("float64")}, id="no-change"),
    # onnx.reference has no CastLike of this version.
    Case("CastLike", [X.astype(np.float32), np.zeros(2)], id="up", wrt=[0], oracle=like),
    Case("CastLike", [X, np.zeros(2, np.float16)], id="down", wrt=[0], oracle=like),
    Case("CastLike", [X, np.zeros(2, np.int32)], id="int32", order=0, oracle=like),
    Case("CastLike", [X, np.array(["1"], object)], id="text", order=0, oracle=lambda x, y: x),
    Case(
        "CastLike",
        [HUGE, np.zeros(1, dtype("float8_e4m3fn"))],
        {"saturate": 0},
        id="float8",
        order=0,
        dynamic=False,
        oracle=like,
    ),
]

TEXT = np.array(["1.5", "-2", "1e3", "INF", "-inf", "NaN"], object)
WHOLE = np.array(["12", "-3", "9007199254740993", "2.7"], object)
STRINGS = [
    *(
        Case(
            "Cast",
            [TEXT],
            {"to": elem(t)},
            id=f"text-{t}",
            order=0,
            dynamic=False,  # NaN of bfloat16 does not compare as equal to itself
            oracle=converted(1.5, -2, 1000, np.inf, -np.inf, np.nan),
        )
        for t in ("float16", "bfloat16", "float32", "float64")
    ),
    Case("Cast", [WHOLE], {"to": elem("int64")}, id="text-int64", order=0, oracle=converted(12, -3, 2**53 + 1, 2)),
    Case("Cast", [WHOLE[:2]], {"to": elem("uint8")}, id="text-uint8", order=0, oracle=converted(12, 253)),
    Case("Cast", [WHOLE[[0]]], {"to": elem("uint64")}, id="text-uint64", order=0, oracle=converted(12)),
    Case(
        "Cast",
        [np.array(["0", "1", "0.5"], object)],
        {"to": elem("bool")},
        id="text-bool",
        order=0,
        oracle=converted(0, 1, 1),
    ),
    Case("Cast", [np.array("1.5", object)], {"to": elem("float32")}, id="text-scalar", order=0),
    Case("Cast", [np.array([0.5, 314.15926, np.inf], np.float32)], {"to": elem("text")}, id="float32-text", order=0),
    Case("Cast", [np.array([-3, 2**53 + 1])], {"to": elem("text")}, id="int64-text", order=0),
    Case(
        "Cast",
        [np.array([0.5, 2.0]).astype(dtype("bfloat16"))],
        {"to": elem("text")},
        id="bfloat16-text",
        order=0,
        oracle=converted(0.5, 2.0),
    ),
    Case(
        "Cast",
        [np.array([-3, 2]).astype(dtype("int4"))],
        {"to": elem("text")},
        id="int4-text",
        order=0,
        oracle=converted(-3, 2),
    ),
]

BITS = [
    Case("BitCast", [X.astype(np.float32)], {"to": elem("int32")}, id="float32-int32", order=0),
    Case("BitCast", [np.array([1, 2**30], np.int32)], {"to": elem("float32")}, id="int32-float32", order=0),
    Case("BitCast", [np.array(3, np.uint8)], {"to": elem("int8")}, id="scalar", order=0),
    Case("BitCast", [X], {"to": elem("float64")}, id="no-change"),
]

SAME = [
    Case("Identity", [X]),
    Case("Identity", [np.array(2.0, np.float32)], id="scalar"),
    Case("Identity", [np.array([1, 2])], id="int64", order=0),
    Case("Identity", [np.array(["1", "2"], object)], id="text", order=0),
    Case("irgrad.StopGradient", [X], order=0, oracle=lambda x: x),
]

CASES = [*numeric(), *float8(), *OTHER, *STRINGS, *BITS, *SAME]
