"""Fourier transforms beyond single cases: what is refused, what is known of shapes, how many nodes a gradient is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import Shape, TensorType

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def graph_of(op: str, shape: Shape, *operands: Any, dtype: np.dtype = F64, **attrs: Any) -> Graph:
    """One node whose first operand is the input x; the others are constants."""
    graph = Graph(op)
    x = graph.add_input("x", TensorType(dtype, shape))
    graph.set_outputs({"y": Builder(graph).op(op, x, *(None if o is None else np.asarray(o) for o in operands), **attrs)})
    return graph


def backward_ops(graph: Graph) -> list[str]:
    forward = len(graph)
    Vjp(["x"]).run(graph)
    return [n.op.qualified_name for n in graph.nodes()[forward:]]


SHAPES: list[tuple[str, Shape, Sequence[Any], dict[str, Any], Shape]] = [
    ("DFT", ("b", "n", 1), (), {}, ("b", "n", 2)),
    ("DFT", ("b", "n", 1), (7,), {}, ("b", 7, 2)),
    ("DFT", ("b", "n", 1), (7,), {"onesided": 1}, ("b", 4, 2)),
    ("DFT", ("b", "n", 1), (), {"onesided": 1}, ("b", None, 2)),
    ("DFT", ("b", 4, 2), (), {"inverse": 1, "onesided": 1}, ("b", 6, 1)),
    ("DFT", ("b", "n", 2), (None, 0), {}, ("b", "n", 2)),
    ("DFT", None, (), {}, None),
    ("STFT", ("b", 128, 1), (8, None, 16), {}, ("b", 15, 9, 2)),
    ("STFT", ("b", "n", 1), (8, np.ones(16)), {}, ("b", None, 9, 2)),
    ("STFT", ("b", 128, 2), (8, np.ones(16)), {"onesided": 0}, ("b", 15, 16, 2)),
    ("STFT", None, (8,), {}, (None, None, None, 2)),
]


@pytest.mark.parametrize(("op", "shape", "operands", "attrs", "expected"), SHAPES)
def test_shapes(op: str, shape: Shape, operands: Sequence[Any], attrs: dict[str, Any], expected: Shape) -> None:
    assert graph_of(op, shape, *operands, **attrs).outputs["y"].shape == expected


def test_a_window_is_as_long_as_its_size_says() -> None:
    graph = Graph("window")
    x = graph.add_input("x", TensorType(F32, ("n", 3)))
    b = Builder(graph)
    assert b.op("HannWindow", b.op("Squeeze", b.op("Shape", x, end=1))).shape == ("n",)


REFUSED: list[tuple[str, Shape, Sequence[Any], dict[str, Any], str]] = [
    ("DFT", (2, 6, 2), (), {"onesided": 1}, "one-sided DFT has two or more axes, the last of size 1"),
    ("DFT", (2, 6, 1), (), {"onesided": 1, "inverse": 1}, "the last of size 2"),
    ("DFT", (2, 6, 3), (), {}, "the last of size 1 or 2"),
    ("DFT", (2,), (), {}, "two or more axes"),
    ("DFT", (2, 6, 2), (None, 2), {}, "the axis 2 is none of a signal of rank 3"),
    ("DFT", (2, 6, 2), (None, -1), {}, "the axis -1"),
    ("DFT", (2, 6, 2), (-4,), {}, "operand 1 of DFT is a size, but -4"),
    ("STFT", (2, 6), (2,), {}, r"not of shape \[batch, size, 1\]"),
    ("STFT", (2, 6, 3), (2,), {}, r"not of shape \[batch, size, 1\]"),
    ("STFT", (2, 6, 1), (0, None, 3), {}, "there are no frames of length 3 and step 0"),
    ("STFT", (2, 6, 1), (1, None, 7), {}, "there are no frames of length 7"),
    ("STFT", (2, 6, 1), (1, np.ones((1, 4))), {}, r"the window of an STFT is f64\[1,4\]"),
]


@pytest.mark.parametrize(("op", "shape", "operands", "attrs", "message"), REFUSED)
def test_what_does_not_fit_is_refused(
    op: str, shape: tuple[int, ...], operands: Sequence[Any], attrs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        graph_of(op, shape, *operands, **attrs)


@pytest.mark.parametrize(
    ("op", "shape", "operands", "attrs", "message"),
    [
        ("DFT", (2, 6, 2), (), {"onesided": 1}, "one-sided"),
        ("DFT", (2, 6, 1), (), {"onesided": 1, "inverse": 1}, "one-sided"),
        ("DFT", (2, 6, 3), (), {}, "the last of size 1 or 2"),
        ("STFT", (2, 6, 1), (1, None, 7), {}, "there are no frames of length 7"),
        ("STFT", (2, 6, 1), (1, np.ones(3), 4), {}, r"the window has the shape \[3\], the frames have 4 elements"),
    ],
)
def test_what_does_not_fit_is_refused_at_run_time(
    op: str, shape: tuple[int, ...], operands: Sequence[Any], attrs: dict[str, Any], message: str
) -> None:
    graph = Graph(op)
    x = graph.add_input("x", TensorType(F64, None))
    length = [graph.add_input("length", TensorType(np.dtype(np.int64), ()))] if len(operands) == 3 else []
    b = Builder(graph)
    rest = [None if o is None else np.asarray(o) for o in operands[:2]]
    graph.set_outputs({"y": b.op(op, x, *rest, *length, **attrs)})
    feeds = {"x": np.ones(shape), "length": np.array(operands[2])} if length else {"x": np.ones(shape)}
    with pytest.raises((ExecutionError, TypeInferenceError), match=message):
        compile(graph)(feeds)


def test_gradients_are_few_nodes() -> None:
    assert backward_ops(graph_of("DFT", (2, 6, 2))) == ["DFT", "Mul"]
    assert backward_ops(graph_of("DFT", (2, 6, 2), inverse=1)) == ["DFT", "Div"]
    assert backward_ops(graph_of("DFT", (2, 6, 1), onesided=1)) == ["Mul", "DFT"]
    assert backward_ops(graph_of("DFT", (2, 4, 2), inverse=1, onesided=1)) == ["DFT", "Mul"]
    assert backward_ops(graph_of("DFT", (2, 6, 2), 8)) == ["DFT", "Mul", "Slice"]
    assert backward_ops(graph_of("DFT", (2, 6, 2), 3)) == ["DFT", "Mul", "Pad"]
    assert backward_ops(graph_of("STFT", (2, 9, 1), 2, None, 4)) == ["Mul", "DFT", "irgrad.OverlapAdd"]


@pytest.mark.parametrize("attrs", [{}, {"inverse": 1}, {"inverse": 1, "onesided": 1}], ids=["plain", "inverse", "irfft"])
def test_a_signal_of_unknown_rank_along_an_axis_that_is_fed(attrs: dict[str, Any]) -> None:
    graph = Graph("dft")
    x, axis = graph.add_input("x", TensorType(F64, None)), graph.add_input("axis", TensorType(np.dtype(np.int64), ()))
    graph.set_outputs({"y": Builder(graph).op("DFT", x, np.array(5), axis, **attrs)})
    for position in (0, 1, -2):
        feeds = {"x": np.random.default_rng(0).standard_normal((4, 3, 6, 2)), "axis": np.array(position)}
        check_grads(graph, feeds, ["x"])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits(dtype: Any) -> None:
    """The sums are formed in float32: 3,000 ones add up to 3,000, beyond what bfloat16 can count one by one."""
    graph = graph_of("DFT", (3000, 1), dtype=np.dtype(dtype), onesided=1)
    Vjp(["x"]).run(graph)
    feeds = {"x": np.ones((3000, 1), dtype), "y_cotangent": np.ones((1501, 2), dtype)}
    found = compile(graph)(feeds)
    assert found["y"].dtype == found["x_grad"].dtype == dtype
    assert found["y"][0, 0] == np.array(3000, dtype)
    exact = np.fft.ifft(np.full(1501, 1 + 1j), 3000).real * 3000
    np.testing.assert_allclose(found["x_grad"][:, 0].astype(float), exact, rtol=0.01, atol=0.05)


def test_a_mel_spectrogram_of_a_signal_of_any_length() -> None:
    graph = Graph("mel")
    signal = graph.add_input("signal", TensorType(F32, ("batch", "time", 1)))
    with Builder(graph) as b:
        spectrum = b.op("STFT", signal, np.array(4), b.op("HannWindow", np.array(16)))
        power = b.op("ReduceSumSquare", spectrum, b.ints([3]), keepdims=0)
        edges = [np.array(edge, np.float32) for edge in (0, 4000)]
        mel = b.op("MelWeightMatrix", np.array(5), np.array(16), np.array(8000), *edges)
        graph.set_outputs({"y": b.op("Log", power @ mel + 1.0)})
    for length in (16, 27):
        check_grads(graph, {"signal": np.random.default_rng(1).standard_normal((2, length, 1)).astype(np.float32)})
