"""Cases of irgrad/ops/linalg.py."""

from __future__ import annotations

from itertools import product

import numpy as np

from tests.ops.harness import Case, rng


def square(size: int, *batch: int, rank: int | None = None) -> np.ndarray:
    """Random matrices, of a rank that may be less than their size."""
    generator = rng(size)
    if rank is None:
        return generator.standard_normal((*batch, size, size))
    return generator.standard_normal((*batch, size, rank)) @ generator.standard_normal((*batch, rank, size))


def minor(x: np.ndarray, rows: set[int], columns: set[int]) -> np.ndarray:
    kept = [[k for k in range(x.shape[-1]) if k not in gone] for gone in (rows, columns)]
    return np.asarray(np.linalg.det(x[..., kept[0], :][..., kept[1]]))


def cofactors(x: np.ndarray) -> np.ndarray:
    y = np.empty(x.shape)
    for i, j in np.ndindex(x.shape[-2:]):
        y[..., i, j] = (-1) ** (i + j) * minor(x, {i}, {j})
    return y


def cofactor_derivatives(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    y = np.zeros(x.shape)
    for i, j, k, m in product(range(x.shape[-1]), repeat=4):
        if i != k and j != m:
            sign = (-1) ** (i + j + k + m) * np.sign(k - i) * np.sign(m - j)
            y[..., k, m] += v[..., i, j] * sign * minor(x, {i, k}, {j, m})
    return y


def det_of_two(x: np.ndarray) -> np.ndarray:
    # onnx.reference takes no floats of 16 bits here.
    wide = x.astype(np.float32)
    return np.asarray(wide[..., 0, 0] * wide[..., 1, 1] - wide[..., 0, 1] * wide[..., 1, 0]).astype(x.dtype)


DETS = [
    *(Case("Det", [square(size)], id=f"size-{size}") for size in (1, 2, 3, 4, 6)),
    Case("Det", [square(3, 2)], id="batch"),
    Case("Det", [square(4, 2, 3)], id="batch-of-two-axes"),
    Case("Det", [square(0, 2)], id="size-0", order=0),
    Case("Det", [square(3)[None][:0]], id="batch-of-nothing", order=0),
    *(Case("Det", [square(size, 2, rank=size - 1)], id=f"singular-{size}") for size in (2, 3, 5)),
    Case("Det", [square(2, 3).astype(np.float32)], id="f32"),
    Case("Det", [square(4).astype(np.float32)], id="f32-size-4"),
    Case("Det", [square(2, 3).astype(np.float16)], id="f16", oracle=det_of_two, rtol=1e-2),
]

COFACTORS = [
    *(Case("irgrad.Cofactor", [square(size)], id=f"size-{size}", oracle=cofactors) for size in (2, 3, 4, 5)),
    # Constants, whose derivatives are 0.
    *(Case("irgrad.Cofactor", [square(size, 2)], id=f"size-{size}", oracle=cofactors, order=0) for size in (0, 1)),
    Case("irgrad.Cofactor", [square(4, 2, 2)], id="batch", oracle=cofactors),
    *(Case("irgrad.Cofactor", [square(5, rank=r)], id=f"rank-{r}-of-5", oracle=cofactors) for r in (4, 3)),
    Case("irgrad.Cofactor", [square(3, 2, rank=2)], id="singular", oracle=cofactors),
    Case("irgrad.Cofactor", [square(4).astype(np.float32)], id="f32", oracle=cofactors, rtol=1e-4),
]

DERIVATIVES = [
    *(
        Case("irgrad.CofactorDerivative", [square(size), square(size, 2)[1]], id=f"size-{size}", oracle=cofactor_derivatives)
        for size in (1, 2, 3, 4, 5)
    ),
    Case("irgrad.CofactorDerivative", [square(4, 3), square(4, 3) + 1], id="batch", oracle=cofactor_derivatives),
    *(
        Case("irgrad.CofactorDerivative", [square(5, rank=r), square(5)], id=f"rank-{r}-of-5", oracle=cofactor_derivatives)
        for r in (4, 3, 2)
    ),
    Case(
        "irgrad.CofactorDerivative",
        [square(4).astype(np.float32), square(4, 2)[1].astype(np.float32)],
        id="f32",
        oracle=cofactor_derivatives,
        rtol=1e-4,
    ),
]

CASES = [*DETS, *COFACTORS, *DERIVATIVES]
