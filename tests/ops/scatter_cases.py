"""Cases of irgrad/ops/scatter.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ops.harness import Case, rng

DATA = rng(0).standard_normal((3, 4))
ZEROS = np.array([[0.0, 1.5, -2.0, 0.5], [1.1, 0.0, 0.0, 2.0], [0.3, 1.0, 0.0, -1.0]])
ONCE = np.array([[2, 0, 1], [0, -1, 1]])  # along axis 0 and along axis 1, no place twice
TWICE = np.array([[2, 0, 2], [-1, 0, 0]])
UPDATES = rng(1).standard_normal((2, 3)) + 0.1
SOME_ZERO = np.array([[0.0, 2.0, 0.0], [0.5, 0.0, -1.5]])

POINTS_ONCE = np.array([[0, 1], [2, -1], [-2, 0]])
POINTS_TWICE = np.array([[0, 1], [2, 3], [0, 1], [-1, -1], [1, 0]])
ROWS_ONCE = np.array([[2], [0]])
ROWS_TWICE = np.array([[[2], [0]], [[-1], [2]]])

COMBINE: dict[str, Callable[[float, float], float]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": min,
    "max": max,
}

CACHE = rng(5).standard_normal((2, 3, 4, 2))


def elements(axis: int, reduction: str) -> Callable[..., np.ndarray]:
    def oracle(data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        result = data.copy()
        for place in np.ndindex(indices.shape):
            target = (*place[:axis], indices[place], *place[axis + 1 :])
            result[target] = COMBINE[reduction](result[target], updates[place])
        return result

    return oracle


def tuples(reduction: str) -> Callable[..., np.ndarray]:
    def oracle(data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        result = data.copy()
        for place in np.ndindex(indices.shape[:-1]):
            target, source = result[tuple(indices[place])], updates[place]
            new = [COMBINE[reduction](*pair) for pair in zip(target.reshape(-1), source.reshape(-1), strict=True)]
            result[tuple(indices[place])] = np.array(new).reshape(target.shape)
        return result

    return oracle


def order(reduction: str) -> int:
    return 1 if reduction in ("min", "max") else 2


def updates_of(indices: np.ndarray, seed: int) -> np.ndarray:
    """Updates for a ScatterND into DATA."""
    return rng(seed).standard_normal((*indices.shape[:-1], *DATA.shape[indices.shape[-1] :])) + 0.05


CASES = [
    *(
        Case(
            "ScatterElements",
            [DATA, indices, UPDATES],
            {"axis": axis, "reduction": reduction},
            id=f"{reduction}-{id}-axis-{axis}",
            order=order(reduction),
            oracle=elements(axis % 2, reduction),
        )
        for reduction in COMBINE
        for id, indices in (("once", ONCE), ("twice", TWICE))
        for axis in (0, 1, -1)
    ),
    Case("ScatterElements", [DATA, ONCE, UPDATES], id="defaults"),
    Case("ScatterElements", [DATA, TWICE, UPDATES], id="data-only", wrt=[0], oracle=elements(0, "none")),
    Case("ScatterElements", [ZEROS, TWICE, SOME_ZERO], {"reduction": "mul"}, id="zeros", oracle=elements(0, "mul")),
    Case(
        "ScatterElements",
        [np.array([1.0, 2.0, 3.0, 0.5]), np.array([1, 1, 1, 0, 1]), np.array([2.0, 2.0, 1.0, 0.5, 2.0])],
        {"reduction": "max"},
        id="tie",
        order=0,
    ),
    Case("ScatterElements", [DATA, ONCE[:0], UPDATES[:0]], id="no-updates"),
    Case("ScatterElements", [DATA.astype(np.float32), TWICE, UPDATES.astype(np.float32)], {"reduction": "add"}, id="f32"),
    Case(
        "ScatterElements",
        [np.zeros(1, np.float16), np.zeros(3000, np.int64), np.ones(3000, np.float16)],
        {"reduction": "add"},
        id="f16",
        order=0,
        oracle=lambda data, indices, updates: np.array([3000], np.float16),
    ),
    Case(
        "ScatterElements", [np.array([1, 2, 3]), np.array([0, 0]), np.array([5, 7])], {"reduction": "add"}, id="i64", order=0
    ),
    Case("ScatterElements", [np.array([True, False]), np.array([1]), np.array([True])], id="bool", order=0),
    *(
        Case(
            "ScatterND",
            [DATA, indices, updates_of(indices, 2)],
            {"reduction": reduction},
            id=f"{reduction}-{id}",
            order=order(reduction),
            oracle=tuples(reduction),
        )
        for reduction in COMBINE
        for id, indices in (
            ("points-once", POINTS_ONCE),
            ("points-twice", POINTS_TWICE),
            ("rows-once", ROWS_ONCE),
            ("rows-twice", ROWS_TWICE),
        )
    ),
    Case("ScatterND", [DATA, POINTS_ONCE, updates_of(POINTS_ONCE, 3)], id="defaults"),
    Case(
        "ScatterND",
        [DATA.astype(np.float32), ROWS_TWICE, updates_of(ROWS_TWICE, 4).astype(np.float32)],
        {"reduction": "add"},
        id="f32",
    ),
    Case("ScatterND", [np.array([1, 2, 3]), np.array([[2]]), np.array([7])], id="i64", order=0),
    *(
        Case("TensorScatter", [CACHE, CACHE[:, :, :2] + 1, starts], {"mode": mode}, id=f"{mode}-{id}")
        for id, mode, starts in (
            ("start", "linear", None),
            ("somewhere", "linear", np.array([2, 0])),
            ("start", "circular", None),
            ("somewhere", "circular", np.array([3, 1])),
        )
    ),
    Case("TensorScatter", [CACHE, CACHE[:, 1:] + 1, np.array([1, 0])], {"axis": 1}, id="first-axis"),
    Case("TensorScatter", [CACHE, CACHE[..., :1] + 1, np.array([1, 0])], {"axis": -1}, id="last-axis"),
    Case("TensorScatter", [CACHE, CACHE + 1, np.array([2, 3])], {"mode": "circular"}, id="all-of-the-cache"),
    Case("TensorScatter", [CACHE[:, 0], CACHE[:, 0, :1] + 1, np.array([1, 3])], id="update-only", wrt=[1]),
    Case("TensorScatter", [CACHE[:, 0, :, 0], CACHE[:, 0, :2, 0] + 1], {"axis": 1}, id="matrix"),
    Case("TensorScatter", [CACHE.astype(np.float32), CACHE[:, :, :1].astype(np.float32) + 1], id="f32"),
]
