"""Cases of irgrad/ops/cumulative.py."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, rng

X = rng(50).uniform(0.5, 1.5, (2, 3, 4)) * np.where(rng(51).random((2, 3, 4)) < 0.5, -1, 1)
ZEROS = np.array([[0.0, 1.5, -2.0, 0.7], [1.2, 0.0, 0.0, 0.7], [1.1, 2.0, 0.3, 0.0]])

MODES = {
    "inclusive": {},
    "exclusive": {"exclusive": 1},
    "reverse": {"reverse": 1},
    "exclusive-reverse": {"exclusive": 1, "reverse": 1},
}


def recurrence(u: np.ndarray, a: np.ndarray) -> np.ndarray:
    s = np.zeros_like(u)
    for k in range(1, len(u)):
        s[k] = u[k - 1] + a[k - 1] * s[k - 1]
    return s


def reversed_recurrence(u: np.ndarray, a: np.ndarray) -> np.ndarray:
    return recurrence(u.T[::-1], a.T[::-1])[::-1].T


U = rng(52).standard_normal((5, 2))
A = rng(53).standard_normal((5, 2))

CASES = [
    *(
        Case(op, [X, np.array(axis)], attrs, id=f"{id}-{axis}")
        for op in ("CumSum", "CumProd")
        for id, attrs in MODES.items()
        for axis in (1, -1)
    ),
    *(Case("CumProd", [ZEROS, np.array(1)], attrs, id=f"zeros-{id}") for id, attrs in MODES.items()),
    Case("CumProd", [ZEROS[1], np.array(0)], id="vector"),
    Case("CumSum", [X.astype(np.float32), np.array(2)], id="f32"),
    Case("CumProd", [X.astype(np.float32), np.array(2, np.int32)], id="f32"),
    Case("CumProd", [X, np.array(0)], {"reverse": 1}, id="first-axis"),
    *(Case(op, [np.array([[3, -7, 2]]), np.array(1)], {"exclusive": 1}, id="i64", order=0) for op in ("CumSum", "CumProd")),
    *(Case(op, [np.zeros((0, 2)), np.array(0)], {"exclusive": 1}, id="of-nothing", order=0) for op in ("CumSum", "CumProd")),
    Case(
        "CumSum",
        [np.full(3000, 1, np.float16), np.array(0)],
        id="f16",
        order=0,
        oracle=lambda x, axis: np.arange(1, 3001).astype(np.float16),
    ),
    Case("irgrad.LinearRecurrence", [U, A], oracle=recurrence),
    Case("irgrad.LinearRecurrence", [U.T, A.T], {"axis": 1, "reverse": 1}, id="reverse", oracle=reversed_recurrence),
    Case("irgrad.LinearRecurrence", [U[:1], A[:1]], id="one-step", oracle=recurrence),
]
