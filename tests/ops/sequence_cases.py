"""Cases of irgrad/ops/sequence.py.

onnx.reference inserts at the wrong place where the position is the length, so that insertion has an oracle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from irgrad.types import SequenceType, TensorType
from tests.ops.harness import Case, rng

F64 = np.dtype(np.float64)
X = rng(0).standard_normal((2, 6))
ROWS = [rng(k).standard_normal((k + 1, 3)) for k in range(3)]
EQUAL = [rng(k).standard_normal((2, 3)) for k in range(3)]
RANKS = [rng(0).standard_normal(3), rng(1).standard_normal((2, 2))]
WORDS = [np.array(["a", "b"], object), np.array([], object)]
NONE = {0: SequenceType(TensorType(F64, (2, 3)))}


def at(k: int, dtype: Any = np.int64) -> np.ndarray:
    return np.array(k, dtype)


def inserted(sequence: list[Any], element: Any, position: Any = None) -> list[Any]:
    longer = list(sequence)
    longer.insert(len(sequence) if position is None else position.item(), element)
    return longer


def insertion(sequence: list[Any], position: Any, id: str, **options: Any) -> Case:
    operands = [sequence, EQUAL[0] + 1, *([] if position is None else [position])]
    return Case("SequenceInsert", operands, id=id, oracle=inserted, **options)


ELEMENTS = [
    Case("SequenceEmpty", [], order=0),
    Case("SequenceEmpty", [], {"dtype": int(TensorProto.INT64)}, id="i64", order=0),
    Case("SequenceConstruct", ROWS),
    Case("SequenceConstruct", ROWS[:1], id="one"),
    Case("SequenceConstruct", EQUAL, id="equal"),
    Case("SequenceConstruct", [EQUAL[0], *EQUAL], id="the-same-twice"),
    Case("SequenceConstruct", RANKS, id="ranks-that-differ"),
    Case("SequenceConstruct", WORDS, id="text", order=0),
    Case("SequenceConstruct", [row.astype(np.float32) for row in ROWS], id="f32"),
    *(Case("SequenceAt", [ROWS, at(k)], id=str(k)) for k in (0, 2, -1, -3)),
    Case("SequenceAt", [ROWS, at(1, np.int32)], id="i32"),
    Case("SequenceAt", [RANKS, at(1)], id="ranks-that-differ"),
    Case("SequenceAt", [WORDS, at(0)], id="text", order=0),
    insertion(ROWS, None, "at-the-end"),
    insertion(EQUAL, None, "equal"),
    *(insertion(ROWS, at(k), str(k)) for k in (0, 2, 3, -1, -3)),
    insertion(ROWS, at(-2, np.int32), "i32"),
    insertion([], None, "into-nothing", types=NONE),
    insertion([], at(0), "into-nothing-at-0", types=NONE),
    Case("SequenceErase", [ROWS]),
    *(Case("SequenceErase", [ROWS, at(k)], id=str(k)) for k in (0, 1, 2, -1, -2, -3)),
    Case("SequenceErase", [ROWS, at(-2, np.int32)], id="i32"),
    Case("SequenceErase", [ROWS[:1]], id="the-only-one", order=0),
    Case("SequenceLength", [ROWS], order=0),
    Case("SequenceLength", [[]], id="none", order=0, types=NONE),
]


def split(x: Any, sizes: Any, id: str, **attrs: Any) -> Case:
    return Case("SplitToSequence", [x, *([] if sizes is None else [np.array(sizes)])], attrs, id=id)


SPLIT = [
    split(X, None, "default"),
    split(X, None, "axis-1", axis=1),
    split(X, None, "axis-from-the-end", axis=-2),
    split(X, None, "without-the-axis", keepdims=0),
    split(X, None, "without-the-last-axis", axis=-1, keepdims=0),
    split(X, 3, "scalar", axis=1),
    split(X, 4, "scalar-with-a-rest", axis=1),
    split(X, 8, "scalar-too-large", axis=1),
    split(X, 2, "scalar-keeps-the-axis", axis=1, keepdims=0),
    split(X, [1, 2, 3], "sizes", axis=1),
    split(X, [6, 0], "sizes-of-nothing", axis=-1),
    split(X, [2, 2, 2], "equal-sizes", axis=-1),
    split(X, [6], "one-size", axis=1, keepdims=0),
    Case("SplitToSequence", [X, np.array([2, 4], np.int32)], {"axis": 1}, id="i32"),
    Case("SplitToSequence", [X[:, :0]], {"axis": 1}, id="of-nothing", order=0),
    Case("SplitToSequence", [np.array(["a", "b"], object)], {"keepdims": 0}, id="text", order=0),
    Case("SplitToSequence", [X.astype(np.float32)], {"axis": 1}, id="f32"),
]

CONCAT = [
    Case("ConcatFromSequence", [ROWS], {"axis": 0}),
    Case("ConcatFromSequence", [[row.T for row in ROWS]], {"axis": -1}, id="last"),
    Case("ConcatFromSequence", [EQUAL], {"axis": 1}, id="equal"),
    Case("ConcatFromSequence", [[x[:1] for x in EQUAL]], {"axis": 0}, id="of-one-row"),
    Case("ConcatFromSequence", [[EQUAL[0], EQUAL[1][:0]]], {"axis": 0}, id="with-nothing"),
    Case("ConcatFromSequence", [[EQUAL[0][:0], EQUAL[1][:0]]], {"axis": 0}, id="of-nothing", order=0),
    *(Case("ConcatFromSequence", [EQUAL], {"axis": axis, "new_axis": 1}, id=f"new-{axis}") for axis in (0, 1, 2, -1, -3)),
    Case("ConcatFromSequence", [EQUAL[:1]], {"axis": 0, "new_axis": 1}, id="new-of-one"),
    Case("ConcatFromSequence", [WORDS], {"axis": 0}, id="text", order=0),
    Case("ConcatFromSequence", [[row.astype(np.float32) for row in ROWS]], {"axis": 0}, id="f32"),
]

OWN = [
    Case("irgrad.SequenceSum", [ROWS, [-2 * x for x in ROWS], ROWS], oracle=lambda *s: [-0.0 * x for x in ROWS]),
    Case("irgrad.SequenceSum", [ROWS], id="one", oracle=lambda s: s),
    Case("irgrad.SequenceSum", [RANKS, RANKS], id="ranks-that-differ", oracle=lambda s, t: [2 * x for x in s]),
    Case("irgrad.SequenceSum", [[], []], id="none", order=0, types={**NONE, 1: NONE[0]}, oracle=lambda s, t: s),
    Case("irgrad.SequenceZeros", [ROWS], order=0, oracle=lambda s: [0 * x for x in s]),
    Case("irgrad.SequenceZeros", [[]], id="none", order=0, types=NONE, oracle=lambda s: s),
    Case("irgrad.SequenceSizes", [ROWS], {"axis": 0}, order=0, oracle=lambda s: np.array([1, 2, 3])),
    Case("irgrad.SequenceSizes", [ROWS], {"axis": -1}, id="last", order=0, oracle=lambda s: np.array([3, 3, 3])),
    Case("irgrad.SequenceSizes", [[]], {"axis": 0}, id="none", order=0, types=NONE, oracle=lambda s: np.zeros(0, np.int64)),
]

CASES = [*ELEMENTS, *SPLIT, *CONCAT, *OWN]
