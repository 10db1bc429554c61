"""Resize along one axis: where each element of the result samples the operand, and with which weights.

Resize is separable and linear in X: along each axis it is a product with a sparse matrix of a few weights per row.

Sources: the ONNX operator specification, Resize (version 19); for the cubic filter R. Keys, Cubic convolution interpolation
for digital image processing, IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981, equation (4). Where
the specification's text and its reference implementation differ, the text is followed, as it is in onnxruntime:
"length_resized" is the whole number of elements of the result, and pytorch_half_pixel samples a result of one element at
position 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any

import numpy as np

__all__ = ["Sampling", "Taps", "axes_of", "samplings", "scaled_length", "taps_of", "towards"]

_DENOMINATOR = 4096  # the largest with which fractions are still further apart than numbers of float32 near 1


@dataclass(frozen=True)
class Taps:
    """A sparse matrix with the same number of entries in every row; places and weights are of shape [rows, entries].

    Attributes:
        size: how many columns the matrix has.
        places: the column of each entry; one may come several times in a row, and then counts as often.
        weights: the entries, in float64.
    """

    size: int
    places: np.ndarray
    weights: np.ndarray

    def transposed(self) -> Taps:
        """The transpose of the matrix; rows with fewer entries than others are filled up with zeros."""
        rows, entries = self.places.shape
        kept = self.weights.reshape(-1) != 0
        columns, weights = self.places.reshape(-1)[kept], self.weights.reshape(-1)[kept]
        order = np.argsort(columns, kind="stable")
        columns, weights, origins = columns[order], weights[order], np.repeat(np.arange(rows), entries)[kept][order]
        counts = np.bincount(columns, minlength=self.size)
        width = int(counts.max(initial=0))
        rank = np.arange(len(columns)) - (np.cumsum(counts) - counts)[columns]
        result = Taps(rows, np.zeros((self.size, width), np.intp), np.zeros((self.size, width)))
        result.places[columns, rank] = origins
        result.weights[columns, rank] = weights
        return result

    def dense(self) -> np.ndarray:
        """The matrix as an array of shape [rows, size], in float64."""
        matrix = np.zeros((len(self.places), self.size))
        np.add.at(matrix, (np.arange(len(self.places))[:, None], self.places), self.weights)
        return matrix


@dataclass(frozen=True)
class Sampling:
    """How one axis is sampled.

    Attributes:
        axis: which; not negative.
        size: the operand's elements along it.
        length: the result's.
        scale: numerator and denominator of the scale: a scale over 1, or one size over another.
        region: where the region of interest starts and ends, in units of the axis; None where there is none.
    """

    axis: int
    size: int
    length: int
    scale: tuple[float, float]
    region: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        """The scale as a number."""
        return self.scale[0] / self.scale[1]

    @property
    def trivial(self) -> bool:
        """Whether every element of the result is the element of the operand at the same place."""
        if self.size == self.length == 0:
            return True
        return self.size == self.length and self.scale[0] == self.scale[1] and self.region in (None, (0.0, 1.0))


def axes_of(attrs: Mapping[str, Any], rank: int) -> list[int]:
    """The axes that scales, sizes and roi tell of, in order."""
    axes = attrs.get("axes")
    if axes is None:
        return list(range(rank))
    for axis in axes:
        if not -rank <= axis < rank:
            raise ValueError(f"the axis {axis} is out of range for a tensor of {rank} axes")
    found = [axis % rank for axis in axes]
    if len(set(found)) < len(found):
        raise ValueError(f"the axes {', '.join(map(str, axes))} name one twice")
    return found


def samplings(
    attrs: Mapping[str, Any],
    shape: Sequence[int],
    roi: np.ndarray | None,
    scales: np.ndarray | None,
    sizes: np.ndarray | None,
) -> list[Sampling]:
    """How each axis of an operand of some shape is sampled, without those along which nothing changes.

    Raises:
        ValueError: the operands of the Resize do not fit each other or the shape.
    """
    axes = axes_of(attrs, len(shape))
    scales, sizes = (None if a is None or (a.size == 0 and axes) else a for a in (scales, sizes))
    if (scales is None) == (sizes is None):
        raise ValueError("a Resize takes either scales or sizes")
    for name, operand, count in (("scales", scales, len(axes)), ("sizes", sizes, len(axes))):
        if operand is not None and operand.size != count:
            raise ValueError(f"a Resize along {count} axes has {operand.size} {name}")
    regions: list[tuple[float, float] | None] = [None] * len(axes)
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        if roi is None or roi.size != 2 * len(axes):
            raise ValueError("a Resize with tf_crop_and_resize takes a roi with the start and the end for each axis")
        regions = [(float(start), float(end)) for start, end in roi.reshape(2, -1).T]
    old = [shape[axis] for axis in axes]
    if scales is not None:
        ratios = [_fraction(scale) for scale in scales]
        lengths = [scaled_length(float(scale), size) for scale, size in zip(scales, old, strict=True)]
    else:
        assert sizes is not None
        ratios, lengths = towards(str(attrs["keep_aspect_ratio_policy"]), old, sizes.tolist())
    found = [Sampling(*s) for s in zip(axes, old, lengths, ratios, regions, strict=True)]
    for s in found:
        if s.length < 0 or (s.size == 0 and s.length > 0):
            raise ValueError(f"axis {s.axis} with {s.size} elements cannot be resized to {s.length}")
    return [s for s in found if not s.trivial]


def _fraction(scale: np.floating[Any]) -> tuple[float, float]:
    """The fraction with a small denominator that a scale of float32 stands for, else the scale over 1.

    The third element of a result that is 0.6 times as large lies at 5, but 3 / np.float32(0.6) is less: the nearest element
    below would be another one than in frameworks whose sizes are whole numbers.
    """
    simple = Fraction(float(scale)).limit_denominator(_DENOMINATOR)
    if np.float32(simple.numerator / simple.denominator) == scale:
        return float(simple.numerator), float(simple.denominator)
    return float(scale), 1.0


def scaled_length(scale: float, size: int) -> int:
    """The length to which a scale takes an axis, in double precision as onnx infers it.

    Raises:
        ValueError: the scale is negative, infinite or NaN.
    """
    if not 0 <= scale < inf:
        raise ValueError(f"{scale:g} is no scale of a Resize")
    return floor(scale * size)


def towards(policy: str, old: Sequence[int], sizes: Sequence[int]) -> tuple[list[tuple[float, float]], list[int]]:
    """The scale of each axis and its new length, for the sizes that are asked for under a keep_aspect_ratio_policy.

    Raises:
        ValueError: there is no such policy.
    """
    ratios = [(float(new), float(size)) if size else (1.0, 1.0) for new, size in zip(sizes, old, strict=True)]
    if policy == "stretch":
        return ratios, list(sizes)
    if policy not in ("not_larger", "not_smaller"):
        raise ValueError(f"Resize knows no keep_aspect_ratio_policy {policy!r}")
    pick = min if policy == "not_larger" else max
    up, down = pick(ratios, key=lambda ratio: ratio[0] / ratio[1])
    return [(up, down)] * len(old), [floor(up / down * size + 0.5) for size in old]


# --- weights ----------------------------------------------------------------------------------------------------------


def taps_of(attrs: Mapping[str, Any], s: Sampling) -> tuple[Taps, np.ndarray | None]:
    """The matrix of an axis, and which elements of the result lie outside the operand.

    Those are told in the mode tf_crop_and_resize only (elsewhere None); their rows of the matrix are zero.

    Raises:
        ValueError: an attribute has a value that it does not take.
    """
    if s.length == 0:
        return Taps(s.size, np.zeros((0, 0), np.intp), np.zeros((0, 0))), None
    places = _coordinates(str(attrs["coordinate_transformation_mode"]), s)
    if attrs["mode"] == "nearest":
        positions = _rounding(str(attrs["nearest_mode"]))(places)[:, None]
        weights = np.ones(positions.shape)
    else:
        positions, weights = _interpolation(attrs, places, s)
    if attrs["exclude_outside"]:
        weights = np.where((positions < 0) | (positions >= s.size), 0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    outside = None
    if s.region is not None:
        outside = (places < 0) | (places > s.size - 1)
        weights = np.where(outside[:, None], 0, weights)
    return Taps(s.size, positions.clip(0, max(s.size - 1, 0)).astype(np.intp), weights), outside


def _coordinates(mode: str, s: Sampling) -> np.ndarray:
    """Where each element of the result lies along the operand's axis."""
    y = np.arange(s.length, dtype=np.float64)

    up, down = s.scale
    if mode == "align_corners":
        return y * (s.size - 1) / max(s.length - 1, 1)
    if mode == "asymmetric":
        return y * down / up
    if mode == "tf_crop_and_resize":
        assert s.region is not None
        start, end = s.region
        if s.length == 1:
            return np.full(1, 0.5 * (start + end) * (s.size - 1))
        return start * (s.size - 1) + y * (end - start) * (s.size - 1) / (s.length - 1)
    if mode == "pytorch_half_pixel" and s.length == 1:
        return np.zeros(1)
    # Over one denominator, so that a quotient that is whole, or a half, comes out as that.
    half = (2 * y + 1) * down - up
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return half / (2 * up)
    if mode == "half_pixel_symmetric":
        return (half + (s.size * up - s.length * down)) / (2 * up)
    raise ValueError(f"Resize knows no coordinate_transformation_mode {mode!r}")


def _rounding(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    roundings: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in roundings:
        raise ValueError(f"Resize knows no nearest_mode {mode!r}")
    return roundings[mode]


def _interpolation(attrs: Mapping[str, Any], places: np.ndarray, s: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """For each element of the result the positions that it is made of, which may be outside, and their weights."""
    cubic = attrs["mode"] == "cubic"
    if not cubic and attrs["mode"] != "linear":
        raise ValueError(f"Resize knows no mode {attrs['mode']!r}")
    stretch = min(s.ratio, 1.0) if attrs["antialias"] else 1.0
    reach = ceil((2 if cubic else 1) / stretch)
    positions = np.floor(places)[:, None] + np.arange(1 - reach, reach + 1)
    distances = np.abs(positions - places[:, None]) * stretch
    weights = _keys(distances, float(attrs["cubic_coeff_a"])) if cubic else np.maximum(1 - distances, 0)
    return positions, weights / weights.sum(1, keepdims=True) if attrs["antialias"] else weights


def _keys(t: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution filter at distances t >= 0."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
