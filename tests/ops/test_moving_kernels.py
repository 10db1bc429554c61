"""Kernels that mostly move memory, at sizes that matter: they allocate nothing, and compiled forms agree with numpy's."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irgrad.errors import ExecutionError
from irgrad.op import Kernel
from irgrad.runtime import fast, threads
from irgrad.runtime.kernels import results_of
from tests.ops.harness import Case, rng
from tests.ops.test_ops import names
from tests.ops.test_out import bound, garbage, run, workspace

LIMIT = 8192  # bytes that a call may allocate: for views, numbers, and what numpy's indexing takes whatever the sizes are


def floats(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return rng(seed).standard_normal(shape).astype(dtype)


def indices(high: int, *shape: int, low: int = 0) -> np.ndarray:
    return rng(1).integers(low, high, shape)


def sizes(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


IMAGES = floats(4, 16, 34, 30)
COARSE = floats(4, 16, 17, 15)
POOL = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
POOLED = {"kernel_shape": (2, 2), "strides": (2, 2)}
LABELS, SCORES = indices(300, 1400), floats(1400, 300)
UPSAMPLED = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


def max_places(x: np.ndarray, column_major: int = 0) -> np.ndarray:
    """The Indices of a MaxPool."""
    return bind_and_run(Case("MaxPool", [x], {**POOL, "storage_order": column_major}, outputs=2))[1]


def bind_and_run(case: Case) -> tuple[np.ndarray, ...]:
    with fast.using(False):
        kernel = bound(case)
    return results_of(kernel(*case.operands()), case.outputs)


def ties(*shape: int) -> np.ndarray:
    """Numbers many of which are equal, infinite or not numbers."""
    x = rng(2).integers(0, 3, shape).astype(np.float32)
    x[rng(3).random(shape) < 0.1] = np.nan
    x[rng(4).random(shape) < 0.2] = -np.inf
    return x


HOT = [
    Case("MaxPool", [IMAGES], POOL),
    Case("MaxPool", [IMAGES], POOL, outputs=2, id="places"),
    Case("MaxPool", [IMAGES.astype(np.float64)], {**POOL, "storage_order": 1}, outputs=2, id="places-column-major"),
    Case("MaxPool", [ties(4, 16, 34, 30)], POOL, outputs=2, id="places-ties"),
    Case(
        "MaxPool",
        [ties(2, 8, 5, 34, 30)],
        {"kernel_shape": (2, 3, 2), "pads": (1, 0, 1, 0, 1, 0)},
        outputs=2,
        id="places-3d",
    ),
    Case(
        "MaxPool", [ties(8, 16, 200)], {"kernel_shape": (3,), "dilations": (2,), "pads": (3, 3)}, outputs=2, id="places-1d"
    ),
    Case("irgrad.MaxPoolGrad", [COARSE, max_places(IMAGES), sizes(*IMAGES.shape)], id="overlap"),
    Case("irgrad.MaxPoolGrad", [COARSE, np.roll(max_places(IMAGES), 1, 0), sizes(*IMAGES.shape)], id="elsewhere"),
    Case("AveragePool", [IMAGES], POOL),
    Case("irgrad.AveragePoolGrad", [COARSE, sizes(*IMAGES.shape)], POOL, id="overlap"),
    Case("irgrad.AveragePoolGrad", [COARSE, sizes(*IMAGES.shape)], POOLED, id="apart"),
    Case("LpPool", [IMAGES], POOL),
    Case("GlobalAveragePool", [IMAGES]),
    Case("GlobalMaxPool", [IMAGES]),
    Case("GlobalLpPool", [IMAGES]),
    Case("AveragePool", [IMAGES.astype(np.float16)], POOL, id="f16"),
    Case("Gather", [floats(500, 300), indices(500, 90, 30, low=-500)]),
    Case("Gather", [floats(10, 500, 20), indices(500, 1400)], {"axis": 1}, id="inner"),
    Case("irgrad.GatherGrad", [floats(1400, 300), indices(500, 1400, low=-500), sizes(500, 300)], id="wide"),
    Case("irgrad.GatherGrad", [floats(1400, 40), indices(50, 1400), sizes(50, 40)], id="narrow"),
    Case("irgrad.GatherGrad", [floats(50, 600, 20), indices(500, 600), sizes(50, 500, 20)], {"axis": 1}, id="inner"),
    Case("GatherElements", [floats(300, 400), indices(400, 300, 200, low=-400)], {"axis": 1}),
    Case("GatherElements", [floats(40, 50, 60), indices(50, 40, 70, 60)], {"axis": 1}, id="inner"),
    Case("GatherElements", [floats(40, 50, 60), indices(50, 30, 70, 50)], {"axis": 1}, id="smaller"),
    Case("GatherND", [floats(40, 50, 60), indices(40, 1400, 2)]),
    Case("GatherND", [floats(40, 50, 60), indices(50, 40, 30, 1)], {"batch_dims": 1}, id="batch"),
    Case(
        "ScatterElements",
        [floats(500, 400), indices(400, 500, 400, low=-400), floats(500, 400)],
        {"axis": 1, "reduction": "add"},
    ),
    Case(
        "ScatterElements",
        [floats(40, 90, 60), indices(90, 40, 90, 60), floats(40, 90, 60)],
        {"axis": 1, "reduction": "add"},
        id="inner",
    ),
    Case("ScatterElements", [floats(9000), indices(9000, 9000), floats(9000)], {"reduction": "add"}, id="flat"),
    Case(
        "ScatterElements",
        [floats(300, 400), indices(400, 300, 200), floats(300, 200)],
        {"axis": 1, "reduction": "max"},
        id="max",
    ),
    Case("ScatterElements", [floats(300, 400), indices(400, 300, 200), floats(300, 200)], {"axis": 1}, id="none"),
    Case("ScatterND", [floats(40, 50, 60), indices(40, 1400, 2), floats(1400, 60)], {"reduction": "add"}),
    Case("Resize", [IMAGES, None, None, sizes(4, 16, 68, 60)], {"mode": "nearest"}, id="nearest"),
    Case("Resize", [IMAGES, None, None, sizes(4, 16, 68, 60)], UPSAMPLED, id="linear"),
    Case(
        "irgrad.ResizeGrad",
        [IMAGES, sizes(*COARSE.shape), None, None, sizes(*IMAGES.shape)],
        {"mode": "nearest"},
        id="nearest",
    ),
    Case("irgrad.ResizeGrad", [IMAGES, sizes(*COARSE.shape), None, None, sizes(*IMAGES.shape)], UPSAMPLED, id="linear"),
    Case("Col2Im", [floats(4, 16 * 9, 100), sizes(10, 10), sizes(3, 3)], {"pads": (1, 1, 1, 1)}),
    Case("irgrad.Im2Col", [IMAGES, sizes(3, 3)], {"pads": (1, 1, 1, 1)}),
    Case("SoftmaxCrossEntropyLoss", [SCORES, LABELS]),
    Case("SoftmaxCrossEntropyLoss", [SCORES, LABELS, floats(300) ** 2], {"ignore_index": 7}, outputs=2, id="weights"),
    Case("SoftmaxCrossEntropyLoss", [floats(4, 30, 2000), indices(30, 4, 2000)], {"reduction": "none"}, id="inner"),
    Case("SoftmaxCrossEntropyLoss", [SCORES.astype(np.float16), LABELS], id="f16"),
    Case("NegativeLogLikelihoodLoss", [SCORES, LABELS], {"ignore_index": 7}),
    Case("irgrad.SoftmaxCrossEntropyLossGrad", [np.float32(1), SCORES, LABELS]),
    Case("irgrad.SoftmaxCrossEntropyLossGrad", [np.float32(1), floats(4, 30, 2000), indices(30, 4, 2000)], id="inner"),
    Case("irgrad.SoftmaxCrossEntropyLossGrad", [np.float16(1), SCORES.astype(np.float16), LABELS], id="f16"),
    Case("irgrad.NegativeLogLikelihoodLossGrad", [np.float32(1), sizes(1400, 300), LABELS]),
    Case("Pad", [IMAGES, sizes(0, 0, 2, 3, 0, 0, 1, -2)]),
    Case("Pad", [IMAGES, sizes(0, 0, 2, 3, 0, 0, 1, 4)], {"mode": "reflect"}, id="reflect"),
    Case(
        "irgrad.PadGrad", [floats(4, 16, 37, 37), sizes(*IMAGES.shape), sizes(0, 0, 2, 3, 0, 0, 1, 4)], {"mode": "reflect"}
    ),
    Case("Slice", [IMAGES, sizes(3, 20), sizes(30, 2), sizes(2, 3), sizes(2, -3)]),
    Case("irgrad.SliceGrad", [floats(4, 16, 14, 30), sizes(*IMAGES.shape), sizes(3), sizes(30), sizes(2), sizes(2)]),
    Case("Concat", [IMAGES, IMAGES], {"axis": 1}),
    Case("Split", [IMAGES], {"axis": 1, "num_outputs": 4}, outputs=4),
    Case("Transpose", [IMAGES], {"perm": (0, 2, 3, 1)}),
    Case("Tile", [COARSE, sizes(1, 2, 1, 2)]),
    Case("Trilu", [floats(4, 100, 100)]),
    Case("DepthToSpace", [COARSE], {"blocksize": 2}),
    Case("SpaceToDepth", [IMAGES], {"blocksize": 2}),
    Case("ReverseSequence", [floats(60, 8, 50), indices(60, 8)]),
    Case("OneHot", [indices(300, 500, low=-300), np.array(300), np.array([0, 1], np.float32)]),
    Case("Dropout", [IMAGES]),
    Case("TensorScatter", [floats(4, 90, 30), floats(4, 9, 30), sizes(0, 3, 5, 80)]),
    Case("MaxUnpool", [COARSE, max_places(IMAGES)], {"kernel_shape": (2, 2), "strides": (2, 2)}),
]


def allocated(function: Callable[[], Any]) -> int:
    """The most bytes that a call has allocated at one time."""
    function()
    tracemalloc.start()
    try:
        function()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def in_place(kernel: Kernel, case: Case) -> Callable[[], Any]:
    """A call of a kernel in memory that is there."""
    operands = case.operands()
    results = tuple(np.empty_like(np.asarray(r), order="C") for r in results_of(kernel(*operands), case.outputs))
    out, work = results if case.outputs > 1 else results[0], workspace(getattr(kernel, "workspace", 0))
    if not work.size:
        return lambda: kernel(*operands, out=out)
    return lambda: kernel.function(*operands, out=out, work=work)  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", HOT, ids=names(HOT))
def test_allocates_nothing(case: Case) -> None:
    with fast.using(False), threads.limited(1):
        kernel = bound(case)
        before = np.setbufsize(16)  # the iterators of ufuncs take so many elements for each operand, needed or not
        try:
            assert allocated(in_place(kernel, case)) <= LIMIT
        finally:
            np.setbufsize(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", HOT, ids=names(HOT))
def test_forms_agree(case: Case, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's form, with threads that share even little work, and what is compiled in the end."""
    pytest.importorskip("numba")
    expected, operands = bind_and_run(case), case.operands()
    monkeypatch.setattr("irgrad.runtime.workspace._WORTH", 1000)
    for wanted in (False, True):
        with fast.using(wanted), threads.limited(count), np.errstate(all="ignore"):
            kernel = bound(case)
            for _ in range(3):
                kernel(*operands)
            assert fast.wait(120)
            places = tuple(map(garbage, expected))
            found = results_of(run(kernel, operands, places if case.outputs > 1 else places[0]), case.outputs)
        for want, got in zip(expected, found, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-3 if want.dtype == np.float16 else 1e-5, atol=1e-5)


INDEXING = [case for case in HOT if case.name in ("Gather", "irgrad.GatherGrad-wide", "GatherElements", "GatherND")]
INDEXING += [case for case in HOT if case.name in ("ScatterElements", "ScatterElements-max", "ScatterND")]


@pytest.mark.parametrize("wanted", [False, True], ids=["numpy", "compiled"])
@pytest.mark.parametrize("case", INDEXING, ids=names(INDEXING))
def test_an_index_out_of_range_is_refused(case: Case, wanted: bool) -> None:
    if wanted:
        pytest.importorskip("numba")
    with fast.using(wanted):
        kernel, operands = bound(case), case.operands()
        for _ in range(3):
            kernel(*operands)
        assert fast.wait(120)
        for bad in (99999, -99999):
            operands[1] = operands[1].copy()
            operands[1].flat[-1] = bad
            with pytest.raises(IndexError, match=f"the index {bad} is out of range for an axis of [0-9]+ elements"):
                kernel(*operands)


def test_a_label_out_of_range_is_refused() -> None:
    kernel = bound(Case("SoftmaxCrossEntropyLoss", [SCORES, LABELS], {"ignore_index": -1}))
    with pytest.raises(ExecutionError, match="there is a label 300, but there are 300 classes; ignore_index is -1"):
        kernel(SCORES, np.where(np.arange(len(LABELS)) == 3, 300, LABELS))
