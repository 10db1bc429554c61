"""Cases of irgrad/ops/reduce.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X = rng(50).standard_normal((2, 3, 4))
POSITIVE = rng(51).uniform(0.5, 2.0, (2, 3, 4))
NONE = np.zeros(0, np.int64)

SMOOTH = ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
KINKED = ("ReduceMax", "ReduceMin", "ReduceL1")

# Of float16 operands, accumulated in more precision than onnx.reference does; a unit in the last place is 1e-3.
HALF: dict[str, Callable[..., Any]] = {
    name: lambda x, axes, f=f: f(x.astype(np.float64)).astype(np.float16)
    for name, f in {
        "ReduceSum": lambda x: x.sum(2, keepdims=True),
        "ReduceMean": lambda x: x.mean(2, keepdims=True),
        "ReduceProd": lambda x: x.prod(2, keepdims=True),
        "ReduceMax": lambda x: x.max(2, keepdims=True),
        "ReduceMin": lambda x: x.min(2, keepdims=True),
        "ReduceL1": lambda x: np.abs(x).sum(2, keepdims=True),
        "ReduceL2": lambda x: np.sqrt((x * x).sum(2, keepdims=True)),
        "ReduceLogSum": lambda x: np.log(x.sum(2, keepdims=True)),
        "ReduceLogSumExp": lambda x: np.log(np.exp(x).sum(2, keepdims=True)),
        "ReduceSumSquare": lambda x: (x * x).sum(2, keepdims=True),
    }.items()
}

AXES: dict[str, tuple[Any, dict[str, int]]] = {
    "all": (None, {}),
    "all-dropped": (None, {"keepdims": 0}),
    "one": (np.array([1]), {}),
    "one-dropped": (np.array([1]), {"keepdims": 0}),
    "leading-dropped": (np.array([0, 1]), {"keepdims": 0}),
    "negative-dropped": (np.array([-1, 0]), {"keepdims": 0}),
    "every-axis-named": (np.array([2, 0, 1]), {}),
    "empty": (NONE, {}),
    "empty-dropped": (NONE, {"keepdims": 0}),
    "empty-noop": (NONE, {"noop_with_empty_axes": 1}),
    "empty-noop-dropped": (NONE, {"noop_with_empty_axes": 1, "keepdims": 0}),
    "absent-noop": (None, {"noop_with_empty_axes": 1}),
    "one-noop": (np.array([-2]), {"noop_with_empty_axes": 1}),
}


def reductions() -> list[Case]:
    cases = []
    for op in (*SMOOTH, *KINKED):
        x = POSITIVE if op == "ReduceLogSum" else X
        for id, (axes, attrs) in AXES.items():
            cases.append(Case(op, [x, axes], attrs, id=id, order=2 if op in SMOOTH else 1))
        cases.append(Case(op, [x.astype(np.float32), np.array([2])], id="f32", order=2 if op in SMOOTH else 1))
        half = POSITIVE.astype(np.float16)
        cases.append(Case(op, [half, np.array([2])], id="f16", order=0, oracle=HALF[op], rtol=1e-3))
    return cases


def integers() -> list[Case]:
    x = np.array([[3, -7, 2], [-1, 4, 6]])
    cases = [
        Case(op, [x.astype(dtype), np.array([1])], id=np.dtype(dtype).name, order=0)
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")
        for dtype in (np.int32, np.int64)
    ]
    flags = np.array([[True, False], [False, False]])
    cases += [Case(op, [flags, np.array([1])], id="bool", order=0) for op in ("ReduceMax", "ReduceMin")]
    return cases


ZEROS = np.array([[0.0, 1.5, -2.0], [0.0, 0.7, 0.0], [1.1, 2.0, 0.3]])

SPECIAL = [
    Case("ReduceProd", [ZEROS, np.array([1])], id="zeros"),
    Case("ReduceProd", [ZEROS[::2], None], {"keepdims": 0}, id="zero-all"),
    Case("ReduceProd", [np.stack([ZEROS, ZEROS + 1]), np.array([0, 2])], id="zeros-two-axes"),
    Case("ReduceProd", [np.array([0.0, 3.0, -2.0]), np.array([-1])], {"keepdims": 0}, id="vector"),
    Case("ReduceLogSumExp", [np.array([[1000.0, 1001.0], [-1000.0, -999.0]]), np.array([1])], id="large"),
    Case(
        "ReduceLogSumExp",
        [np.array([[-np.inf, -np.inf], [np.inf, 0.0]]), np.array([1])],
        id="infinite",
        order=0,
        oracle=lambda x, axes: np.array([[-np.inf], [np.inf]]),
    ),
    Case("ReduceMean", [np.ones((2, 1, 3)), np.array([1])], id="of-one-element"),
    *(
        Case(op, [np.zeros((0, 3)), np.array([0])], id="of-nothing", order=0)
        for op in ("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp")
    ),
    Case("ReduceSum", [np.array(3.0)], id="scalar"),
]

ARG = [
    Case(op, [np.array([[1.0, 5.0, 5.0], [2.0, -1.0, -1.0]])], attrs, id=id, order=0)
    for op in ("ArgMax", "ArgMin")
    for id, attrs in {
        "first-axis": {},
        "last-axis": {"axis": -1},
        "dropped": {"axis": 1, "keepdims": 0},
        "last-index": {"axis": 1, "select_last_index": 1},
        "last-index-dropped": {"axis": 1, "select_last_index": 1, "keepdims": 0},
    }.items()
]

CASES = [*reductions(), *integers(), *SPECIAL, *ARG]
