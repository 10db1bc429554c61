"""Cases of irgrad/ops/slice.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((4, 5, 3))
FAR = np.iinfo(np.int64).max


def array(numbers: Any) -> np.ndarray | None:
    return None if numbers is None else np.array(numbers)


# starts, ends, axes, steps
SLICES: dict[str, tuple[Any, ...]] = {
    "leading-axes": ([1, 0], [3, 4]),
    "one-axis": ([1], [-1], [1]),
    "to-the-end": ([-2], [FAR], [-1]),
    "everything": ([0], [FAR], [1]),
    "nothing": ([3], [1], [1]),
    "beyond": ([-9, 2], [99, 99], [0, 1]),
    "steps": ([0, 4], [FAR, 0], [0, 1], [2, -2]),
    "steps-without-axes": ([0, 1], [4, 5], None, [3, 2]),
    "steps-of-1": ([1], [4], [1], [1]),
    "reversed": ([-1], [-FAR], [1], [-1]),
    "reversed-from-inside": ([3], [0], [1], [-1]),
    "reversed-from-beyond": ([99], [1], [-2], [-2]),
}


def before_the_start(x: np.ndarray, *operands: np.ndarray) -> np.ndarray:
    # The start is moved to the first element; onnx.reference, with Python's slices, finds nothing.
    return x[:, :1]


def slice_grad(id: str) -> Callable[..., np.ndarray]:
    def oracle(dy: np.ndarray, shape: np.ndarray, *operands: np.ndarray | None) -> np.ndarray:
        numbers = np.arange(X.size).reshape(X.shape)
        starts, ends, axes, steps = (*operands, None, None)[:4]
        for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis, step = (k if axes is None else axes[k]), (1 if steps is None else steps[k])
            numbers = np.moveaxis(np.moveaxis(numbers, axis, 0)[start:end:step], 0, axis)
        dx = np.zeros(X.size)
        dx[numbers.reshape(-1)] = dy.reshape(-1)
        return dx.reshape(shape)

    return oracle


def sliced(id: str) -> np.ndarray:
    """Ones of the shape that the slice has."""
    shape = {
        "leading-axes": (2, 4, 3),
        "beyond": (4, 3, 3),
        "steps": (2, 2, 3),
        "steps-without-axes": (2, 2, 3),
        "reversed": (4, 5, 3),
    }[id]
    return rng(1).standard_normal(shape)


CASES = [
    *(Case("Slice", [X, *map(array, numbers)], id=id) for id, numbers in SLICES.items()),
    Case("Slice", [X, array([-9]), array([-99]), array([1]), array([-1])], id="before-the-start", oracle=before_the_start),
    Case("Slice", [X, np.array([1], np.int32), np.array([3], np.int32), np.array([1], np.int32)], id="i32"),
    Case("Slice", [X.astype(np.float32), *map(array, SLICES["steps"])], id="f32"),
    Case("Slice", [X > 0, *map(array, SLICES["steps"])], id="bool", order=0),
    *(
        Case(
            "irgrad.SliceGrad",
            [sliced(id), np.array(X.shape), *map(array, SLICES[id])],
            id=id,
            oracle=slice_grad(id),
        )
        for id in ("leading-axes", "beyond", "steps", "steps-without-axes", "reversed")
    ),
]
