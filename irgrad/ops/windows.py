"""The geometry of sliding windows, which convolutions and pooling share.

Attributes (strides, dilations, pads, auto_pad, ceil_mode) become a `Windows`: numbers along each spatial axis that kernels
and lowerings work with, whatever the attributes were. For sizes that are not known yet, `count_dims` and `image_dims` tell
as much of the result's shape as follows.

Source of the formulas: the ONNX operator specification, Conv, ConvTranspose and MaxPool (versions 22).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from irgrad.errors import TypeInferenceError
from irgrad.graph import Value
from irgrad.types import Dim, TensorType, divide_dims, multiply_dims

__all__ = [
    "Windows",
    "count_dims",
    "explicit_pads",
    "image_dims",
    "per_axis",
    "spatial_rank",
    "transposed_pads",
    "transposed_windows",
    "windows_of",
]

SAME = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Windows:
    """Where windows lie over an image, along each spatial axis.

    Window `o` reads the positions ``o * stride + j * dilation - begin`` for j in range(kernel); positions outside of
    range(size) are padding.

    Attributes:
        size: the spatial sizes of the image.
        kernel: how many positions a window reads.
        strides: from one window to the next.
        dilations: from one position of a window to the next.
        begins: how far the first window starts before the image; negative where it starts inside.
        ends: the padding after the image that the attributes declare. The last window may stop before or reach past it.
        counts: how many windows there are: the spatial sizes of what a convolution or pooling gives.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def extents(self) -> tuple[int, ...]:
        """From the first position of a window to its last, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def tails(self) -> tuple[int, ...]:
        """How far the last window reaches past the image; negative where it stops before the image's end."""
        return tuple(
            (count - 1) * stride + extent - begin - size
            for count, stride, extent, begin, size in zip(
                self.counts, self.strides, self.extents, self.begins, self.size, strict=True
            )
        )

    @property
    def pointwise(self) -> bool:
        """Whether window o reads position o and nothing else."""
        return set(self.kernel) <= {1} and set(self.strides) <= {1} and not any(self.begins) and self.counts == self.size

    def rows(self, start: int, stop: int) -> Windows:
        """The windows start..stop-1 of the first axis (and all of the others)."""
        return replace(
            self,
            begins=(self.begins[0] - start * self.strides[0], *self.begins[1:]),
            counts=(stop - start, *self.counts[1:]),
        )

    def positions(self, axis: int, offset: int) -> tuple[slice, slice] | None:
        """The windows whose position `offset` along an axis lies in the image, and those positions; None for none."""
        size, stride = self.size[axis], self.strides[axis]
        shift = offset * self.dilations[axis] - self.begins[axis]
        first = max(0, -(shift // stride))
        last = min(self.counts[axis], (size - 1 - shift) // stride + 1)
        if first >= last:
            return None
        return slice(first, last), slice(first * stride + shift, (last - 1) * stride + shift + 1, stride)

    def offsets(self) -> list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
        """For every position of a window that some window reads in the image: offset, which windows, where in the image."""
        axes = [
            [(j, found) for j in range(self.kernel[axis]) if (found := self.positions(axis, j)) is not None]
            for axis in range(self.rank)
        ]
        return [
            (tuple(j for j, _ in combination), tuple(f[0] for _, f in combination), tuple(f[1] for _, f in combination))
            for combination in product(*axes)
        ]

    def transposed(self) -> Windows:
        """The windows of the adjoint of a convolution of stride 1, which is one over its result with a reversed kernel."""
        assert set(self.strides) <= {1}
        begins = tuple(extent - 1 - begin for extent, begin in zip(self.extents, self.begins, strict=True))
        ends = tuple(-t for t in self.tails)
        return replace(self, size=self.counts, counts=self.size, begins=begins, ends=ends)


# --- from attributes --------------------------------------------------------------------------------------------------


def per_axis(attrs: Mapping[str, Any], name: str, rank: int, default: int) -> tuple[int, ...]:
    """A list attribute with one number for each spatial axis; `default` for each where it is not given.

    Raises:
        TypeInferenceError: it has another length.
    """
    given = attrs.get(name)
    if not given:
        return (default,) * rank
    if len(given) != rank:
        raise TypeInferenceError(f"{name} has {len(given)} numbers, not {rank}: one for each spatial axis")
    return tuple(int(x) for x in given)


def explicit_pads(attrs: Mapping[str, Any], rank: int) -> tuple[tuple[int, int], ...] | None:
    """The (begin, end) padding of each axis, or None where auto_pad makes it depend on the sizes."""
    auto = attrs.get("auto_pad", "NOTSET") or "NOTSET"
    if auto in SAME:
        return None
    if auto not in ("NOTSET", "VALID"):
        raise TypeInferenceError(f"auto_pad is {auto!r}; it can be NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    given = attrs.get("pads")
    if auto == "VALID" or not given:
        return ((0, 0),) * rank
    if len(given) != 2 * rank:
        raise TypeInferenceError(f"pads has {len(given)} numbers, not {2 * rank}: two for each spatial axis")
    return tuple((int(given[k]), int(given[k + rank])) for k in range(rank))


def _split_total(total: int, auto_pad: str) -> tuple[int, int]:
    """Padding of one axis, split between its sides: an odd rest goes to the end for SAME_UPPER, else to the beginning."""
    half = total // 2
    return (half, total - half) if auto_pad == "SAME_UPPER" else (total - half, half)


def windows_of(attrs: Mapping[str, Any], size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or a pooling over an image.

    With ceil_mode the last window may reach past the padding, but it starts in the image or in the padding before it.
    Under auto_pad=VALID ceil_mode changes nothing: so says the specification's formula (onnxruntime rounds up there). The
    padding of auto_pad=SAME_* is 0 where a window is smaller than a stride, as in onnx.reference's Conv (onnxruntime lets
    windows start inside the image there).

    Args:
        attrs: strides, dilations, pads, auto_pad and ceil_mode, as far as they are given.
        size: the spatial sizes of the image.
        kernel: the spatial sizes of a window.

    Raises:
        TypeInferenceError: an attribute has a wrong length or value, or no window fits.
    """
    rank = len(size)
    return _windows(
        tuple(size),
        tuple(kernel),
        per_axis(attrs, "strides", rank, 1),
        per_axis(attrs, "dilations", rank, 1),
        explicit_pads(attrs, rank),
        attrs.get("auto_pad", "NOTSET"),
        bool(attrs.get("ceil_mode")),
    )


@lru_cache(maxsize=4096)
def _windows(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[tuple[int, int], ...] | None,
    auto_pad: str,
    ceil_mode: bool,
) -> Windows:
    begins, ends, counts = [], [], []
    for axis, (n, k, stride, dilation) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
        extent = (k - 1) * dilation + 1
        if pads is None:
            count = -(-n // stride)
            begin, end = _split_total(max(0, (count - 1) * stride + extent - n), auto_pad)
        else:
            begin, end = pads[axis]
            room = n + begin + end - extent
            if ceil_mode and auto_pad != "VALID":
                count = -(-room // stride) + 1
                if (count - 1) * stride >= n + begin:
                    count -= 1
            else:
                count = room // stride + 1
        if count < 1 and n > 0:
            raise TypeInferenceError(
                f"a window of {extent} positions does not fit into an image of size {n} with padding {begin} + {end} "
                f"along spatial axis {axis}"
            )
        begins.append(begin)
        ends.append(end)
        counts.append(max(count, 0))
    return Windows(size, kernel, strides, dilations, tuple(begins), tuple(ends), tuple(counts))


def transposed_pads(
    attrs: Mapping[str, Any], counts: Sequence[Dim], kernel: Sequence[int] | None
) -> tuple[tuple[int, int], ...] | None:
    """The (begin, end) padding that a ConvTranspose takes off, by the specification's equations.

    It may be negative: with auto_pad the output has ``stride`` times the input's size even where the windows do not reach
    that far.

    Args:
        attrs: the attributes of the node.
        counts: the spatial sizes of its input; only an explicit output_shape needs to know them.
        kernel: the spatial sizes of its weights; explicit padding does not need to know them.

    Returns:
        One pair for each axis; None where the padding depends on sizes that are unknown.
    """
    rank, auto_pad = len(counts), attrs.get("auto_pad", "NOTSET")
    given = attrs.get("output_shape")
    if not given:
        pads = explicit_pads(attrs, rank)
        if pads is not None:
            return pads
    if kernel is None:
        return None
    sizes = per_axis(attrs, "output_shape", rank, 0)
    found = []
    for count, size, stride, reach in zip(
        counts, sizes, per_axis(attrs, "strides", rank, 1), _reaches(attrs, kernel), strict=True
    ):
        if not given:
            total = reach - stride  # (count - 1) * stride + reach - count * stride
        elif isinstance(count, int):
            total = (count - 1) * stride + reach - size
        else:
            return None
        found.append(_split_total(total, auto_pad))
    return tuple(found)


def transposed_windows(attrs: Mapping[str, Any], counts: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of the convolution whose adjoint a ConvTranspose is: over its output, one for each element of its input.

    Args:
        attrs: the attributes of the ConvTranspose.
        counts: the spatial sizes of its input.
        kernel: the spatial sizes of its weights.

    Raises:
        TypeInferenceError: an attribute has a wrong length or value, or an output size would be negative.
    """
    rank = len(counts)
    pads = transposed_pads(attrs, counts, kernel)
    assert pads is not None
    strides = per_axis(attrs, "strides", rank, 1)
    size = tuple(
        (count - 1) * stride + reach - begin - end
        for count, stride, reach, (begin, end) in zip(counts, strides, _reaches(attrs, kernel), pads, strict=True)
    )
    if any(n < 0 for n in size):
        raise TypeInferenceError(f"the padding is larger than what it is taken off: the output would have sizes {size}")
    dilations = per_axis(attrs, "dilations", rank, 1)
    begins, ends = tuple(p[0] for p in pads), tuple(p[1] for p in pads)
    return Windows(size, tuple(kernel), strides, dilations, begins, ends, tuple(counts))


def _reaches(attrs: Mapping[str, Any], kernel: Sequence[int]) -> list[int]:
    """For each axis, how much one more element of a ConvTranspose's input, the only one, would make of its output."""
    rank = len(kernel)
    extra, dilations = per_axis(attrs, "output_padding", rank, 0), per_axis(attrs, "dilations", rank, 1)
    return [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilations, extra, strict=True)]


# --- sizes that are not known yet -------------------------------------------------------------------------------------


def count_dims(attrs: Mapping[str, Any], size: Sequence[Dim], kernel: Sequence[Dim]) -> tuple[Dim, ...]:
    """The spatial dimensions of the result of a Conv or a pooling, as far as they follow from its image's.

    Raises:
        TypeInferenceError: see `windows_of`.
    """
    rank = len(size)
    strides, dilations = per_axis(attrs, "strides", rank, 1), per_axis(attrs, "dilations", rank, 1)
    pads, ceil_mode = explicit_pads(attrs, rank), bool(attrs.get("ceil_mode"))
    if len(kernel) != rank:
        raise TypeInferenceError(f"the kernel has {len(kernel)} spatial axes, the image {rank}")
    dims: list[Dim] = []
    for axis, (n, k, stride, dilation) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
        if isinstance(n, int) and isinstance(k, int):
            one = None if pads is None else (pads[axis],)
            dims += _windows((n,), (k,), (stride,), (dilation,), one, attrs.get("auto_pad", "NOTSET"), ceil_mode).counts
        elif pads is None:
            dims.append(divide_dims(n, stride))
        elif isinstance(k, int):
            # The count is the floor (or ceiling) of (n + rest) / stride: n / stride where that is exact and rest small.
            rest = sum(pads[axis]) - (k - 1) * dilation - 1 + stride
            small = -stride < rest <= 0 if ceil_mode else 0 <= rest < stride
            dims.append(divide_dims(n, stride) if small else None)
        else:
            dims.append(None)
    return tuple(dims)


def image_dims(attrs: Mapping[str, Any], counts: Sequence[Dim], kernel: Sequence[Dim]) -> tuple[Dim, ...]:
    """The spatial dimensions of the result of a ConvTranspose, as far as they follow from its input's.

    Raises:
        TypeInferenceError: see `transposed_windows`.
    """
    rank = len(counts)
    if len(kernel) != rank:
        raise TypeInferenceError(f"the kernel has {len(kernel)} spatial axes, the image {rank}")
    if attrs.get("output_shape"):
        return per_axis(attrs, "output_shape", rank, 0)
    strides = per_axis(attrs, "strides", rank, 1)
    if attrs.get("auto_pad", "NOTSET") in SAME:
        return tuple(multiply_dims(c, s) for c, s in zip(counts, strides, strict=True))
    dims: list[Dim] = []
    for axis, (count, k, stride) in enumerate(zip(counts, kernel, strides, strict=True)):
        if not isinstance(k, int):
            dims.append(None)
            continue
        mine = {name: _pick(attrs.get(name), axis, rank) for name in ("strides", "dilations", "pads", "output_padding")}
        if isinstance(count, int):
            dims += transposed_windows(mine, (count,), (k,)).size
            continue
        pads = explicit_pads(mine, 1)
        assert pads is not None
        rest = _reaches(mine, (k,))[0] - stride - sum(pads[0])
        dims.append(multiply_dims(count, stride) if rest == 0 else None)
    return tuple(dims)


def _pick(given: Sequence[int] | None, axis: int, rank: int) -> tuple[int, ...] | None:
    return tuple(given[axis::rank]) if given else None


# --- operands ---------------------------------------------------------------------------------------------------------


def spatial_rank(attrs: Mapping[str, Any], *operands: Value | TensorType | None) -> int | None:
    """How many spatial axes there are, by the rank of the first operand that has a known one, else by the attributes."""
    for operand in operands:
        if operand is not None and operand.rank is not None:
            return operand.rank - 2
    for name, share in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2)):
        if attrs.get(name):
            return len(attrs[name]) // share
    return None
