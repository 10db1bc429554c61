"""Cases of irgrad/ops/index.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((3, 4, 2))
PICKED = np.array([[2, -1, 0], [2, 2, -3]])


def gather_grad(axis: int) -> Callable[..., np.ndarray]:
    def oracle(dy: np.ndarray, indices: np.ndarray, shape: np.ndarray) -> np.ndarray:
        dx = np.zeros(shape, dy.dtype)
        for place in np.ndindex(indices.shape):
            before = (slice(None),) * axis
            dx[(*before, indices[place])] += dy[(*before, *place)]
        return dx

    return oracle


def elements_of_axis_1(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    # onnx.reference wants as many lines of indices as there are of data.
    y = np.empty(indices.shape, x.dtype)
    for i, j, k in np.ndindex(indices.shape):
        y[i, j, k] = x[i, indices[i, j, k], k]
    return y


CASES = [
    Case("Gather", [X, PICKED], id="first-axis"),
    Case("Gather", [X, np.array([3, 0, -4, 0])], {"axis": 1}, id="middle-axis"),
    Case("Gather", [X, np.array(1)], {"axis": -1}, id="one-of-the-last-axis"),
    Case("Gather", [X, np.array([0, 2], np.int32)], id="each-once"),
    Case("Gather", [X.astype(np.float32), PICKED], id="f32"),
    Case("Gather", [X, np.zeros((0,), np.int64)], {"axis": 1}, id="nothing"),
    Case("Gather", [np.array([True, False, True]), np.array([1, 0])], id="bool", order=0),
    *(
        Case(
            "irgrad.GatherGrad",
            [rng(1).standard_normal((*X.shape[:axis], 2, 3, *X.shape[axis + 1 :])), PICKED, np.array(X.shape)],
            {"axis": axis},
            id=f"axis-{axis}",
            oracle=gather_grad(axis),
        )
        for axis in (0, 1)
    ),
    *(
        Case(
            "irgrad.GatherGrad",
            [
                rng(1).standard_normal((*X.shape[:axis], 2, *X.shape[axis + 1 :])),
                np.array([2, -1], np.int32),
                np.array(X.shape),
            ],
            {"axis": axis},
            id=f"i32-axis-{axis}",
            oracle=gather_grad(axis),
        )
        for axis in (0, 1)
    ),
    Case(
        "irgrad.GatherGrad",
        [rng(1).standard_normal((3, 4)), np.array(1), np.array(X.shape)],
        {"axis": -1},
        id="axis-negative",
        oracle=gather_grad(2),
    ),
    Case(
        "irgrad.GatherGrad",
        [np.ones((3000, 1), np.float16), np.zeros(3000, np.int64), np.array([1, 1])],
        id="f16",
        order=0,
        oracle=lambda dy, indices, shape: np.array([[3000]], np.float16),
    ),
    Case("GatherElements", [X[0], np.array([[1, -2], [3, 3], [0, 0]])], id="first-axis"),
    Case(
        "GatherElements",
        [X, np.array([[[1, 0, -1]] * 4, [[0, 0, 1]] * 4, [[1, 1, 1]] * 4])],
        {"axis": 2},
        id="last-axis",
    ),
    Case(
        "GatherElements", [X, np.array([[[1], [0]], [[3], [3]]])], {"axis": -2}, id="fewer-lines", oracle=elements_of_axis_1
    ),
    Case("GatherElements", [X[0].astype(np.float32), np.array([[1, 2]], np.int32)], id="f32"),
    Case("GatherElements", [np.array([True, False]), np.array([1, 1, 0])], id="bool", order=0),
    Case("GatherND", [X, np.array([[0, 1], [2, -1], [0, 1]])], id="rows"),
    Case("GatherND", [X, np.array([[[0, 1, 1]], [[2, 3, -2]]])], id="elements"),
    Case("GatherND", [X, np.array([1])], id="one"),
    Case("GatherND", [X, np.array([[[1]], [[0]], [[-1]]])], {"batch_dims": 1}, id="batch"),
    Case("GatherND", [X, np.array([[3, 1], [0, 0], [0, 1]])], {"batch_dims": 1}, id="batch-elements"),
    Case(
        "GatherND",
        [
            X,
            np.array([[[[1]], [[0]]]] * 3)[:, [0, 1, 0, 1]],
        ],
        {"batch_dims": 2},
        id="two-batch-axes",
    ),
    Case("GatherND", [X.astype(np.float32), np.array([[0, 1], [2, -1]])], id="f32"),
]
