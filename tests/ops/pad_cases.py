"""Cases of irgrad/ops/pad.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((3, 4))
IMAGE = rng(1).standard_normal((2, 1, 3, 4))
FILL = np.array(0.7)


def cropped_and_padded(mode: str, crop: Sequence[slice], widths: Sequence[tuple[int, int]]) -> Callable[..., np.ndarray]:
    # onnx.reference refuses negative pads, which crop.
    def oracle(x: np.ndarray, pads: np.ndarray, value: np.ndarray | None = None, *axes: Any) -> np.ndarray:
        more: dict[str, Any] = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return np.pad(x[tuple(crop)], widths, mode, **more)  # type: ignore[call-overload,no-any-return]

    return oracle


def pad_grad(mode: str, pads: Sequence[int]) -> Case:
    x = rng(2).standard_normal((3, 4))
    widths = [(pads[0], pads[2]), (pads[1], pads[3])]
    shape = tuple(size + sum(width) for size, width in zip(x.shape, widths, strict=True))

    def oracle(dy: np.ndarray, shape: np.ndarray, pads: np.ndarray) -> np.ndarray:
        sources = np.pad(np.arange(x.size).reshape(x.shape), widths, mode)  # type: ignore[call-overload]
        dx: np.ndarray = np.bincount(sources.reshape(-1), dy.reshape(-1), x.size).reshape(x.shape)
        return dx

    return Case(
        "irgrad.PadGrad",
        [rng(3).standard_normal(shape), np.array(x.shape), np.array(pads)],
        {"mode": mode},
        id=f"{mode}-{max(pads)}",
        oracle=oracle,
    )


CONSTANT = [
    Case("Pad", [X, np.array([1, 0, 2, 3])], id="zeros"),
    Case("Pad", [X, np.array([1, 0, 2, 3]), FILL], id="value"),
    Case("Pad", [X, np.array([1, 0, 2, 3]), FILL], id="value-only", wrt=[2]),
    Case("Pad", [X, np.array([1, 0, 2, 3]), None, np.array([1, 0])], id="axes"),
    Case("Pad", [IMAGE, np.array([1, 2]), FILL, np.array([-1])], id="negative-axis"),
    Case("Pad", [X, np.array([0, 0, 0, 0])], id="nothing"),
    Case("Pad", [X[:0], np.array([1, 1, 0, 0]), FILL], id="of-nothing"),
    Case("Pad", [X.astype(np.float32), np.array([1, 0, 2, 3]), np.float32(0.5)], id="f32"),
    Case("Pad", [X.astype(np.float32), np.array([1, 2]), None, np.array([0], np.int32)], id="f32-axes"),
    Case("Pad", [np.array([1, 2]), np.array([1, 1]), np.array(7)], id="i64", order=0),
    Case("Pad", [np.array([True]), np.array([1, 1])], id="bool", order=0),
    Case(
        "Pad",
        [X, np.array([-1, 0, -1, -2]), FILL],
        id="crop",
        oracle=cropped_and_padded("constant", [slice(1, 2), slice(0, 2)], [(0, 0), (0, 0)]),
    ),
    Case(
        "Pad",
        [X, np.array([-1, 2, 2, -1]), FILL],
        id="crop-and-pad",
        oracle=cropped_and_padded("constant", [slice(1, 3), slice(0, 3)], [(0, 2), (2, 0)]),
    ),
    Case(
        "Pad",
        [X, np.array([-5, 0, 4, 0]), FILL],
        id="crop-everything",
        oracle=lambda x, pads, fill: np.full((2, 4), fill),
    ),
]

COPIES = [
    *(
        Case("Pad", [X, np.array(pads)], {"mode": mode}, id=f"{mode}-{max(pads)}")
        for mode in ("edge", "reflect", "wrap")
        for pads in ([1, 0, 2, 3], [0, 5, 0, 9])
    ),
    *(
        Case("Pad", [IMAGE, np.array([1, 2, 1, 2]), None, np.array([-2, 3])], {"mode": m}, id=f"{m}-axes")
        for m in ("edge", "wrap")
    ),
    *(Case("Pad", [X[:, :1], np.array([0, 2, 0, 2])], {"mode": m}, id=f"{m}-of-one") for m in ("edge", "reflect", "wrap")),
    *(
        Case(
            "Pad",
            [X, np.array([-1, 2, 1, -1])],
            {"mode": mode},
            id=f"{mode}-crop-and-pad",
            oracle=cropped_and_padded(mode, [slice(1, 3), slice(0, 3)], [(0, 1), (2, 0)]),
        )
        for mode in ("edge", "reflect", "wrap")
    ),
    *(
        Case(
            "Pad",
            [X, np.array([1, -1, 2, -3])],
            {"mode": mode},
            id=f"{mode}-of-nothing-left",
            oracle=cropped_and_padded(mode, [slice(0, 3), slice(1, 1)], [(1, 2), (0, 0)]),
        )
        for mode in ("edge", "reflect", "wrap")
    ),
    Case("Pad", [X, np.array([0, 1, 0, 1]), FILL], {"mode": "edge"}, id="edge-with-value"),
    Case("Pad", [X.astype(np.float32), np.array([0, 1, 0, 1])], {"mode": "reflect"}, id="reflect-f32"),
    Case("Pad", [np.array([1, 2, 3]), np.array([1, 1])], {"mode": "wrap"}, id="wrap-i64", order=0),
    *(pad_grad(mode, pads) for mode in ("edge", "reflect", "wrap") for pads in ([1, 0, 2, 3], [0, 5, 0, 9])),
]

CROPPED = [
    *(
        Case("CenterCropPad", [X, np.array(sizes)], id=f"to-{sizes[0]}x{sizes[1]}")
        for sizes in ((2, 7), (1, 1), (6, 9), (2, 3))
    ),
    Case("CenterCropPad", [X, np.array([3, 4])], id="as-it-is"),
    Case("CenterCropPad", [X, np.array([5])], {"axes": (1,)}, id="axes"),
    Case("CenterCropPad", [IMAGE, np.array([7, 2], np.int32)], {"axes": (-1, 2)}, id="axes-in-any-order"),
    Case("CenterCropPad", [X, np.array([0, 4])], id="to-nothing", order=0, oracle=lambda x, sizes: x[:0]),
    Case("CenterCropPad", [X.astype(np.float32), np.array([1, 3])], id="f32"),
    Case("CenterCropPad", [np.array([True, False]), np.array([5])], id="bool", order=0),
    Case("CenterCropPad", [np.arange(6), np.array([3])], id="i64", order=0),
]

CASES = [*CONSTANT, *COPIES, *CROPPED]
