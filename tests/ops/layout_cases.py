"""Cases of irgrad/ops/layout.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((2, 3, 4))
IMAGE = rng(1).standard_normal((2, 8, 2, 3))
LARGE = rng(2).standard_normal((2, 2, 4, 6))
FLAGS = np.array([[True, False, True], [False, True, True]])

PERMUTED = [
    Case("Transpose", [X], id="reversed"),
    Case("Transpose", [X], {"perm": (1, 2, 0)}, id="cycle"),
    Case("Transpose", [X.astype(np.float32)], {"perm": (0, 2, 1)}, id="f32"),
    Case("Transpose", [np.array(2.5)], id="scalar"),
    Case("Transpose", [FLAGS], id="bool", order=0),
]

JOINED = [
    Case("Concat", [X, X[:, :1], X[:, 1:] * 2], {"axis": 1}, id="three"),
    Case("Concat", [X, X[..., 1:]], {"axis": -1}, id="negative-axis"),
    Case("Concat", [X], {"axis": 0}, id="one"),
    Case("Concat", [X, X[:0], X[1:]], {"axis": 0}, id="nothing-between"),
    Case("Concat", [X, X + 1, X * 2], {"axis": -2}, id="middle-only", wrt=[1]),
    Case("Concat", [X.astype(np.float32), X.astype(np.float32)], {"axis": 2}, id="f32"),
    Case("Concat", [FLAGS, ~FLAGS], {"axis": 0}, id="bool", order=0),
    Case("Split", [X, np.array([1, 2])], {"axis": 1}, outputs=2, id="sizes"),
    Case("Split", [X, np.array([3, 0, 1])], {"axis": -1}, outputs=3, id="sizes-with-0"),
    Case("Split", [X], {"num_outputs": 2, "axis": 2}, outputs=2, id="equal"),
    Case("Split", [X], {"num_outputs": 2, "axis": 1}, outputs=2, id="uneven"),
    Case("Split", [X[:, :2]], {"num_outputs": 3, "axis": 1}, outputs=3, id="uneven-last-empty"),
    Case("Split", [X], {"num_outputs": 2}, outputs=2, id="default-axis"),
    Case("Split", [X], {"num_outputs": 1}, outputs=1, id="whole"),
    Case("Split", [X], {"num_outputs": 3, "axis": 1}, outputs=3, wanted=[1], id="one-wanted"),
    Case("Split", [X.astype(np.float32)], {"num_outputs": 3, "axis": 1}, outputs=3, id="f32"),
]

REPEATED = [
    Case("Tile", [X, np.array([1, 2, 3])]),
    Case("Tile", [X, np.array([2, 1, 1])], id="leading-axis"),
    Case("Tile", [X, np.array([1, 1, 1])], id="once"),
    Case("Tile", [X, np.array([1, 0, 1])], id="not-at-all"),
    Case("Tile", [X[0, 0], np.array([3])], id="vector"),
    Case("Tile", [X.astype(np.float32), np.array([1, 2, 1])], id="f32"),
    Case("Tile", [FLAGS, np.array([2, 2])], id="bool", order=0),
]

SQUARES = rng(3).standard_normal((2, 3, 4))
TRIANGLES = [
    Case("Trilu", [SQUARES], {"upper": 1}, id="upper"),
    Case("Trilu", [SQUARES], {"upper": 0}, id="lower"),
    *(
        Case("Trilu", [SQUARES, np.array(k)], {"upper": upper}, id=f"{id}-{k}")
        for upper, id in ((1, "upper"), (0, "lower"))
        for k in (-1, 2, 7)
    ),
    Case("Trilu", [SQUARES.swapaxes(1, 2), np.array([1])], {"upper": 0}, id="tall"),
    Case("Trilu", [SQUARES.astype(np.float32)], id="f32"),
    Case("Trilu", [np.ones((3, 3), np.bool_), np.array(1)], id="bool", order=0),
    Case("Trilu", [np.ones((3, 3), np.int64)], id="i64", order=0),
]


def depth_to_space(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    def oracle(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        y = np.empty((n, c // 4, 2 * h, 2 * w), x.dtype)
        for at in np.ndindex(y.shape):
            block, channel = (at[2] % 2) * 2 + at[3] % 2, at[1]
            source = block * (c // 4) + channel if mode == "DCR" else channel * 4 + block
            y[at] = x[at[0], source, at[2] // 2, at[3] // 2]
        return y

    return oracle


def space_to_depth(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    def oracle(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        y = np.empty((n, 4 * c, h // 2, w // 2), x.dtype)
        for at in np.ndindex(x.shape):
            block, channel = (at[2] % 2) * 2 + at[3] % 2, at[1]
            target = block * c + channel if mode == "DCR" else channel * 4 + block
            y[at[0], target, at[2] // 2, at[3] // 2] = x[at]
        return y

    return oracle


MOVED = [
    Case("DepthToSpace", [IMAGE], {"blocksize": 2}, id="default", oracle=depth_to_space("DCR")),
    Case("SpaceToDepth", [LARGE], {"blocksize": 2}, id="default", oracle=space_to_depth("DCR")),
    *(
        Case(op, [x], {"blocksize": 2, "mode": mode}, id=mode, oracle=oracle(mode))
        for op, x, oracle in (("DepthToSpace", IMAGE, depth_to_space), ("SpaceToDepth", LARGE, space_to_depth))
        for mode in ("DCR", "CRD")
    ),
    Case(
        "DepthToSpace",
        [IMAGE.astype(np.float32)],
        {"blocksize": 2, "mode": "CRD"},
        id="f32",
        oracle=depth_to_space("CRD"),
    ),
    Case("SpaceToDepth", [LARGE], {"blocksize": 1}, id="blocks-of-1", oracle=lambda x: x),
]

REVERSED = [
    Case("ReverseSequence", [X.transpose(2, 1, 0), np.array([4, 1, 3])], id="time-first"),
    Case(
        "ReverseSequence",
        [X, np.array([3, 2])],
        {"batch_axis": 0, "time_axis": 1},
        id="batch-first",
    ),
    Case("ReverseSequence", [X[0], np.array([1, 0, 4])], {"batch_axis": 0, "time_axis": 1}, id="matrix"),
    Case(
        "ReverseSequence",
        [X[..., 0].astype(np.float32), np.array([0, 3])],
        {"batch_axis": 0, "time_axis": 1},
        id="f32",
    ),
]

CASES = [*PERMUTED, *JOINED, *REPEATED, *TRIANGLES, *MOVED, *REVERSED]
