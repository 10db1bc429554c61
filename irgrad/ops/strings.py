"""What comes before numbers: text and encoded images. No gradient flows through any of it.

Strings are Python's, in arrays of objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError, TypeInferenceError
from irgrad.op import ZERO, Call, Kernel, OpTable
from irgrad.ops.ngrams import NGrams
from irgrad.runtime.kernels import deliver, deliver_all
from irgrad.types import TensorType, Type

ops = OpTable()


def _objects(elements: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


# --- elementwise ------------------------------------------------------------------------------------------------------

string_concat = ops.define("StringConcat", gradient=ZERO)


@string_concat.kernel
def _string_concat(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(np.add(x, y, out=out), object)


string_split = ops.define("StringSplit", gradient=ZERO)


@string_split.kernel
def _string_split(x: np.ndarray, *, delimiter: str = "", maxsplit: int | None = None, out: Any = None) -> Any:
    """Without a delimiter, runs of white space separate."""
    most = -1 if maxsplit is None else maxsplit
    parts = [text.split(delimiter or None, most) for text in x.flat]
    width = max(map(len, parts), default=0)
    filled = [part for line in parts for part in (*line, *[""] * (width - len(line)))]
    counts = np.array([len(line) for line in parts], np.int64).reshape(x.shape)
    return deliver_all((_objects(filled, (*x.shape, width)), counts), out)


@string_split.infer
def _string_split_types(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    parts = x.with_shape(None if x.shape is None else (*x.shape, None))
    return [parts, TensorType(np.dtype(np.int64), x.shape)][: call.n_outputs]


regex_full_match = ops.define("RegexFullMatch", gradient=ZERO)

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


_PARTS = re.compile(r"\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]", re.DOTALL)  # what is escaped, and classes in brackets


@regex_full_match.prepare
def _regex_full_match(call: Call) -> Kernel:
    r"""The syntax is that of RE2. Python's has most of it; ``\d``, ``\w``, ``\s`` and ``\b`` are limited to ASCII, as there.

    Source: https://github.com/google/re2/wiki/Syntax. Classes such as ``[[:alpha:]]`` are spelled out. What Python does not
    know (``\pL``, ``\C``) is an error.
    """
    pattern = call.attrs.get("pattern", "")
    try:
        regex = re.compile(_PARTS.sub(_in_python, pattern), re.ASCII)
    except (re.error, KeyError) as error:
        raise ExecutionError(f"the regular expression {pattern!r} is not understood: {error}") from None

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        matches = [regex.fullmatch(text) is not None for text in x.flat]
        return deliver(np.array(matches, np.bool_).reshape(x.shape), out)

    return kernel


def _in_python(part: re.Match[str]) -> str:
    text = part[0]
    if text[0] == "[":
        return "[" + re.sub(r"\[:(\^?\w+):\]", lambda found: _CLASSES[found[1]], text[1:])
    return r"\Z" if text == r"\z" else text


# --- one row of words -------------------------------------------------------------------------------------------------

string_normalizer = ops.define("StringNormalizer", gradient=ZERO)

_CASES: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
_OWN_CASES = ("az", "lt", "tr")  # languages with rules of their own for the case of letters, by Unicode's SpecialCasing


@string_normalizer.infer
def _string_normalizer_type(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    if x.shape is not None and (len(x.shape) not in (1, 2) or (len(x.shape) == 2 and x.shape[0] not in (1, None))):
        raise TypeInferenceError(f"a StringNormalizer takes a tensor of the shape [C] or [1,C], not {x}")
    return [x.with_shape(None if x.shape is None else (*(1,) * (len(x.shape) - 1), None))]


@string_normalizer.prepare
def _string_normalizer(call: Call) -> Kernel:
    """Elements that are stop words go; the case of the others changes.

    onnx.reference also takes away accents, and stop words out of elements of several words. Case is changed by Unicode's
    rules, which hold for all languages but those that are refused here.
    """
    language = call.attrs.get("locale", "").replace("-", "_").split("_")[0].lower()
    action = _CASES.get(call.attrs["case_change_action"])
    if action is None:
        raise ExecutionError(f"the case_change_action {call.attrs['case_change_action']!r} is none of NONE, LOWER, UPPER")
    if language in _OWN_CASES and action is not str:
        raise ExecutionError(f"the rules for the case of letters in the locale {call.attrs['locale']!r} are not known")
    folded: Callable[[str], str] = str if call.attrs["is_case_sensitive"] else str.casefold
    stopwords = set(map(folded, call.attrs.get("stopwords", ())))

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        kept = [action(text) for text in x.flat if folded(text) not in stopwords] or [""]
        return deliver(_objects(kept, (*(1,) * (x.ndim - 1), len(kept))), out)

    return kernel


# --- counting ---------------------------------------------------------------------------------------------------------

tf_idf_vectorizer = ops.define("TfIdfVectorizer", gradient=ZERO)


@tf_idf_vectorizer.infer
def _tf_idf_vectorizer_type(call: Call) -> Sequence[Type]:
    x, width = call.tensor(0), max(call.attrs["ngram_indexes"], default=-1) + 1
    if x.shape is not None and len(x.shape) not in (1, 2):
        raise TypeInferenceError(f"a TfIdfVectorizer takes a tensor of the shape [C] or [N,C], not {x}")
    return [TensorType(np.dtype(np.float32), None if x.shape is None else (*x.shape[:-1], width))]


@tf_idf_vectorizer.prepare
def _tf_idf_vectorizer(call: Call) -> Kernel:
    """The weight at a place belongs to the n-gram at that place of the pool, as ONNX's text says.

    onnx.reference takes it for that of a column of the result, which is another one where `ngram_indexes` is no 0, 1, 2, ...
    """
    attrs, indexes = call.attrs, np.array(call.attrs["ngram_indexes"], np.int64)
    pool = attrs.get("pool_strings") or attrs.get("pool_int64s") or ()
    ngrams = NGrams(pool, attrs["ngram_counts"], attrs["min_gram_length"], attrs["max_gram_length"], attrs["max_skip_count"])
    if ngrams.count != len(indexes):
        raise ExecutionError(f"there are {ngrams.count} n-grams in the pool, but {len(indexes)} ngram_indexes")
    mode, weights = attrs["mode"], np.array(attrs.get("weights") or np.ones(len(indexes)), np.float32)
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ExecutionError(f"the mode {mode!r} is none of TF, IDF, TFIDF")
    if len(weights) != len(indexes):
        raise ExecutionError(f"there are {len(weights)} weights for {len(indexes)} n-grams")
    width = int(indexes.max(initial=-1)) + 1

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        found = ngrams.occurrences(np.atleast_2d(x))
        values = (np.minimum(found, 1) if mode == "IDF" else found) * (1 if mode == "TF" else weights)
        result = np.zeros((len(found), width), np.float32)
        np.add.at(result.T, indexes, values.astype(np.float32).T)
        return deliver(result.reshape(*x.shape[:-1], width), out)

    return kernel


# --- images -----------------------------------------------------------------------------------------------------------

ops.define("ImageDecoder", gradient=ZERO)  # onnx.reference runs it, where Pillow is installed
