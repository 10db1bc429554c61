"""Cases of irgrad/ops/select.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).permutation(np.linspace(-1, 1, 24)).reshape(2, 3, 4)
MANY = rng(1).permutation(np.linspace(-1, 1, 1600)).reshape(40, 40)
TIED = np.array([[2.0, 1.0, 2.0, 3.0, 1.0], [5.0, 5.0, 5.0, 4.0, 5.0]])

TOP = [
    *(
        Case("TopK", [X, np.array([k])], {"axis": axis, "largest": largest}, outputs=2, id=f"{id}-axis-{axis}")
        for largest, id in ((1, "largest"), (0, "smallest"))
        for axis, k in ((-1, 3), (1, 2), (0, 1))
    ),
    Case("TopK", [X, np.array([2])], outputs=2, id="defaults"),
    Case("TopK", [X, np.array([2])], {"sorted": 0}, outputs=2, id="unsorted"),
    Case("TopK", [X, np.array([0])], outputs=2, id="none"),
    Case("TopK", [X, np.array([4])], outputs=2, id="all"),
    Case("TopK", [TIED, np.array([4])], outputs=2, id="ties", order=0),
    Case("TopK", [TIED, np.array([4])], {"largest": 0}, outputs=2, id="ties-smallest", order=0),
    Case("TopK", [MANY, np.array([3])], outputs=2, id="few-of-many"),
    Case("TopK", [MANY, np.array([2])], {"largest": 0, "axis": 0}, outputs=2, id="few-of-many-smallest"),
    *(
        Case("TopK", [MANY.round(1), np.array([3])], {"largest": largest}, outputs=2, id=f"few-of-many-ties-{id}", order=0)
        for largest, id in ((1, "largest"), (0, "smallest"))
    ),
    Case("TopK", [np.where(MANY > 0.9, np.nan, MANY), np.array([3])], outputs=2, id="nan", order=0),
    Case("TopK", [X.astype(np.float32), np.array([2])], outputs=2, id="f32"),
    Case("TopK", [X.astype(np.float16), np.array([2])], outputs=2, id="f16", order=0),
    Case("TopK", [np.array([3, 250, 7], np.uint8), np.array([2])], outputs=2, id="u8", order=0),
    Case("TopK", [np.arange(30) * 7 % 30, np.array([3])], outputs=2, id="i64", order=0),
]

EVEN = np.array([True, False, True, False])
CHOSEN = [
    Case("Compress", [X, EVEN], {"axis": 2}, id="axis"),
    Case("Compress", [X, EVEN[:3]], {"axis": -2}, id="negative-axis"),
    Case("Compress", [X, EVEN[:1]], {"axis": 1}, id="short-condition"),
    Case("Compress", [X, ~EVEN], id="flattened"),
    Case("Compress", [X, EVEN & ~EVEN], {"axis": 2}, id="nothing"),
    Case("Compress", [X.astype(np.float32), EVEN], {"axis": 2}, id="f32"),
    Case("NonZero", [np.array([[1.0, 0.0], [0.0, 2.0]])], order=0),
    Case("NonZero", [np.array([False, True, True])], id="bool", order=0),
    Case("NonZero", [np.zeros((2, 2), np.int64)], id="nothing", order=0),
    Case("NonZero", [np.array(2.0)], id="scalar", order=0),
]


def first_come(axis: int | None) -> Callable[[np.ndarray], Any]:
    # onnx.reference takes values from the wrong axis where they are not sorted.
    def oracle(x: np.ndarray) -> Any:
        along = 0 if axis is None else axis
        slices = np.moveaxis(x.reshape(-1) if axis is None else x, along, 0)
        first: dict[bytes, int] = {}
        keys = [s.tobytes() for s in slices]
        for k, key in enumerate(keys):
            first.setdefault(key, k)
        order = list(first)
        values = np.moveaxis(slices[list(first.values())], 0, along)
        counts = [keys.count(key) for key in order]
        return values, *(np.array(v) for v in (list(first.values()), [order.index(key) for key in keys], counts))

    return oracle


WORDS = np.array([[2.0, 1.0, 2.0], [0.5, 1.0, 2.0], [2.0, 1.0, 2.0]])
UNIQUE = [
    Case("Unique", [X], outputs=4, id="flattened"),
    Case("Unique", [X], {"sorted": 0}, outputs=4, id="unsorted", oracle=first_come(None)),
    Case("Unique", [X], {"axis": 1}, outputs=4, id="axis"),
    Case("Unique", [X], {"axis": -1, "sorted": 0}, outputs=4, id="axis-unsorted", oracle=first_come(-1)),
    Case("Unique", [X], outputs=1, id="values-only"),
    Case("Unique", [WORDS], outputs=4, id="repeated", order=0),
    Case("Unique", [WORDS], {"sorted": 0}, outputs=4, id="repeated-unsorted", order=0, oracle=first_come(None)),
    Case("Unique", [WORDS], {"axis": 0}, outputs=4, id="repeated-rows", order=0),
    Case(
        "Unique",
        [WORDS],
        {"axis": 0, "sorted": 0},
        outputs=4,
        id="repeated-rows-unsorted",
        order=0,
        oracle=first_come(0),
    ),
    Case("Unique", [X.astype(np.float32)], outputs=4, id="f32"),
    Case("Unique", [np.array([3, 1, 3])], outputs=4, id="i64", order=0),
]

OFF_ON = np.array([0.25, 1.5])
INDICES = np.array([[0, 2], [-1, 1], [3, -4]])


def one_hot(axis: int) -> Callable[..., np.ndarray]:
    # onnx.reference lets indices that are out of range wrap around.
    def oracle(indices: np.ndarray, depth: np.ndarray, values: np.ndarray) -> np.ndarray:
        size = int(depth.item())
        y = np.full((*indices.shape, size), values[0])
        for place in np.ndindex(indices.shape):
            if -size <= indices[place] < size:
                y[(*place, int(indices[place]))] = values[1]
        return np.moveaxis(y, -1, axis)

    return oracle


ONE_HOT = [
    *(
        Case("OneHot", [INDICES, np.array(3), OFF_ON], {"axis": axis}, id=f"axis-{axis}", wrt=[2], oracle=one_hot(axis))
        for axis in (-1, 0, 1, -3)
    ),
    Case("OneHot", [np.array([1]), np.array([3]), OFF_ON], id="depth-of-one-axis", wrt=[2], oracle=one_hot(-1)),
    Case("OneHot", [np.float32([2, 0]), np.float32(3), OFF_ON.astype(np.float32)], id="f32", wrt=[2], order=1),
    Case("OneHot", [INDICES[:2], np.array(3), np.array([0, 7])], id="i64", order=0),
]

CASES = [*TOP, *CHOSEN, *UNIQUE, *ONE_HOT]
