"""Fourier transforms, of whole signals and of their frames.

Complex numbers are real tensors whose last axis holds the real and the imaginary part; a last axis of size 1 says that they
are real. A transform is linear in its signal, so its adjoint is the transform by the conjugate transposed matrix, which is
the other DFT up to a factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, size_operand
from irgrad.ops.index import added_slices
from irgrad.runtime.kernels import accumulation_dtype, deliver, widened
from irgrad.types import Dim, Type

__all__ = ["bin_count", "ops", "size_of"]

ops = OpTable()


def _as_complex(x: np.ndarray) -> np.ndarray:
    """The numbers that a tensor of shape [..., 1] or [..., 2] holds: an array of shape [...], real or complex."""
    if x.shape[-1] == 1:
        return x[..., 0]
    if x.shape[-1] != 2:
        raise ValueError(f"the last axis has {x.shape[-1]} elements; it holds a real number (1) or a complex one (2)")
    return np.ascontiguousarray(x).view(np.result_type(x.dtype, np.complex64))[..., 0]


def _as_pairs(z: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `_as_complex`; numpy 1 transforms in double precision only."""
    if z.dtype.kind != "c":
        return z[..., None].astype(dtype, copy=False)
    return np.ascontiguousarray(z)[..., None].astype(np.result_type(dtype, np.complex64), copy=False).view(dtype)


def _element_of(call: Call, index: int) -> Dim:
    """The one element of an integer operand, as far as it is known."""
    return (call.contents.get(index) or (None,))[0]


def size_of(call: Call, index: int) -> Dim:
    """The size that an integer operand of one element holds, as far as it is known.

    Raises:
        TypeInferenceError: it is negative.
    """
    size = _element_of(call, index)
    if isinstance(size, int) and size < 0:
        raise TypeInferenceError(f"operand {index} of {call.op.qualified_name} is a size, but {size}")
    return size


def bin_count(length: Dim) -> Dim:
    """How many numbers of the transform of a real signal tell all of them; the others are conjugates of these."""
    return length // 2 + 1 if isinstance(length, int) else None


# --- DFT --------------------------------------------------------------------------------------------------------------

dft = ops.define("DFT", cost=costs.fourier)


@dft.kernel
@widened
def _dft(
    x: np.ndarray,
    length: np.ndarray | None = None,
    axis: np.ndarray | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    n = None if length is None else int(length.item())
    along = _signal_axis(-2 if axis is None else int(axis.item()), x.ndim)
    signal = _as_complex(x)
    if onesided and (signal.dtype.kind == "c") != bool(inverse):
        raise ValueError(
            "one-sided transforms are of real signals (a last axis of size 1), their inverses of complex ones (2)"
        )
    if inverse:
        z = (np.fft.irfft if onesided else np.fft.ifft)(signal, n, along)
    else:
        z = (np.fft.rfft if onesided else np.fft.fft)(signal, n, along)
    return deliver(_as_pairs(z, x.dtype), out)


def _signal_axis(axis: int, rank: int) -> int:
    """An axis of a signal of some rank counted from the start."""
    if not -rank <= axis < rank or axis % rank == rank - 1:
        raise ValueError(f"the axis {axis} is none of a signal of rank {rank}, whose last axis holds the complex numbers")
    return axis % rank


@dft.infer
def _dft_type(call: Call) -> Sequence[Type]:
    """What onnx infers too, and symbols."""
    x, inverse, onesided = call.tensor(0), call.attrs["inverse"], call.attrs["onesided"]
    if x.shape is None:
        return [x]
    rank, parts = len(x.shape), x.shape[-1] if x.shape else None
    takes = (1, 2) if not onesided else (2,) if inverse else (1,)
    if rank < 2 or (isinstance(parts, int) and parts not in takes):
        kind = ("one-sided " if onesided else "") + ("inverse " if inverse else "")
        sizes = " or ".join(map(str, takes))
        raise TypeInferenceError(f"the signal of a {kind}DFT has two or more axes, the last of size {sizes}; this is {x}")
    dims = [*x.shape[:-1], 1 if inverse and onesided else 2]
    axis = _element_of(call, 2) if call.has(2) else -2
    if not isinstance(axis, int):
        return [x.with_shape((*(None,) * (rank - 1), dims[-1]))]
    try:
        along = _signal_axis(axis, rank)
    except ValueError as error:
        raise TypeInferenceError(f"in a DFT of {x} {error}") from None
    size = dims[along]
    if call.has(1):
        length = size_of(call, 1)
    elif inverse and onesided:
        length = 2 * (size - 1) if isinstance(size, int) else None
    else:
        length = size
    dims[along] = bin_count(length) if onesided and not inverse else length
    return [x.with_shape(tuple(dims))]


@dft.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | None]:
    """The other DFT of dy times or over the number of points, cut or filled up to the length of the signal.

    A real signal gets the real part. The one-sided transforms are adjoint to each other up to how often they count what.
    """
    x, axis = node.operand(0), _axis(b, node)
    axes = _axes(b, axis)
    size, inverse, onesided = _size_along(b, x, axes), node.attr("inverse"), node.attr("onesided")
    wide = b.cast(dy, accumulation_dtype(dy.dtype))
    if inverse and onesided:
        dx, have = _irfft_adjoint(b, node, wide, size, axis)
    else:
        have = size if node.input(1) is None else size_operand(b, node.operand(1))
        if onesided:
            dx = _rfft_adjoint(b, wide, have, axis)
        else:
            dx = _parts_like(b, b.op("DFT", wide, None, axis, inverse=1 - inverse), x)
            dx = _by_count(b, dx, have, "Div" if inverse else "Mul")
    return [b.cast(_cut_or_filled(b, dx, have, size, axes), dy.dtype)]


def _axis(b: Builder, node: Node) -> Value:
    """The axis of a DFT; told even where it is the default, since onnxruntime (1.32) may crash without it."""
    return b.constant(-2, np.int64) if node.input(2) is None else node.operand(2)


def _axes(b: Builder, axis: Value) -> Value:
    """The axis of a DFT as a value of shape [1]."""
    return join_sizes(b, size_operand(b, axis))


def _size_along(b: Builder, x: Value, axes: Value) -> Size:
    if axes.contents is not None and isinstance(axis := axes.contents[0], int):
        return dim_of(b, x, axis)
    return b.op("Gather", b.shape_of(x), axes)


def _by_count(b: Builder, v: Value, count: Size, op: str) -> Value:
    """A value times or over a number of points."""
    return b.op(op, v, b.scalar(count, v) if isinstance(count, int) else b.cast(count, v.dtype))


def _parts_like(b: Builder, z: Value, x: Value) -> Value:
    """Of complex numbers the real part where x is real."""
    parts = dim_of(b, x, -1)
    return z if parts == 2 else b.op("Slice", z, b.ints([0]), join_sizes(b, parts), b.ints([-1]))


def _cut_or_filled(b: Builder, v: Value, have: Size, want: Size, axes: Value) -> Value:
    """A value of some length along an axis with another one: its beginning, or all of it and zeros."""
    if have is want or have == want:
        return v
    if isinstance(have, int) and isinstance(want, int):
        if want < have:
            return b.op("Slice", v, b.ints([0]), b.ints([want]), axes)
        return b.op("Pad", v, b.ints([0, want - have]), None, axes)
    return b.op("Pad", v, b.op("Concat", b.ints([0]), want - have, axis=0), None, axes)


def _bin_count(b: Builder, length: Size) -> Size:
    return length // 2 + 1 if isinstance(length, int) else b.op("Div", length, 2) + 1


def _rfft_adjoint(b: Builder, dy: Value, length: Size, axis: Value) -> Value:
    """The cotangent of a real signal of some length of whose transform dy is that of the one-sided half."""
    halves = _multiplicities(b, dy, length, _bin_count(b, length), axis, inverse=True)
    return b.op("DFT", dy * halves, as_scalar(b, length), axis, inverse=1, onesided=1)


def _irfft_adjoint(b: Builder, node: Node, dy: Value, size: Size, axis: Value) -> tuple[Value, Size]:
    """The cotangent of a one-sided spectrum of as many numbers as the length of the real signal asks for, and how many."""
    if node.input(1) is None:
        length, bins = 2 * (size - 1), size
    else:
        length = size_operand(b, node.operand(1))
        bins = _bin_count(b, length)
    spectrum = b.op("DFT", dy, as_scalar(b, length), axis, onesided=1)
    return spectrum * _multiplicities(b, dy, length, bins, axis), bins


def _multiplicities(b: Builder, like: Value, length: Size, bins: Size, axis: Value, *, inverse: bool = False) -> Value:
    """What each number of a one-sided spectrum counts for in the signal, over its length; or the reciprocals of that.

    Each stands for itself and its conjugate, but for the first and, where the length is even, the last, whose imaginary
    parts do not count. The axis of the numbers is aligned with an axis of `like`.
    """
    axes = _axes(b, axis)
    behind = _axes_behind(like, axes)
    if isinstance(length, int) and behind is not None:
        k = np.arange(length // 2 + 1)
        counts = np.where((k == 0) | (2 * k == length), 1, 2) / length
        return b.constant((1 / counts if inverse else counts).reshape(-1, *(1,) * behind), like.dtype)
    places = b.op("Range", 0, as_scalar(b, bins), 1)
    alone = b.op("Or", b.op("Equal", places, 0), b.op("Equal", 2 * places, as_scalar(b, length)))
    both, points = b.op("Where", alone, b.scalar(1, like), b.scalar(2, like)), b.cast(as_scalar(b, length), like.dtype)
    vector = points / both if inverse else both / points
    if behind is not None:
        return b.op("Unsqueeze", vector, b.ints(range(1, behind + 1)))
    ones = b.op("ConstantOfShape", b.op("Shape", b.shape_of(like)), value=np.ones(1, np.int64))
    return b.op("Reshape", vector, b.op("ScatterElements", ones, axes, b.ints([-1])))


def _axes_behind(x: Value, axes: Value) -> int | None:
    """How many axes x has behind the one that is transformed, where that can be told."""
    axis = None if axes.contents is None else axes.contents[0]
    if not isinstance(axis, int) or (axis >= 0 and x.rank is None):
        return None
    return -1 - axis if axis < 0 else (x.rank or 0) - 1 - axis


# --- STFT -------------------------------------------------------------------------------------------------------------

stft = ops.define("STFT", cost=costs.short_time_fourier)


def _frames_of(x: np.ndarray, step: int, length: int) -> np.ndarray:
    """A view of x of shape [batch, size, ...] as frames, of shape [batch, frames, ..., length]."""
    if step < 1 or not 1 <= length <= x.shape[1]:
        raise ValueError(f"there are no frames of length {length} and step {step} in a signal of {x.shape[1]} elements")
    return np.lib.stride_tricks.sliding_window_view(x, length, 1)[:, ::step]


@stft.kernel
@widened
def _stft(
    x: np.ndarray,
    step: np.ndarray,
    window: np.ndarray | None = None,
    length: np.ndarray | None = None,
    *,
    onesided: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The one-sided transform of a complex signal, which tells less than all of it, is cut off as other runtimes do."""
    count = int(length.item()) if length is not None else x.shape[1] if window is None else len(window)
    if window is not None and window.shape != (count,):
        raise ValueError(f"the window has the shape {list(window.shape)}, the frames have {count} elements")
    frames = _frames_of(_as_complex(x), int(step.item()), count)
    if window is not None:
        frames = frames * window
    if not onesided:
        z = np.fft.fft(frames)
    else:
        z = np.fft.fft(frames)[..., : count // 2 + 1] if frames.dtype.kind == "c" else np.fft.rfft(frames)
    return deliver(_as_pairs(z, x.dtype), out)


@stft.infer
def _stft_type(call: Call) -> Sequence[Type]:
    """What onnx (1.23) infers too, and symbols, for which it gives up the rank."""
    x = call.tensor(0)
    if x.shape is None:
        return [x.with_shape((None, None, None, 2))]
    if len(x.shape) != 3 or (isinstance(x.shape[2], int) and x.shape[2] not in (1, 2)):
        raise TypeInferenceError(f"the signal of an STFT is {x}, not of shape [batch, size, 1] or [batch, size, 2]")
    batch, size, _ = x.shape
    length = size
    if call.has(2):
        shape = call.tensor(2).shape
        if shape is not None and len(shape) != 1:
            raise TypeInferenceError(f"the window of an STFT is {call.tensor(2)}, not of shape [length]")
        length = None if shape is None else shape[0]
    if call.has(3):
        length = size_of(call, 3)
    bins = bin_count(length) if call.attrs["onesided"] else length
    return [x.with_shape((batch, _frame_count(size, length, size_of(call, 1)), bins, 2))]


def _frame_count(size: Dim, length: Dim, step: Dim) -> Dim:
    if not (isinstance(size, int) and isinstance(length, int) and isinstance(step, int)):
        return None
    if step < 1 or not 1 <= length <= size:
        raise TypeInferenceError(f"there are no frames of length {length} and step {step} in a signal of {size} elements")
    return (size - length) // step + 1


@stft.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | None]:
    """The adjoint DFT of each frame; for the signal windowed and added up, for the window times the signal's frames."""
    x, step, window = node.operand(0), node.operand(1), node.input(2)
    if node.input(3) is not None:
        length = size_operand(b, node.operand(3))
    else:
        length = dim_of(b, x, 1) if window is None else dim_of(b, window, 0)
    wide, axis = b.cast(dy, accumulation_dtype(dy.dtype)), b.constant(-2, np.int64)
    if node.attr("onesided") and x.shape is not None and x.shape[2] == 1:
        frames = _rfft_adjoint(b, wide, length, axis)
    else:
        points = as_scalar(b, length) if node.attr("onesided") else None
        frames = _by_count(b, _parts_like(b, b.op("DFT", wide, points, axis, inverse=1), x), length, "Mul")
    dx = dwindow = None
    if b.needs(x):
        weighted = frames if window is None else frames * b.op("Unsqueeze", b.cast(window, wide.dtype), b.ints([1]))
        dx = b.cast(b.op("irgrad.OverlapAdd", weighted, step, as_scalar(b, dim_of(b, x, 1))), dy.dtype)
    if b.needs(window):
        signal = b.op("irgrad.Frames", b.cast(x, wide.dtype), step, as_scalar(b, length))
        dwindow = b.cast(b.reduce_sum(signal * frames, [0, 1, 3]), dy.dtype)
    return [dx, None, dwindow, None][: len(node.inputs)]


frames = ops.define("Frames", domain=IRGRAD_DOMAIN, cost=costs.moves)
"""``Frames(x, step, length)`` of x of shape [batch, size, parts] → [batch, frames, length, parts]: the slices of x from 0,
step, 2 step, ... on, as long as they are whole."""

overlap_add = ops.define("OverlapAdd", domain=IRGRAD_DOMAIN, cost=costs.per_operand(1))
"""``OverlapAdd(frames, step, size)``: its adjoint, which adds frames up to [batch, size, parts]."""


@frames.kernel
def _frames(x: np.ndarray, step: np.ndarray, length: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(_frames_of(x, int(step.item()), int(length.item())).swapaxes(2, 3), out)


@frames.infer
def _frames_type(call: Call) -> Sequence[Type]:
    x, length = call.tensor(0), size_of(call, 2)
    batch, size, parts = x.shape or (None,) * 3
    return [x.with_shape((batch, _frame_count(size, length, size_of(call, 1)), length, parts))]


@overlap_add.kernel
@widened
def _overlap_add(x: np.ndarray, step: np.ndarray, size: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Stretches of `step` elements, which do not overlap each other, are added for all frames at once."""
    (batch, count, length, parts), hop, total = x.shape, int(step.item()), int(size.item())
    if (total - length) // hop + 1 != count:
        raise ValueError(f"{count} frames of length {length} and step {hop} do not come from {total} elements")
    stretches = -(-length // hop)
    summed = np.zeros((batch, max((count + stretches) * hop, total), parts), x.dtype)
    for start in range(0, length, hop):
        part = x[:, :, start : start + hop]
        target = summed[:, start : start + count * hop].reshape(batch, count, hop, parts)
        target[:, :, : part.shape[2]] += part
    return deliver(summed[:, :total], out)


@overlap_add.infer
def _overlap_add_type(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    batch, _, _, parts = x.shape or (None,) * 4
    return [x.with_shape((batch, size_of(call, 2), parts))]


@frames.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    return [b.op("irgrad.OverlapAdd", dy, node.operand(1), as_scalar(b, dim_of(b, node.operand(0), 1)))]


@overlap_add.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> list[Value | None]:
    return [b.op("irgrad.Frames", dx, node.operand(1), as_scalar(b, dim_of(b, node.operand(0), 2)))]


@frames.lower
def _(b: Builder, node: Node) -> Value:
    x, step, length = node.operand(0), size_operand(b, node.operand(1)), size_operand(b, node.operand(2))
    return b.op("Gather", x, _places(b, dim_of(b, x, 1) - length + 1, step, length), axis=1)


@overlap_add.lower
def _(b: Builder, node: Node) -> Value:
    x, step, size = node.operand(0), size_operand(b, node.operand(1)), size_operand(b, node.operand(2))
    places = _places(b, dim_of(b, x, 1) * step, step, dim_of(b, x, 2))
    return added_slices(b, x, places, join_sizes(b, dim_of(b, x, 0), size, dim_of(b, x, 3)), axis=1)


def _places(b: Builder, end: Size, step: Size, length: Size) -> Value:
    """Where the elements of frames that start before `end` lie in the signal, shape [frames, length]."""
    starts = b.op("Range", 0, as_scalar(b, end), as_scalar(b, step))
    return b.op("Unsqueeze", starts, b.ints([1])) + b.op("Range", 0, as_scalar(b, length), 1)
