"""What the operations on text refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.runtime import compile
from tests.ops.strings_cases import grams, text
from tests.ops.test_kinks import feeds_of, graph_of

WORDS = text("a", "b")


def run(op: str, x: np.ndarray, **attrs: Any) -> np.ndarray:
    graph = graph_of(op, [x], **attrs)
    return compile(graph)(feeds_of(graph, [x]))["y0"]


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("RegexFullMatch", {"pattern": "(a"}, "is not understood"),
        ("RegexFullMatch", {"pattern": r"\pL"}, "is not understood: bad escape"),
        ("RegexFullMatch", {"pattern": "[[:^alpha:]]"}, "is not understood"),
        ("StringNormalizer", {"case_change_action": "UPPER", "locale": "tr_TR"}, "in the locale 'tr_TR' are not known"),
        ("StringNormalizer", {"case_change_action": "TITLE"}, "'TITLE' is none of NONE, LOWER, UPPER"),
    ],
)
def test_attributes_that_mean_nothing_here(op: str, attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        run(op, WORDS, **attrs)


def test_a_case_that_stays_needs_no_locale() -> None:
    assert run("StringNormalizer", WORDS, locale="tr_TR").tolist() == ["a", "b"]


@pytest.mark.parametrize("op", ["StringNormalizer", "TfIdfVectorizer"])
def test_tensors_of_too_many_axes(op: str) -> None:
    attrs = dict(grams("any").attrs) if op == "TfIdfVectorizer" else {}
    with pytest.raises(TypeInferenceError, match="takes a tensor of the shape"):
        run(op, WORDS.reshape(1, 1, 2), **attrs)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"ngram_counts": (0, 5)}, "the tokens from 5 to 10 of the pool are not 2-grams"),
        ({"ngram_counts": (4, 0)}, "the tokens from 4 to 0 of the pool are not 1-grams"),
        ({"ngram_indexes": (0, 1)}, "there are 7 n-grams in the pool, but 2 ngram_indexes"),
        ({"weights": (1.0, 2.0)}, "there are 2 weights for 7 n-grams"),
        ({"mode": "FT"}, "the mode 'FT' is none of TF, IDF, TFIDF"),
    ],
)
def test_pools_that_do_not_fit(attrs: dict[str, Any], message: str) -> None:
    case = grams("bad", **attrs)
    with pytest.raises(ExecutionError, match=message):
        compile(case.graph())({})
