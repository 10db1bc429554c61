"""Type inference: shapes with symbols in them, shapes under construction, and operands that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irgrad.builder import Builder
from irgrad.contents import slice_range
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph, Value
from irgrad.runtime import compile
from irgrad.types import Dim, Shape, TensorType

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
FAR = 2**63 - 1


class Bench(Builder):
    """A builder on a graph of its own, for one test."""

    def __init__(self) -> None:
        super().__init__(Graph())

    def tensor(self, *shape: Dim) -> Value:
        return self.graph.add_input(self.graph.fresh_name("x"), TensorType(F32, shape))

    def size(self, value: Value, axis: int) -> Value:
        """One size of a tensor, as exporters read it: a Gather from the Shape."""
        return self.op("Gather", self.op("Shape", value), np.array(axis))

    def shape(self, *sizes: Value | int) -> Value:
        """A shape put together as exporters do: each size unsqueezed, then a Concat."""
        parts = [
            self.op("Unsqueeze", size, self.ints([0])) if isinstance(size, Value) else self.ints([size]) for size in sizes
        ]
        return self.op("Concat", *parts, axis=0)


@pytest.fixture
def b() -> Bench:
    return Bench()


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_reshape_keeps_the_names_of_sizes(b: Bench) -> None:
    x = b.tensor("batch", "seq", 12)
    batch, seq = b.size(x, 0), b.size(x, 1)
    heads = b.op("Reshape", x, b.shape(batch, seq, 3, 4))
    assert heads.shape == ("batch", "seq", 3, 4)
    swapped = b.op("Transpose", heads, perm=(0, 2, 1, 3))
    assert swapped.shape == ("batch", 3, "seq", 4)
    merged = b.op("Reshape", swapped, b.shape(b.op("Mul", batch, b.constant(3, np.int64)), seq, 4))
    assert merged.shape == ("3*batch", "seq", 4)


RESHAPES: list[tuple[Shape, list[int], dict[str, int], Shape]] = [
    ((2, 3, 4), [-1, 6], {}, (4, 6)),
    (("N", 3, 4), [-1, 12], {}, ("N", 12)),
    (("N", 3, 4), [-1, 4], {}, ("3*N", 4)),
    (("N", 3, 4), [-1], {}, ("12*N",)),
    (("N", 3, 4), [0, -1], {}, ("N", 12)),
    (("N", "M", 4), [0, 0, -1], {}, ("N", "M", 4)),
    (("N", "M", 4), [0, -1], {}, ("N", "4*M")),
    (("N", 3), [-1, 2], {}, (None, 2)),
    ((None, 3), [0, -1], {}, (None, 3)),
    ((0, 3), [3, 0], {"allowzero": 1}, (3, 0)),
    ((0, 3), [0, 3], {}, (0, 3)),
]


@pytest.mark.parametrize(("shape", "target", "attrs", "expected"), RESHAPES, ids=str)
def test_reshape(b: Bench, shape: tuple[Dim, ...], target: list[int], attrs: dict[str, int], expected: Shape) -> None:
    assert b.op("Reshape", b.tensor(*shape), b.ints(target), **attrs).shape == expected


def test_reshape_resolves_the_rest_by_symbols(b: Bench) -> None:
    x = b.tensor("batch", "seq", 12)
    assert b.op("Reshape", x, b.shape(b.size(x, 0), -1, 12)).shape == ("batch", "seq", 12)
    assert b.op("Reshape", x, b.shape(-1, b.size(x, 1), 6)).shape == ("2*batch", "seq", 6)


SLICES: list[tuple[Dim, int | str, int | str, int, Dim]] = [
    (7, 1, -1, 1, 5),
    (7, 0, FAR, 2, 4),
    (7, -1, -FAR, -1, 7),
    (7, 5, 1, -2, 2),
    (7, -99, -100, -1, 1),
    (0, 0, FAR, 1, 0),
    (0, -1, -FAR, -1, 0),
    ("N", 0, FAR, 1, "N"),
    ("N", 0, 2**31 - 1, 1, "N"),
    ("N", 0, "N", 1, "N"),
    ("N", -1, -FAR, -1, "N"),
    ("N", FAR, -FAR, -1, "N"),
    ("N", 1, FAR, 1, None),
    ("N", 0, "M", 1, None),
    (7, 0, "M", 1, None),
    ("N", 0, FAR, 2, None),
]


@pytest.mark.parametrize(("size", "start", "end", "step", "expected"), SLICES, ids=str)
def test_slice(b: Bench, size: Dim, start: int | str, end: int | str, step: int, expected: Dim) -> None:
    x = b.tensor(size, 3)
    bounds = [
        b.ints([bound]) if isinstance(bound, int) else b.op("Shape", b.tensor(bound), start=0, end=1)
        for bound in (start, end)
    ]
    assert b.op("Slice", x, *bounds, b.ints([0]), b.ints([step])).shape == (expected, 3)
    assert b.op("Slice", x, *bounds, b.ints([-2]), b.ints([step])).shape == (expected, 3)


@given(
    st.integers(0, 6),
    st.integers(-9, 9) | st.just(FAR) | st.just(-FAR),
    st.integers(-9, 9) | st.just(FAR) | st.just(-FAR),
    st.sampled_from([-3, -2, -1, 1, 2, 3]),
)
def test_slices_keep_what_onnx_says(size: int, start: int, end: int, step: int) -> None:
    b = Bench()
    kept = slice_range(start, end, step, size)
    assert all(0 <= k < size for k in kept)
    # No refinement can hide onnx's own answer here: it comes first where it knows the number.
    (found,) = b.op("Slice", b.tensor(size), *(b.ints([n]) for n in (start, end, 0, step))).shape or ()
    assert found == len(kept)


def test_expand_and_tile(b: Bench) -> None:
    x, one = b.tensor("batch", "seq", 4), b.tensor(1, 4)
    assert b.op("Expand", one, b.op("Shape", x)).shape == ("batch", "seq", 4)
    assert b.op("Expand", x, b.ints([5, 1, 1, 1])).shape == (5, "batch", "seq", 4)
    assert b.op("Expand", b.tensor("N", 4), b.ints([3, 1])).shape == (3, 4)
    assert b.op("Expand", b.tensor("N", 4), b.shape(b.size(x, 0), 4)).shape == (None, 4)
    assert b.op("Tile", x, b.ints([1, 2, 3])).shape == ("batch", "2*seq", 12)
    assert b.op("Tile", one, b.shape(b.size(x, 0), 2)).shape == ("batch", 8)


def test_what_joins_and_cuts(b: Bench) -> None:
    x, y = b.tensor("N", 4, 6), b.tensor("N", 4, 6)
    assert b.op("Concat", x, y, axis=0).shape == ("2*N", 4, 6)
    assert b.op("Concat", x, b.tensor("N", None, 6), axis=-1).shape == ("N", 4, 12)
    assert b.op("Concat", x, b.tensor("M", 4, 6), axis=0).shape == (None, 4, 6)
    halves = b.multi("Split", b.op("Concat", x, y, axis=0), outputs=2, num_outputs=2, axis=0)
    assert [half.shape for half in halves] == [("N", 4, 6)] * 2
    parts = b.multi("Split", b.tensor(None, 4), b.shape(b.size(x, 0), 3), outputs=2)
    assert [part.shape for part in parts] == [("N", 4), (3, 4)]
    assert b.op("Flatten", x, axis=2).shape == ("4*N", 6)
    assert b.op("Pad", x, b.ints([1, 2]), None, b.ints([-1])).shape == ("N", 4, 9)
    assert b.op("Pad", x, b.ints([0, -1, 0, 0, 0, 2])).shape == ("N", 3, 8)
    assert b.op("Pad", x, b.ints([1, 0, 0, 0, 0, 0])).shape == (None, 4, 6)
    image = b.tensor("N", 8, "H", 6)
    assert b.op("DepthToSpace", image, blocksize=2).shape == ("N", 2, "2*H", 12)
    assert b.op("SpaceToDepth", b.op("DepthToSpace", image, blocksize=2), blocksize=2).shape == ("N", 8, "H", 6)


def test_what_is_made_of_sizes(b: Bench) -> None:
    x = b.tensor("batch", "seq")
    assert b.op("ConstantOfShape", b.op("Shape", x)).shape == ("batch", "seq")
    assert b.op("Range", 0, b.size(x, 1), 1).shape == ("seq",)
    assert b.op("Range", 2, b.size(x, 1), 1).shape == (None,)


def test_ranges_of_floats_have_as_many_elements_as_they_are_given_types_for(b: Bench) -> None:
    bounds = [np.array(bound, np.float32) for bound in (0.6824977, 0.18249767, -0.1)]  # onnx's inference says 5
    found = b.op("Range", *bounds)
    b.graph.set_outputs({"y": found})
    assert found.shape == compile(b.graph)({})["y"].shape == (6,)


# --- contents ---------------------------------------------------------------------------------------------------------

N: Dim = "N"
CONTENTS: list[tuple[str, Callable[[Bench, Value], Value], Sequence[Dim] | None]] = [
    ("shape", lambda b, s: s, (N, "M", 6)),
    ("gather", lambda b, s: b.op("Gather", s, np.array([-1, 0])), (6, N)),
    ("gather-one", lambda b, s: b.op("Gather", s, np.array(1)), ("M",)),
    ("slice", lambda b, s: b.op("Slice", s, b.ints([0]), b.ints([-1])), (N, "M")),
    ("slice-reversed", lambda b, s: b.op("Slice", s, b.ints([-1]), b.ints([-FAR]), b.ints([0]), b.ints([-1])), (6, "M", N)),
    ("concat", lambda b, s: b.op("Concat", s, b.ints([-1]), axis=0), (N, "M", 6, -1)),
    (
        "concat-unknown",
        lambda b, s: b.op("Concat", b.graph.add_input("u", TensorType(I64, (1,))), s, axis=0),
        (None, N, "M", 6),
    ),
    ("squeeze", lambda b, s: b.op("Squeeze", b.op("Slice", s, b.ints([1]), b.ints([2])), b.ints([0])), ("M",)),
    ("split", lambda b, s: b.multi("Split", s, b.ints([1, 2]), outputs=2)[1], ("M", 6)),
    ("cast", lambda b, s: b.op("Cast", s, to=6), (N, "M", 6)),
    ("cast-to-bool", lambda b, s: b.op("Cast", s, to=9), (None, None, 1)),
    ("cast-to-few-bits", lambda b, s: b.op("Cast", b.op("Mul", s, b.ints([1, 1, 50])), to=3), (None, None, None)),
    ("add", lambda b, s: b.op("Add", s, s), ("2*N", "2*M", 12)),
    ("add-number", lambda b, s: b.op("Add", s, b.ints([0, 1, 2])), (N, None, 8)),
    ("sub", lambda b, s: b.op("Sub", s, s), (0, 0, 0)),
    ("sub-number", lambda b, s: b.op("Sub", s, b.ints([0, 1, 2])), (N, None, 4)),
    ("mul", lambda b, s: b.op("Mul", s, b.op("Gather", s, np.array(1))), ("M*N", "M*M", "6*M")),
    ("mul-negative", lambda b, s: b.op("Mul", s, b.ints([-1])), (None, None, -6)),
    ("div", lambda b, s: b.op("Div", b.op("Mul", s, b.ints([4])), b.ints([2])), ("2*N", "2*M", 12)),
    ("div-inexact", lambda b, s: b.op("Div", s, b.ints([2, 1, 4])), (None, "M", 1)),
    ("div-negative", lambda b, s: b.op("Div", b.op("Neg", s), b.ints([4])), (None, None, -1)),
    ("div-by-0", lambda b, s: b.op("Div", s, b.ints([0])), (None, None, None)),
    ("max", lambda b, s: b.op("Max", s, b.ints([0, 1, 9]), b.ints([-1])), (N, None, 9)),
    ("min", lambda b, s: b.op("Min", s, b.ints([0, 1, 9])), (0, None, 6)),
    ("neg", lambda b, s: b.op("Neg", s), (None, None, -6)),
    ("equal", lambda b, s: b.op("Equal", s, b.ints([-1, 1, 6])), (0, None, 1)),
    ("prod", lambda b, s: b.op("ReduceProd", s, keepdims=1), ("6*M*N",)),
    ("prod-over-axis-0", lambda b, s: b.op("ReduceProd", s, b.ints([0]), keepdims=0), ("6*M*N",)),
    ("filled", lambda b, s: b.op("ConstantOfShape", b.op("Shape", s), value=np.array([7])), (7, 7, 7)),
    ("range", lambda b, s: b.op("Range", 1, b.op("Gather", s, np.array(2)), 2), (1, 3, 5)),
    ("expand", lambda b, s: b.op("Expand", b.op("Slice", s, b.ints([0]), b.ints([1])), b.ints([2])), (N, N)),
    ("tile", lambda b, s: b.op("Tile", b.op("Slice", s, b.ints([1]), b.ints([3])), b.ints([2])), ("M", 6, "M", 6)),
    (
        "one-hot",
        lambda b, s: b.op("OneHot", b.ints([1, -1]), np.array(3), b.op("Slice", s, b.ints([0]), b.ints([2]))),
        (N, "M", N, N, N, "M"),
    ),
    ("rows", lambda b, s: b.op("Reshape", s, b.ints([3, 1])), (N, "M", 6)),
    (
        "transposed",
        lambda b, s: b.op("Transpose", b.op("Reshape", b.op("Concat", s, s, axis=0), b.ints([2, 3])), perm=(1, 0)),
        (N, N, "M", "M", 6, 6),
    ),
    ("shape-of-unknown", lambda b, s: b.op("Shape", b.graph.add_input("u", TensorType(F32, None))), None),
]


@pytest.mark.parametrize(("build", "expected"), [c[1:] for c in CONTENTS], ids=[c[0] for c in CONTENTS])
def test_contents(b: Bench, build: Callable[[Bench, Value], Value], expected: tuple[Dim, ...] | None) -> None:
    assert build(b, b.op("Shape", b.tensor("N", "M", 6))).contents == expected


def test_large_tensors_are_not_followed(b: Bench) -> None:
    assert b.op("Range", 0, 65, 1).contents is None
    assert b.constant(np.arange(65)).contents is None
    assert b.constant(np.arange(64).reshape(8, 8)).contents == tuple(range(64))
    assert b.op("Tile", b.ints([1, 2]), b.ints([33])).contents is None


def test_expand_as_torch_exports_it(b: Bench) -> None:
    """A size of -1 means "as it is", which the exporter spells Where(Equal(sizes, -1), ones, sizes)."""
    x, like = b.tensor("batch", 1, 4), b.tensor("batch", "seq", 4)
    sizes = b.shape(b.size(like, 0), b.size(like, 1), -1)
    ones = b.op("ConstantOfShape", b.op("Shape", sizes), value=np.array([1]))
    asked = b.op("Where", b.op("Equal", sizes, b.op("Mul", ones, b.constant(-1, np.int64))), ones, sizes)
    assert asked.contents == ("batch", "seq", 1)
    assert b.op("Expand", x, asked).shape == ("batch", "seq", 4)


def test_pads_as_torch_exports_them(b: Bench) -> None:
    """Numbers of the last axis first, which the exporter turns round as a matrix of two columns."""
    pads = b.op("Concat", b.ints([1, 2, 3, 4]), b.op("ConstantOfShape", b.ints([4]), value=np.array([0])), axis=0)
    rows = b.op("Reshape", pads, b.ints([-1, 2]))
    turned = b.op("Slice", rows, b.ints([-1]), b.ints([-FAR]), b.ints([0]), b.ints([-1]))
    pads = b.op("Cast", b.op("Reshape", b.op("Transpose", turned, perm=(1, 0)), b.ints([-1])), to=7)
    assert pads.contents == (0, 0, 3, 1, 0, 0, 4, 2)
    assert b.op("Pad", b.tensor("batch", 3, 8, 8), pads).shape == ("batch", 3, 15, 11)


# --- operands that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [(0,), (1,), (0, 1)])
def test_float64_where_an_operation_has_shorter_floats_only(b: Bench, mixed: Sequence[int]) -> None:
    """All operands that have to be of one dtype are in float64, or none is."""
    shapes, dtypes = [(1, 2, 5), (2, 1, 3)], [np.float64 if k in mixed else np.float32 for k in range(2)]
    operands = [b.graph.add_input(f"x{k}", TensorType(np.dtype(dtypes[k]), shapes[k])) for k in range(2)]
    if len(mixed) == 2:
        assert {y.dtype for y in b.multi("CausalConvWithState", *operands, outputs=2)} == {np.dtype(np.float64)}
    else:
        with pytest.raises(TypeInferenceError, match="operand 1 of CausalConvWithState, 'weight', is"):
            b.multi("CausalConvWithState", *operands, outputs=2)


def test_dtypes_that_an_operation_does_not_have(b: Bench) -> None:
    """Operations that tell their types themselves are held to their schemas as well."""
    whole = b.graph.add_input("whole", TensorType(I64, (2, 6, 1)))
    with pytest.raises(
        TypeInferenceError, match=r"operand 0 of DFT, 'input', is i64\[2,6,1\], but has to be of bf16 or f16"
    ):
        b.op("DFT", whole)
    with pytest.raises(TypeInferenceError, match=r"operand 1 of DFT, 'dft_length', is f32\[\], but has to be of i32 or i64"):
        b.op("DFT", b.tensor(2, 6, 1), b.tensor())


def test_operands_that_are_missing(b: Bench) -> None:
    with pytest.raises(TypeInferenceError, match="GridSample lacks its operand 1, 'grid'"):
        b.op("GridSample", b.tensor(1, 1, 3, 3))
    with pytest.raises(TypeInferenceError, match=r"irgrad.Frames\(f32\[2,6\]\) does not type-check"):
        b.op("irgrad.Frames", b.tensor(2, 6))


@pytest.mark.parametrize(
    ("op", "operands", "attrs"),
    [
        ("LayerNormalization", 2, {"stash_type": 99}),
        ("QuantizeLinear", 2, {"output_dtype": 99}),
        ("SequenceEmpty", 0, {"dtype": 99}),
        ("EyeLike", 1, {"dtype": 99}),
    ],
)
def test_element_types_that_do_not_exist(b: Bench, op: str, operands: int, attrs: dict[str, Any]) -> None:
    with pytest.raises(TypeInferenceError):
        b.op(op, *(b.tensor(3, 3) if k == 0 else b.tensor() for k in range(operands)), **attrs)


WRONG: list[tuple[str, list[Shape], list[Any], dict[str, Any]]] = [
    ("Reshape", [(3, 4)], [[3, 5]], {}),
    ("Reshape", [(3, 4)], [[5, -1]], {}),
    ("Reshape", [(3, 4)], [[-1, -1]], {}),
    ("Reshape", [(3, 4)], [[0, -1]], {"allowzero": 1}),
    ("Reshape", [(3, 4)], [[1, 1, 0]], {}),
    ("Expand", [("N", 4)], [[3, 5]], {}),
    ("Tile", [("N", 4)], [[2]], {}),
    ("Slice", [("N", 4)], [[0], [2], [5]], {}),
    ("Slice", [("N", 4)], [[0], [2], [0], [0]], {}),
    ("Slice", [("N", 4)], [[0, 1], [2]], {}),
    ("Concat", [("N", 4), ("N", 5)], [], {"axis": 0}),
    ("Concat", [("N", 4), ("N",)], [], {"axis": 0}),
    ("Split", [("N", 4)], [[1, 1]], {"axis": 1, "outputs": 2}),
    ("Split", [("N", 4)], [], {"axis": 1, "num_outputs": 3, "outputs": 2}),
    ("Split", [("N", 1)], [], {"axis": 1, "num_outputs": 3, "outputs": 3}),
    ("Squeeze", [("N", 4)], [[1]], {}),
    ("Unsqueeze", [("N", 4)], [[0, 0]], {}),
    ("Transpose", [("N", 4)], [], {"perm": (0, 0)}),
    ("Flatten", [("N", 4)], [], {"axis": 3}),
    ("Pad", [("N", 4)], [[1, 1]], {}),
    ("Pad", [("N", 4)], [[-2, -3], None, [1]], {}),
    ("DepthToSpace", [("N", 6, 2, 2)], [], {"blocksize": 4}),
    ("SpaceToDepth", [("N", 6, 3, 2)], [], {"blocksize": 2}),
    ("Gather", [("N", 4)], [[0]], {"axis": 2}),
    ("GatherElements", [("N", 4)], [[0]], {}),
    ("GatherND", [("N", 4)], [[[0, 1, 2]]], {}),
    ("TopK", [("N", 4)], [[9]], {"outputs": 2}),
    ("Trilu", [("N",)], [], {}),
    ("Range", [], [0, 3, 0], {}),
    ("Range", [], [0, 3, 0.5], {}),
]


@pytest.mark.parametrize(("name", "shapes", "numbers", "attrs"), WRONG, ids=str)
def test_wrong_operands(b: Bench, name: str, shapes: list[Shape], numbers: list[Any], attrs: dict[str, Any]) -> None:
    operands = [*(b.tensor(*(shape or ())) for shape in shapes), *(n if n is None else np.array(n) for n in numbers)]
    before = len(b.graph)
    with pytest.raises(TypeInferenceError):
        b.multi(name, *operands, **{"outputs": 1, **attrs})
    assert len(b.graph) == before


def test_lengths_of_partly_known_operands_are_checked(b: Bench) -> None:
    x = b.tensor("N", 4)
    some = b.shape(b.size(x, 0))
    with pytest.raises(TypeInferenceError, match="operand 1 of Tile has 1 elements, but 2 are needed"):
        b.op("Tile", x, some)
    with pytest.raises(TypeInferenceError, match="operand 2 of Slice has 1 elements, but 2 are needed"):
        b.op("Slice", x, b.ints([0, 0]), some, b.ints([0, 1]))
    with pytest.raises(TypeInferenceError, match="operand 1 of Pad has 1 elements, but 4 are needed"):
        b.op("Pad", x, some)


def test_int32_axes_of_a_pad(b: Bench) -> None:
    assert b.op("Pad", b.tensor("N", 4), b.ints([1, 1]), None, np.array([1], np.int32)).shape == ("N", 6)


def test_resize_to_sizes_that_are_symbols(b: Bench) -> None:
    x, like = b.tensor("N", 3, 8, 8), b.tensor("N", 3, "H", "W")
    assert b.op("Resize", x, None, None, b.op("Shape", like)).shape == ("N", 3, "H", "W")
    size = b.op("Slice", b.op("Shape", like), b.ints([2]), b.ints([4]))
    assert b.op("Resize", x, None, None, size, axes=(2, 3)).shape == ("N", 3, "H", "W")
    assert b.op("Resize", x, None, None, size, axes=(-1, 2)).shape == ("N", 3, "W", "H")
    kept = b.op("Resize", x, None, None, size, axes=(2, 3), keep_aspect_ratio_policy="not_larger")
    assert kept.shape is None or kept.shape[2:] == (None, None)


def test_an_answer_is_remembered_for_attributes_of_one_kind(b: Bench) -> None:
    x = b.tensor(2, 3)
    assert b.op("LeakyRelu", x, alpha=1.0).shape == (2, 3)
    with pytest.raises(TypeInferenceError):
        b.op("LeakyRelu", x, alpha=1)
