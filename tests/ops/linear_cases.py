"""Cases of irgrad/ops/linear.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.harness import Case, rng


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return rng(seed).standard_normal(shape).astype(dtype)


MATMUL = [
    Case("MatMul", [normal(3, 4), normal(4, 2, seed=1)]),
    *(
        Case("MatMul", [normal(*a), normal(*b, seed=1)], id=id)
        for id, a, b in (
            ("vectors", (4,), (4,)),
            ("vector_matrix", (4,), (4, 3)),
            ("vector_batch", (4,), (2, 3, 4, 2)),
            ("matrix_vector", (3, 4), (4,)),
            ("batch_vector", (2, 2, 3, 4), (4,)),
            ("batch_matrix", (2, 3, 4), (4, 2)),
            ("batches_matrix", (2, 3, 2, 4), (4, 2)),
            ("matrix_batch", (3, 4), (2, 4, 2)),
            ("batch_batch", (2, 3, 4), (2, 4, 2)),
            ("broadcast_left", (1, 3, 4), (3, 4, 2)),
            ("broadcast_right", (3, 2, 4), (1, 4, 2)),
            ("broadcast_both", (3, 1, 2, 4), (2, 4, 2)),
            ("one_row", (2, 1, 4), (4, 3)),
            ("one_sum", (2, 3, 1), (2, 1, 3)),
            ("one_of_all", (1, 1, 1), (3, 1, 1)),
        )
    ),
    Case("MatMul", [normal(2, 3, 4, dtype=np.float32), normal(4, 2, seed=1, dtype=np.float32)], id="f32"),
    Case("MatMul", [normal(3, 4, dtype=np.float16), normal(4, 2, seed=1, dtype=np.float16)], id="f16", order=0, rtol=2e-3),
    Case("MatMul", [rng(0).integers(-9, 9, (2, 3, 4)), rng(1).integers(-9, 9, (4, 2))], id="i64", order=0),
    Case("MatMul", [normal(2, 3, 0), normal(0, 2)], id="empty_sum", order=0),
    Case("MatMul", [normal(0, 3, 2), normal(2, 2)], id="empty_batch", order=0),
]

GEMM = [
    *(
        Case(
            "Gemm",
            [normal(*((4, 3) if ta else (3, 4))), normal(*((2, 4) if tb else (4, 2)), seed=1), normal(2, seed=2)],
            {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0},
            id=f"trans{ta}{tb}",
        )
        for ta in (0, 1)
        for tb in (0, 1)
    ),
    Case("Gemm", [normal(3, 4), normal(4, 2, seed=1)], id="no_c"),
    Case("Gemm", [normal(3, 4), normal(4, 2, seed=1)], {"alpha": -1.5, "transA": 0}, id="no_c_alpha"),
    *(
        Case("Gemm", [normal(3, 4), normal(4, 2, seed=1), normal(*shape, seed=2)], id=f"c{'x'.join(map(str, shape))}")
        for shape in ((), (1,), (2,), (3, 1), (1, 2), (1, 1), (3, 2))
    ),
    Case("Gemm", [normal(3, 4), normal(4, 2, seed=1), normal(3, 2)], {"beta": 0.0}, id="beta_zero"),
    Case("Gemm", [normal(3, 4, dtype=np.float32), normal(4, 2, dtype=np.float32), normal(2, dtype=np.float32)], id="f32"),
    Case(
        "Gemm",
        [normal(3, 4, dtype=np.float16), normal(4, 2, dtype=np.float16)],
        {"alpha": 0.5},
        id="f16",
        order=0,
        rtol=2e-3,
    ),
    Case(
        "Gemm",
        [rng(0).integers(-9, 9, (3, 4)), rng(1).integers(-9, 9, (4, 2)), rng(2).integers(-9, 9, 2)],
        id="i64",
        order=0,
    ),
]


def einsum(equation: str, *shapes: tuple[int, ...], id: str = "", **options: Any) -> Case:
    operands = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    name = id or equation.replace("->", "_to_").replace(",", "_").replace("...", "dots").replace(" ", "")
    return Case("Einsum", operands, {"equation": equation}, id=name, **options)


EINSUM = [
    einsum("ij,jk->ik", (3, 4), (4, 2)),
    einsum("ij,jk->ki", (3, 4), (4, 2)),
    einsum(" i j , j k -> i k ", (3, 4), (4, 2), id="spaces"),
    einsum("ij,jk", (3, 4), (4, 2), id="implicit"),
    einsum("ba,Bb", (3, 4), (2, 3), id="implicit_capitals"),
    einsum("ii", (3, 3), id="implicit_trace"),
    einsum("bij,bjk->bik", (2, 3, 4), (2, 4, 2)),
    einsum("bhqd,bhkd->bhqk", (2, 2, 3, 2), (2, 2, 4, 2)),
    einsum("bqhd,bkhd->bhqk", (2, 3, 2, 2), (2, 4, 2, 2)),
    einsum("ij->ji", (3, 4)),
    einsum("ij->ij", (3, 4), id="identity"),
    einsum("ij->j", (3, 4)),
    einsum("ij->", (3, 4)),
    einsum("i,i->", (4,), (4,)),
    einsum("bi,bi->b", (3, 4), (3, 4)),
    einsum("i,j->ij", (3,), (4,)),
    einsum("i,j->ji", (3,), (4,)),
    einsum("ij,ij->ij", (3, 4), (3, 4)),
    einsum(",ij->ij", (), (3, 4), id="scalar"),
    einsum(",i,,i->", (), (3,), (), (3,), id="scalars"),
    einsum("ij,kl->ik", (2, 3), (3, 2), id="summed_alone"),
    einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    einsum("i,ij,j->", (3,), (3, 4), (4,)),
    einsum("ab,bc,ac->abc", (2, 3), (3, 2), (2, 2)),
    einsum("ab,cd,ef,be->acdf", (2, 3), (2, 2), (2, 2), (3, 2), id="four"),
    einsum("ijk,jil->kl", (2, 3, 4), (3, 2, 2), id="two_summed"),
    einsum("ii->i", (3, 3)),
    einsum("ii->", (3, 3)),
    einsum("iij->ji", (3, 3, 2)),
    einsum("iii->i", (3, 3, 3)),
    einsum("ijij->ij", (2, 3, 2, 3)),
    einsum("iijj->", (2, 2, 3, 3)),
    einsum("ii,ij->j", (3, 3), (3, 2)),
    einsum("iij,jk->k", (3, 3, 2), (2, 4)),
    einsum("...ij,...jk->...ik", (2, 3, 4), (2, 4, 2), id="dots"),
    einsum("...ij,jk->...ik", (2, 2, 3, 4), (4, 2), id="dots_left"),
    einsum("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 2), id="dots_broadcast"),
    einsum("i...,i...->...", (3, 2), (3, 2, 2, 2), id="dots_ranks"),
    einsum("...i,...i", (2, 3, 4), (2, 3, 4), id="dots_implicit"),
    einsum("b...a->a...b", (2, 3, 4), id="dots_inside"),
    einsum("...->...", (2, 3), id="dots_only"),
    einsum("...ii->...i", (2, 3, 3), id="dots_diagonal"),
    einsum("ij,jk->ik", (3, 1), (4, 2), id="sum_of_one"),
    einsum("ij,jk->ik", (3, 4), (1, 2), id="sum_of_one_right"),
    einsum("ij,ij->ij", (1, 4), (3, 1), id="ones"),
    einsum("bij,bjk->bik", (1, 3, 4), (2, 4, 2), id="batch_of_one"),
    einsum("ii,i->i", (1, 1), (3,), id="diagonal_of_one"),
    einsum("ij,ij,ij->i", (1, 4), (3, 1), (3, 4), id="three_ones"),
    Case("Einsum", [normal(2, 3, dtype=np.float32), normal(3, 2, dtype=np.float32)], {"equation": "ij,jk->ik"}, id="f32"),
    Case(
        "Einsum",
        [normal(2, 3, dtype=np.float16), normal(3, 2, dtype=np.float16)],
        {"equation": "ij,jk->ik"},
        id="f16",
        order=0,
        rtol=2e-3,
    ),
    Case("Einsum", [np.arange(6).reshape(2, 3), np.arange(3)], {"equation": "ij,j->i"}, id="i64", order=0),
]

CASES = MATMUL + GEMM + EINSUM
