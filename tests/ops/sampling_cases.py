"""Cases of irgrad/ops/sampling.py.

onnx.reference rounds positions to float32, and in mode cubic with padding_mode border moves them to the border, which
neither PyTorch nor onnxruntime does. So the oracle is the definition, pixel by pixel; some cases in float32 are the
reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from tests.ops.harness import Case, rng

MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")
SIZES = {"1d": ((5,), (4,)), "2d": ((3, 4), (2, 3)), "3d": ((3, 2, 4), (1, 2, 2))}
NUMPY_PADDINGS = {"zeros": "constant", "border": "edge"}


def images(name: str) -> np.ndarray:
    return rng(0).standard_normal((2, 2, *SIZES[name][0]))


def grid(name: str, reach: float = 1.8, seed: int = 1) -> np.ndarray:
    lengths = SIZES[name][1]
    return rng(seed).uniform(-reach, reach, (2, *lengths, len(lengths)))


def weight(mode: str, distance: float) -> float:
    t, a = abs(distance), -0.75
    if mode == "linear":
        return max(1 - t, 0)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def definition(attrs: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The image continued by a margin, and the filter laid over it at every position of the grid."""
    mode, padding, corners = (attrs[name] for name in ("mode", "padding_mode", "align_corners"))
    margin = 12
    how = NUMPY_PADDINGS.get(padding, "reflect" if corners else "symmetric")

    def oracle(x: np.ndarray, grid: np.ndarray) -> np.ndarray:
        wide = np.pad(x, [(0, 0), (0, 0), *[(margin, margin)] * (x.ndim - 2)], how)  # type: ignore[call-overload]
        sizes, lengths = x.shape[2:], grid.shape[1:-1]
        y = np.zeros((*x.shape[:2], *lengths))
        for n, *place in np.ndindex(len(x), *lengths):
            point = [
                (g + 1) / 2 * (size - 1) if corners else ((g + 1) * size - 1) / 2
                for g, size in zip(grid[(n, *place)][::-1], sizes, strict=True)
            ]
            if mode == "nearest":
                taps = [[(int(np.rint(p)), 1.0)] for p in point]
            else:
                taps = [[(k, weight(mode, p - k)) for k in range(int(p) - 4, int(p) + 5)] for p in point]
            for chosen in product(*taps):
                pixel = wide[(n, slice(None), *(k + margin for k, _ in chosen))]
                y[(n, slice(None), *place)] += pixel * np.prod([w for _, w in chosen])
        return y

    return oracle


def case(size: str, mode: str, padding: str, corners: int, *, reach: float = 1.8) -> Case:
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    return Case(
        "GridSample",
        [images(size), grid(size, reach)],
        attrs,
        id=f"{size}-{mode}-{padding}-{corners}",
        order=2 if size != "3d" else 1,
        oracle=definition(attrs),
    )


SAMPLES = [
    *(
        case(size, mode, padding, corners)
        for size in SIZES
        for mode in MODES
        for padding in PADDINGS
        for corners in (0, 1)
        if size != "3d" or mode != "cubic" or padding != "border"
    ),
]

REFERENCES = [
    *(
        Case(
            "GridSample",
            [images(size).astype(np.float32), grid(size).astype(np.float32)],
            {"mode": mode, "padding_mode": padding},
            id=f"{size}-{mode}-{padding}-f32",
            order=1,
            rtol=1e-4,
        )
        for size in ("2d", "3d")
        for mode in MODES
        for padding in PADDINGS
        if (mode, padding) != ("cubic", "border")
    ),
    Case("GridSample", [images("2d").astype(np.float32), grid("2d").astype(np.float32)], id="defaults", rtol=1e-4),
]

HALVES = np.array([-1, -0.5, 0, 0.5, 1]).reshape(1, 5, 1)  # between four pixels, with corners not aligned


def single(x: np.ndarray, points: Any, oracle: Callable[..., Any], id: str, **attrs: Any) -> Case:
    """One row of pixels."""
    operands = [x.reshape(1, 1, -1), np.asarray(points)]
    return Case("GridSample", operands, attrs, id=id, order=0, oracle=oracle)


def whole(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Integers are sampled as floating-point numbers; the samples are truncated and saturate."""
    samples = definition({"mode": "cubic", "padding_mode": "border", "align_corners": 0})(x.astype(float), points)
    return np.trunc(samples.round(9)).clip(np.iinfo(x.dtype).min, np.iinfo(x.dtype).max).astype(x.dtype)


def rounded(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    samples = definition({"mode": "linear", "padding_mode": "zeros", "align_corners": 0})
    return samples(x.astype(np.float64), points.astype(np.float64)).astype(x.dtype)


EDGES = [
    single(np.arange(1.0, 5), HALVES, lambda *_: np.array([[[1.0, 1, 3, 3, 0]]]), "halves-to-even", mode="nearest"),
    single(np.arange(1.0, 5), [[[np.inf], [-np.inf], [1e30]]], lambda *_: np.zeros((1, 1, 3)), "far-zeros"),
    single(
        np.arange(1.0, 5),
        [[[np.inf], [-np.inf], [1e30]]],
        lambda *_: np.array([[[4.0, 1, 4]]]),
        "far-border",
        padding_mode="border",
    ),
    single(
        np.array([np.nan, 1, 2, np.inf]),
        [[[2.0], [0.0], [-2.0]]],
        lambda *_: np.array([[[0, 1.5, 0]]]),
        "nothing-but-what-is-read",
    ),
    *(
        single(
            np.array([7.0]),
            [[[-0.5], [2.5]]],
            lambda *_: np.array([[[7.0, 7]]]),
            f"one-pixel-{corners}",
            padding_mode="reflection",
            align_corners=corners,
        )
        for corners in (0, 1)
    ),
    single(np.array([0, 250, 3, 255], np.uint8), grid("1d")[:1], whole, "u8", mode="cubic", padding_mode="border"),
    single(np.array([-9, 9, 5, 1]), grid("1d")[:1], whole, "i64", mode="cubic", padding_mode="border"),
    single(
        np.array([True, False, True, True]),
        HALVES,
        lambda *_: np.array([[[True, True, True, True, False]]]),
        "bool",
        mode="nearest",
    ),
    Case("GridSample", [images("2d"), grid("2d").astype(np.float32)], id="mixed-f64-f32", oracle=rounded),
    Case("GridSample", [images("2d").astype(np.float32), grid("2d")], id="mixed-f32-f64", order=1, oracle=rounded),
    Case("GridSample", [images("2d").astype(np.float16), grid("2d")], id="f16", order=0, oracle=rounded, rtol=1e-3),
    Case("GridSample", [images("2d"), np.zeros((2, 0, 3, 2))], id="to-nothing", oracle=lambda *_: np.zeros((2, 2, 0, 3))),
    Case("GridSample", [np.zeros((2, 1, 0, 3)), grid("2d")], id="of-nothing", oracle=lambda *_: np.zeros((2, 1, 2, 3))),
]


def image_gradient(size: str, mode: str, padding: str, corners: int) -> Case:
    """Against the transpose of the whole matrix of the samples, a column per element of the images."""
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}

    def oracle(dy: np.ndarray, grid: np.ndarray, shape: np.ndarray) -> np.ndarray:
        units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        return np.array([np.vdot(definition(attrs)(unit, grid), dy) for unit in units]).reshape(shape)

    dy = rng(2).standard_normal((2, 1, *SIZES[size][1]))
    operands = [dy, grid(size), np.array([2, 1, *SIZES[size][0]])]
    return Case("irgrad.GridSampleImageGrad", operands, attrs, id=f"{size}-{mode}-{padding}-{corners}", oracle=oracle)


def grid_gradient(size: str, mode: str, padding: str, corners: int) -> Case:
    """Against central differences of the samples."""
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}

    def oracle(dy: np.ndarray, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
        result, step = np.zeros_like(grid), 1e-5
        for place in np.ndindex(grid.shape):
            shift = np.zeros_like(grid)
            shift[place] = step
            ahead, behind = (definition(attrs)(x, grid + sign * shift) for sign in (1, -1))
            result[place] = np.vdot(dy, ahead - behind) / (2 * step)
        return result

    dy = rng(2).standard_normal((2, 2, *SIZES[size][1]))
    operands = [dy, images(size), grid(size)]
    return Case("irgrad.GridSampleGridGrad", operands, attrs, id=f"{size}-{mode}-{padding}-{corners}", oracle=oracle)


GRADIENTS = [
    *(
        image_gradient(size, mode, padding, corners)
        for size in ("1d", "2d")
        for mode in MODES
        for padding in PADDINGS
        for corners in (0, 1)
    ),
    image_gradient("3d", "linear", "zeros", 0),
    *(
        grid_gradient(size, mode, padding, corners)
        for size in ("1d", "2d")
        for mode in ("linear", "cubic")
        for padding in PADDINGS
        for corners in (0, 1)
    ),
    grid_gradient("3d", "linear", "reflection", 1),
]

# --- AffineGrid -------------------------------------------------------------------------------------------------------


def positions(lengths: tuple[int, ...], corners: int) -> np.ndarray:
    """The homogeneous coordinates of every pixel, [*lengths, rank + 1]."""
    axes = []
    for length in lengths:
        end = (1 if corners else 1 - 1 / length) if length > 1 else 0
        axes.append(np.linspace(-end, end, length))
    return np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(lengths)], -1)


def affine(theta: np.ndarray, sizes: tuple[int, ...], id: str, *, order: int = 2, rtol: float = 1e-5, **attrs: Any) -> Case:
    """onnx.reference makes float32 grids, and puts a single pixel at -1 where corners are aligned; PyTorch has it at 0."""

    def oracle(theta: np.ndarray, size: np.ndarray) -> np.ndarray:
        points = positions(tuple(size[2:]), attrs.get("align_corners", 0))
        return np.einsum("nij,...j->n...i", theta.astype(np.float64), points).astype(theta.dtype)

    return Case("AffineGrid", [theta, np.array(sizes)], attrs, id=id, order=order, oracle=oracle, rtol=rtol)


def theta(batch: int, rank: int) -> np.ndarray:
    return rng(3).standard_normal((batch, rank, rank + 1))


AFFINE = [
    *(
        affine(theta(batch, len(sizes)), (batch, 1, *sizes), f"{batch}-{sizes}-{corners}", align_corners=corners)
        for batch in (1, 2)
        for sizes in ((3, 4), (2, 3, 4), (1, 3), (3, 1, 2))
        for corners in (0, 1)
    ),
    affine(theta(1, 2), (1, 1, 0, 3), "nothing"),
    affine(theta(2, 2).astype(np.float32), (2, 3, 2, 3), "f32", order=1),
    affine(theta(2, 2).astype(np.float16), (2, 3, 2, 3), "f16", order=0, rtol=1e-3),
    Case("AffineGrid", [theta(2, 2).astype(np.float32), np.array([2, 3, 2, 3])], id="reference", rtol=1e-4),
    Case("AffineGrid", [theta(2, 3).astype(np.float32), np.array([2, 3, 2, 3, 2])], {"align_corners": 1}, id="reference-3d"),
]

AFFINE_GRADIENTS = [
    Case(
        "irgrad.AffineGridGrad",
        [rng(4).standard_normal((batch, *lengths, len(lengths)))],
        {"align_corners": corners},
        id=f"{batch}-{lengths}-{corners}",
        oracle=lambda dy, corners=corners: np.einsum(
            "npi,pj->nij",
            dy.reshape(len(dy), -1, dy.shape[-1]),
            positions(dy.shape[1:-1], corners).reshape(-1, dy.shape[-1] + 1),
        ),
    )
    for batch in (1, 2)
    for lengths in ((3, 4), (2, 1, 3))
    for corners in (0, 1)
]

CASES = [*SAMPLES, *REFERENCES, *EDGES, *GRADIENTS, *AFFINE, *AFFINE_GRADIENTS]
