"""What Fourier transforms are used with: windows, and the weights of the mel scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.op import ZERO, Call, Kernel, OpTable
from irgrad.ops.fourier import bin_count, size_of
from irgrad.runtime.kernels import deliver
from irgrad.types import Dim, TensorType, Type, dtype_name, dtype_of_element, is_differentiable

ops = OpTable()

# --- windows ----------------------------------------------------------------------------------------------------------


def _sum_of_cosines(a0: float, a1: float, a2: float) -> Kernel:
    """The window ``a0 - a1 cos(2 pi k / n) + a2 cos(4 pi k / n)`` for k in range(size).

    n is the size if the window is periodic, else the size − 1: a symmetric window of a single element is 0 / 0, NaN, as the
    operation's function body says.

    Source: the ONNX operator specification, BlackmanWindow, HammingWindow and HannWindow (version 17).
    """

    def kernel(
        size: np.ndarray, *, periodic: int = 1, output_datatype: int = 1, out: np.ndarray | None = None
    ) -> np.ndarray:
        count = _count(size)
        angle = np.arange(count) * (2 * np.pi / np.float64(count if periodic else count - 1))
        window = a0 - a1 * np.cos(angle) + a2 * np.cos(2 * angle)
        return deliver(window.astype(dtype_of_element(output_datatype), copy=False), out)

    return kernel


def _count(operand: np.ndarray) -> int:
    number = int(operand.item())
    if number < 0:
        raise ValueError(f"{number} is no number of elements")
    return number


def _output_type(call: Call, *shape: Dim) -> Sequence[Type]:
    """What onnx infers too, and symbols."""
    dtype = dtype_of_element(call.attrs["output_datatype"])
    if dtype.kind not in "iu" and not is_differentiable(dtype):
        raise TypeInferenceError(f"{call.op.name} has numbers for its results, not output_datatype {dtype_name(dtype)}")
    return [TensorType(dtype, shape)]


def _window_type(call: Call) -> Sequence[Type]:
    return _output_type(call, size_of(call, 0))


for name, terms in {
    "BlackmanWindow": (0.42, 0.5, 0.08),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "HannWindow": (0.5, 0.5, 0.0),
}.items():
    ops.define(name, kernel=_sum_of_cosines(*terms), gradient=ZERO).infer(_window_type)


# --- the mel scale ----------------------------------------------------------------------------------------------------

mel_weight_matrix = ops.define("MelWeightMatrix", gradient=ZERO)
"""The edges, its only operands of floats, are rounded down to whole bins: the gradient is 0 almost everywhere."""


@mel_weight_matrix.kernel
def _mel_weight_matrix(
    num_mel_bins: np.ndarray,
    dft_length: np.ndarray,
    sample_rate: np.ndarray,
    lower_edge_hertz: np.ndarray,
    upper_edge_hertz: np.ndarray,
    *,
    output_datatype: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """One triangle per column, which rises from one edge to the next, where it is 1, and falls to the one after that.

    The edges are evenly spaced on the mel scale; mel(f) = 2595 log10(1 + f / 700).

    Source: the ONNX operator specification, MelWeightMatrix (version 17), and its reference implementation, which says how
    many steps there are and that they are rounded down.
    """
    count, length, rate = (_count(v) for v in (num_mel_bins, dft_length, sample_rate))
    low, high = (2595 * np.log10(1 + float(v.item()) / 700) for v in (lower_edge_hertz, upper_edge_hertz))
    mels = low + np.arange(count + 2) * ((high - low) / (count + 2))
    edges = np.floor((length + 1) * 700 * (10 ** (mels / 2595) - 1) / rate)
    first, middle, last = edges[:-2], edges[1:-1], edges[2:]
    k = np.arange(length // 2 + 1)[:, None]
    rising = (k - first) / np.maximum(middle - first, 1)
    falling = (last - k) / np.maximum(last - middle, 1)
    weights = np.select([k == middle, (first <= k) & (k < middle), (middle < k) & (k < last)], [1.0, rising, falling])
    return deliver(weights.astype(dtype_of_element(output_datatype), copy=False), out)


@mel_weight_matrix.infer
def _mel_weight_matrix_type(call: Call) -> Sequence[Type]:
    return _output_type(call, bin_count(size_of(call, 1)), size_of(call, 0))
