"""The functions of generated code against numpy in extended precision, and whether loops over them are vectorised."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from irgrad.codegen import build_kernel
from tests.codegen.bodies import body

LD = np.longdouble
SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-45,
    -1e-40,
    1e-38,
    1e38,
    -1e38,
    88.7,
    88.73,
    -87.4,
    -103.5,
    -104.5,
    9.0,
    -9.0,
]


def _erf(x: np.ndarray) -> np.ndarray:
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x.astype(np.float64))


REFERENCES: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    # name: the function in extended precision, the interval to try, and how large the numbers may be
    "Exp": (lambda x: np.exp(x), -87, 88),
    "Log": (lambda x: np.log(x), 0, 100),
    "Tanh": (lambda x: np.tanh(x), -12, 12),
    "Erf": (_erf, -7, 7),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -87, 87),
    "Softplus": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), -80, 80),
    "Elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), -40, 1),
    "Sin": (lambda x: np.sin(x), -10, 10),
    "Cos": (lambda x: np.cos(x), -10, 10),
}


def inputs(low: float, high: float, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = rng.uniform(low, high, 20000)
    near = rng.normal(size=20000) * 10.0 ** rng.uniform(-10, 0, 20000)
    return np.concatenate([spread, np.abs(near) if low == 0 else near, np.array(SPECIAL)]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_errors(dtype: Any) -> None:
    arrays = [inputs(low, high, dtype) for _, low, high in REFERENCES.values()]
    kernel = build_kernel(body(arrays, lambda b, *xs: [b.op(name, x) for name, x in zip(REFERENCES, xs, strict=True)]))
    for (name, (function, *_)), x, y in zip(REFERENCES.items(), arrays, kernel(*arrays), strict=True):
        with np.errstate(all="ignore"):
            exact = np.asarray(function(x.astype(LD)))
            rounded = exact.astype(dtype)
            ulp = np.abs(y - exact) / np.maximum(np.spacing(np.abs(rounded)), np.finfo(dtype).smallest_subnormal)
        usual = np.isfinite(rounded)
        assert np.array_equal(y[~usual], rounded[~usual], equal_nan=True), name
        assert float(np.max(ulp[usual])) < 7, name  # of 1.2e-7 and 2.2e-16
        assert np.array_equal(np.signbit(y[usual & (y != 0)]), np.signbit(rounded[usual & (y != 0)])), name


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks at x86 code")
def test_loops_are_vectorised() -> None:
    x = np.zeros((8, 1024), np.float32)
    body_of_many = body(
        [x, x[0]],
        lambda b, x, c: [
            b.op("Softmax", b.op("Tanh", x + c)),
            b.op("ReduceSum", b.op("Gelu", x * c), b.ints([0])),
            b.op("Where", x > c, b.op("Log", x), b.op("Sigmoid", x)),
        ],
    )
    (main, *_) = build_kernel(body_of_many).function.functions  # type: ignore[attr-defined]
    if main.stats.cache_hits:
        pytest.skip("it was read from a cache, and with it no assembler")
    (code,) = main.inspect_asm().values()
    packed = len(re.findall(r"v?(?:add|mul|sub|div|max|fmadd\d+)ps\b|vfn?m(?:add|sub)\d+ps\b", code))
    single = len(re.findall(r"v?(?:add|mul|sub|div|max)ss\b|vfn?m(?:add|sub)\d+ss\b", code))
    assert packed > single
