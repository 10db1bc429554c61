"""Equations that an Einsum refuses."""

from __future__ import annotations

import numpy as np
import pytest

from irgrad.errors import TypeInferenceError
from irgrad.ops.einsum import contraction, output_dims, parse


@pytest.mark.parametrize(
    ("equation", "ranks", "message"),
    [
        ("ij,jk->ik", (2,), "2 terms for 1 operands"),
        ("ij->ij", (3,), "does not fit an operand of rank 3"),
        ("ij...->ij...", (1,), "does not fit an operand of rank 1"),
        ("i1->i", (2,), "not letters"),
        ("i..j->ij", (2,), "not letters"),
        ("......->i", (2,), "not letters"),
        ("i->ii", (1,), "repeats a letter"),
        ("i->j", (1,), "no term has"),
        ("...i->i", (2,), "have an ellipsis"),
        ("ij->i->j", (2,), "not letters"),
    ],
)
def test_malformed(equation: str, ranks: tuple[int, ...], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        parse(equation, ranks)


def test_no_letters_left() -> None:
    with pytest.raises(TypeInferenceError, match="at most 52 letters"):
        parse("...->...", (53,))


def test_sizes() -> None:
    equation = parse("...ij,...jk", (3, 4))
    assert output_dims(equation, [("N", 2, 3), (1, "N", 3, 4)]) == (1, "N", 2, 4)
    assert output_dims(equation, [("N", 2, 1), ("M", 5, 3, "K")]) == ("M", 5, 2, "K")
    assert output_dims(equation, [("N", 2, 3), ("M", "L", 3, 4)]) == ("M", None, 2, 4)
    with pytest.raises(TypeInferenceError, match="the letter 'j' have the sizes"):
        output_dims(equation, [("N", 2, 3), (1, "N", 4, 4)])


def test_greedy_order_of_many_operands() -> None:
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal((2 + k % 3, 2 + (k + 1) % 3)) for k in range(7)]
    equation = "ab,bc,cd,de,ef,fg,gh->ah"
    got = contraction(parse(equation, (2,) * 7), [a.shape for a in arrays], np.dtype(np.float64))(*arrays)
    np.testing.assert_allclose(got, np.linalg.multi_dot(arrays), rtol=1e-12)
