"""Cases of irgrad/ops/resize.py.

Operands that are floating-point are inputs of a case's graph, so that scales and roi are given at run time here; constant
ones are in test_resize.py. A case with whole scales, or with a roi that ends at the border, is differentiated by X only: any
step in some direction changes the size of the result, or leaves the image. POSITIONS are the cases where that is not so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx.reference.ops.op_resize import Resize as Reference

from irgrad.op import find_op
from tests.ops.harness import Case, rng

IMAGE = rng(0).standard_normal((1, 2, 4, 5))
LINE = rng(1).standard_normal(6)
SIZES = {"up": np.array([1, 2, 7, 8]), "down": np.array([1, 2, 3, 2]), "mixed": np.array([1, 2, 9, 3])}
MAPPINGS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
CROP = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.3}
INSIDE = np.array([0, 0, 0.1, 0.3, 1, 1, 0.8, 0.9], np.float32)
BEYOND = np.array([0, 0, -0.3, 0.2, 1, 1, 0.7, 1.4], np.float32)


def scales(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def reference(attrs: Mapping[str, Any]) -> Callable[..., np.ndarray]:
    """onnx's reference called directly: its evaluator makes the cubic coefficient float32, and the weights with it."""
    given = {**find_op("Resize").defaults, **attrs}

    def oracle(x: np.ndarray, *operands: Any) -> np.ndarray:
        roi, scales, sizes = (*operands, None, None, None)[:3]
        axes = given.get("axes")
        given["axes"] = None if axes is None else [axis % x.ndim for axis in axes]
        (y,) = Reference._run(None, x, roi, scales, sizes, **given)
        return y  # type: ignore[no-any-return]

    return oracle


def resized(x: np.ndarray, ends: Sequence[int], sample: Callable[[int, int, int], dict[int, float]]) -> np.ndarray:
    """The definition of Resize, element by element, along the last axes; ``sample(k, new, old)`` gives weights."""
    first = x.ndim - len(ends)
    for axis, new in enumerate(ends, first):
        lines = np.moveaxis(x, axis, -1)
        columns = [sum(w * lines[..., place] for place, w in sample(k, new, lines.shape[-1]).items()) for k in range(new)]
        x = np.moveaxis(np.stack(columns, -1), -1, axis)
    return x


def at_corners(k: int, new: int, old: int) -> dict[int, float]:
    place = k * (old - 1) / (new - 1) if new > 1 else 0.0
    below = min(int(place), max(old - 2, 0))
    return {below: 1 - (place - below), min(below + 1, old - 1): place - below} if old > 1 else {0: 1.0}


def case(sizes: Any, *, x: np.ndarray = IMAGE, id: str = "", **attrs: Any) -> Case:
    words = [str(value) for value in attrs.values()]
    name = "-".join([*words, id]).strip("-")
    return Case("Resize", [x, None, None, np.asarray(sizes)], attrs, id=name, wrt=[0], oracle=reference(attrs))


def cropped(mode: str, roi: np.ndarray, sizes: np.ndarray, id: str) -> Case:
    attrs = {"mode": mode, **CROP}
    return Case(
        "Resize", [IMAGE, roi, None, sizes], attrs, id=f"{mode}-crop-{id}", order=1, wrt=[0], oracle=reference(attrs)
    )


def scaled(factors: np.ndarray, *, x: np.ndarray = IMAGE, id: str = "", oracle: Any = None, **attrs: Any) -> Case:
    words = [str(value) for value in attrs.values()]
    name = "-".join(["scales", *words, id]).strip("-")
    return Case("Resize", [x, None, factors], attrs, id=name, wrt=[0], order=1, oracle=oracle or reference(attrs))


MODES = [
    *(
        case(sizes, mode=mode, coordinate_transformation_mode=mapping, id=name)
        for mode in ("nearest", "linear", "cubic")
        for mapping in MAPPINGS
        for name, sizes in SIZES.items()
    ),
    *(
        case(sizes, mode="nearest", coordinate_transformation_mode=mapping, nearest_mode=rounding, id=name)
        for rounding in ("round_prefer_ceil", "floor", "ceil")
        for mapping in ("half_pixel", "asymmetric")
        for name, sizes in SIZES.items()
    ),
    *(case(SIZES["mixed"], mode=mode, exclude_outside=1, id="outside") for mode in ("linear", "cubic")),
    case(SIZES["mixed"], mode="cubic", cubic_coeff_a=-0.5),
    case(SIZES["up"], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    *(
        case(sizes, mode=mode, antialias=1, exclude_outside=outside, id=f"antialias-{name}")
        for mode in ("linear", "cubic")
        for outside in (0, 1)
        for name, sizes in SIZES.items()
    ),
    case([1, 2, 1, 1], mode="cubic", coordinate_transformation_mode="align_corners", id="one"),
    case([1, 2, 1, 1], mode="linear", coordinate_transformation_mode="pytorch_half_pixel", id="one"),
]

CROPPED = [
    *(
        cropped(mode, roi, sizes, f"{where}-{name}")
        for mode in ("nearest", "linear", "cubic")
        for where, roi in (("inside", INSIDE), ("beyond", BEYOND), ("reversed", INSIDE[[0, 1, 6, 7, 4, 5, 2, 3]]))
        for name, sizes in SIZES.items()
    ),
    cropped("linear", BEYOND, np.array([1, 2, 1, 1]), "one"),
    Case(
        "Resize",
        [IMAGE, BEYOND[[3, 2, 7, 6]], None, np.array([4, 4])],
        {"mode": "linear", "axes": (3, 2), **CROP},
        id="crop-axes",
        order=1,
        wrt=[0],
        oracle=lambda x, roi, _, sizes: crop(np.swapaxes(crop(x, roi[[1, 3]], 4), 2, 3), roi[[0, 2]], 4).swapaxes(2, 3),
    ),
]


def crop(x: np.ndarray, ends: np.ndarray, new: int) -> np.ndarray:
    """Linear cropping along axis 2; what lies outside in one direction is outside whatever the other one does."""
    place = (float(ends[0]) + np.arange(new) * (float(ends[1]) - float(ends[0])) / (new - 1)) * (x.shape[2] - 1)
    below = np.clip(np.floor(place).astype(int), 0, x.shape[2] - 2)
    weight = (place - below)[:, None]
    y: np.ndarray = x[:, :, below] * (1 - weight) + x[:, :, below + 1] * weight
    y[:, :, (place < 0) | (place > x.shape[2] - 1)] = CROP["extrapolation_value"]
    return y


# onnx.reference takes the fractional product of size and scale where the text says "length of the resized tensor".
SCALED = [
    *(
        scaled(scales(1, 1, *factors), mode=mode, coordinate_transformation_mode=mapping, id=f"{factors[0]}-{factors[1]}")
        for mode in ("nearest", "linear", "cubic")
        for mapping in ("half_pixel", "half_pixel_symmetric", "asymmetric")
        for factors in ((2, 0.5), (1.3, 1), (0.8, 2.7))
    ),
    scaled(
        scales(1, 1, 1.9, 0.7),
        mode="linear",
        coordinate_transformation_mode="align_corners",
        oracle=lambda x, *_: resized(x, (7, 3), at_corners),
    ),
    scaled(
        scales(1, 1, 0.3, 0.3),
        mode="cubic",
        coordinate_transformation_mode="pytorch_half_pixel",
        oracle=lambda x, *_: x[:, :, :1, :1],
    ),
    scaled(
        scales(0.6),
        x=rng(2).standard_normal(10),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        id="exact",
        oracle=lambda x, *_: x[[0, 1, 3, 5, 6, 8]],
    ),
    scaled(scales(1, 1, 1, 1), mode="cubic", id="nothing"),
    scaled(
        scales(3, 2),
        x=IMAGE,
        mode="linear",
        axes=(3, 2),
        id="axes",
        oracle=lambda x, *_: resized(x, (8, 15), half_pixel),
    ),
    scaled(scales(2, 0.6, 3), x=rng(3).standard_normal((2, 5, 2)), mode="linear", antialias=1, id="3d"),
]


def half_pixel(k: int, new: int, old: int) -> dict[int, float]:
    place = float(np.clip((k + 0.5) * old / new - 0.5, 0, old - 1))
    below = min(int(place), old - 2)
    return {below: 1 - (place - below), below + 1: place - below}


ROI = {"inside": np.array([0.12, 0.32, 0.83, 0.94]), "beyond": np.array([-0.33, 0.22, 0.71, 1.43])}
PLANE = rng(8).standard_normal((2, 4, 5))


def placed(operands: Sequence[Any], order: int, id: str, oracle: Any = None, **attrs: Any) -> Case:
    oracle = oracle or reference(attrs)
    return Case("Resize", [PLANE, *operands], attrs, id=f"positions-{id}", order=order, oracle=oracle)


POSITIONS = [
    *(
        placed([roi, None, np.array(sizes)], 2, f"{mode}-{where}-{sizes}", mode=mode, axes=(1, 2), **CROP)
        for mode in ("nearest", "linear", "cubic")
        for where, roi in ROI.items()
        for sizes in ((3, 7), (6, 2))
    ),
    placed([ROI["inside"], None, np.array([1, 3])], 2, "one", mode="linear", axes=(1, 2), **CROP),
    placed(
        [ROI["inside"], np.array([1.375, 0.90625])],
        2,
        "crop-scales",
        lambda x, roi, _: reference({"mode": "linear", "axes": (1, 2), **CROP})(x, roi, None, np.array([5, 4])),
        mode="linear",
        axes=(-2, -1),
        **CROP,
    ),
    placed([np.array([0.1, 0.3, 0.05, 0.9, 0.8, 0.9]), None, np.array([3, 3, 4])], 1, "all-axes", mode="linear", **CROP),
    *(
        placed([None, np.array(factors)], 2, f"{mode}-{mapping}-{factors}", **{**given, "axes": (1, 2)})
        for mode in ("nearest", "linear", "cubic")
        for mapping in MAPPINGS
        if mapping != "align_corners"
        for factors in ((1.375, 0.90625), (0.625, 2.3125))
        for given in [{"mode": mode, "coordinate_transformation_mode": mapping}]
    ),
    placed([None, np.array([1.75])], 2, "one-axis", mode="linear", axes=(2,)),
    placed(
        [None, np.array([1.375, 0.3125])],
        2,
        "pytorch-one",
        lambda x, _, scales: reference({"mode": "linear", "axes": (1,)})(x[:, :, :1], None, scales[:1]),
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
        axes=(1, 2),
    ),
]

AXES = [
    case([7, 3], mode="linear", axes=(2, 3)),
    case([7], mode="cubic", axes=(1,)),
    case([3, 7], mode="nearest", axes=(-1, -2)),
    *(
        case([7, 11], mode=mode, axes=(2, 3), keep_aspect_ratio_policy=policy)
        for mode in ("nearest", "linear")
        for policy in ("stretch", "not_larger", "not_smaller")
    ),
    case([11], x=LINE, mode="linear", id="1d"),
    case([3, 4, 3, 2, 2], x=rng(4).standard_normal((2, 2, 2, 3, 2)), mode="linear", id="5d"),
    case([200], x=rng(5).standard_normal(150), mode="linear", id="sparse"),
    case([1, 0, 2], x=rng(5).standard_normal((1, 3, 1)), mode="linear", id="to-nothing"),
]

DTYPES = [
    *(
        Case("Resize", [IMAGE.astype(np.float32), None, None, SIZES["mixed"]], {"mode": mode}, id=f"{mode}-f32")
        for mode in ("nearest", "linear", "cubic")
    ),
    Case(
        "Resize",
        [IMAGE.astype(np.float16), None, None, SIZES["mixed"]],
        {"mode": "linear"},
        id="linear-f16",
        order=0,
        rtol=1e-3,
    ),
    *(
        Case(
            "Resize",
            [rng(6).integers(0, 255, (3, 4)).astype(np.uint8), None, None, np.array([5, 7])],
            {"mode": mode},
            id=f"{mode}-u8",
            order=0,
        )
        for mode in ("nearest", "linear", "cubic")
    ),
    Case("Resize", [rng(6).integers(-9, 9, (3, 4)), None, None, np.array([5, 2])], {}, id="nearest-i64", order=0),
    Case(
        "Resize",
        [np.array([True, False, True]), None, None, np.array([6])],
        {},
        id="nearest-bool",
        order=0,
        oracle=lambda x, *_: np.repeat(x, 2),
    ),
]


def gradient(x: Sequence[int], dy: Sequence[int], id: str, *, dynamic: bool = True, **attrs: Any) -> Case:
    """ResizeGrad against the transpose of the whole matrix of the Resize, a column per element of the operand."""

    def oracle(dy: np.ndarray, shape: np.ndarray, *operands: Any) -> np.ndarray:
        units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        sample = reference(attrs)
        return np.array([np.vdot(sample(unit, *operands), dy) for unit in units]).reshape(shape)

    sizes = attrs.pop("sizes", dy)
    operands = [rng(7).standard_normal(dy), np.array(x), None, None, np.array(sizes)]
    return Case("irgrad.ResizeGrad", operands, attrs, id=id, dynamic=dynamic, oracle=oracle)


GRADIENTS = [
    *(
        gradient((2, 4, 3), (2, 3, 7), f"{mode}-{mapping}", mode=mode, coordinate_transformation_mode=mapping)
        for mode in ("nearest", "linear", "cubic")
        for mapping in MAPPINGS
    ),
    *(
        gradient((5, 3), (2, 4), f"{mode}-antialias-{outside}", mode=mode, antialias=1, exclude_outside=outside)
        for mode in ("linear", "cubic")
        for outside in (0, 1)
    ),
    gradient((2, 4, 3), (2, 6, 2), "axes", mode="linear", axes=(2, 1), sizes=(2, 6)),
    gradient((4, 3), (8, 6), "ratio", mode="linear", keep_aspect_ratio_policy="not_larger", sizes=(9, 6), dynamic=False),
    gradient((200,), (140,), "sparse", mode="linear"),
    gradient((3, 2), (0, 4), "of-nothing", mode="linear"),
]

CASES = [*MODES, *CROPPED, *SCALED, *POSITIONS, *AXES, *DTYPES, *GRADIENTS]
