"""Functions on arrays: accuracy over the whole range, every kind of array, extremes without warnings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from irgrad.kernels.rows import BLOCK
from irgrad.ops.special import blockwise, erf, select, sigmoid, softplus

KERNELS: dict[str, tuple[Callable[..., np.ndarray], Callable[[float], float]]] = {
    "erf": (erf, math.erf),
    "sigmoid": (sigmoid, lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0),
    "softplus": (softplus, lambda x: math.log1p(math.exp(-abs(x))) + max(x, 0)),
}
RANGE = np.concatenate([np.linspace(-30, 30, 6001), np.linspace(-1, 1, 2001), np.logspace(-30, 0, 301)])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("dtype", "units"), [(np.float64, 4.0), (np.float32, 4.0), (np.float16, 1.0), (ml_dtypes.bfloat16, 1.0)]
)
def test_relative_error_in_units_of_the_last_place(name: str, dtype: type, units: float) -> None:
    kernel, exact = KERNELS[name]
    x = RANGE.astype(dtype)
    want = np.array([exact(v) for v in x.astype(np.float64)])
    info = ml_dtypes.finfo(dtype)
    got = kernel(x)
    assert got.dtype == dtype
    unit = np.maximum(np.abs(want) * float(info.eps), float(info.smallest_subnormal))
    assert (np.abs(got.astype(np.float64) - want) / unit).max() <= units


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_extremes_come_without_warnings(name: str, dtype: type) -> None:
    kernel, _ = KERNELS[name]
    top = float(np.finfo(dtype).max)
    low, high = {"erf": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "softplus": (0.0, top)}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = kernel(np.array([-np.inf, -top, top, np.nan], dtype))
    np.testing.assert_array_equal(found, np.array([low, low, high, np.nan], dtype))


def test_erf_keeps_the_sign_of_zero_and_never_exceeds_1() -> None:
    x = np.linspace(0, 10, 100001, dtype=np.float32)
    assert np.signbit(erf(np.array([-0.0]))).all()
    assert erf(x).max() == 1
    assert (erf(-x) == -erf(x)).all()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_blocks_cover_an_array(size: int, dtype: type) -> None:
    @blockwise()
    def twice(x: np.ndarray, y: np.ndarray) -> None:
        np.add(x, x, out=y)

    x = (np.arange(size) % 1000).astype(dtype)
    np.testing.assert_array_equal(twice(x), x + x)


def test_blocks_of_any_layout() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    for view in (x.T, x[:, ::2], x[1, 2, 3], np.broadcast_to(x[0], (3, 5, 6))):
        for out in (None, np.empty(view.shape), np.empty(view.shape[::-1]).T):
            before = view.copy()
            found = sigmoid(view, out=out)
            assert out is None or found is out
            np.testing.assert_array_equal(view, before)
            np.testing.assert_allclose(found, 1 / (1 + np.exp(-view)), rtol=1e-14)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -3.0]
DTYPES = [np.float64, np.float32, np.float16, np.int64, np.uint32, np.int16, np.uint8, np.bool_, np.complex64, np.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
def test_select_moves_bits(dtype: type) -> None:
    generator = np.random.default_rng(0)
    with np.errstate(invalid="ignore"):
        x, y = (generator.permutation(np.array(SPECIAL * 3)).astype(dtype) for _ in range(2))
    condition = generator.random(x.size) < 0.5
    for a, b in ((x, y), (x, y[:1]), (x[:1], y), (x, np.zeros((), dtype)), (np.zeros(1, dtype), y), (x[:, None], y)):
        want = np.where(condition, a, b)
        for out in (None, np.empty(want.shape, dtype)):
            got = select(condition, a, b, out)
            assert out is None or got is out
            assert got.dtype == want.dtype
            assert got.tobytes() == want.tobytes()


def test_select_of_text() -> None:
    found = select(np.array([True, False]), np.array(["a", "b"], object), np.array("c", object))
    assert found.tolist() == ["a", "c"]
