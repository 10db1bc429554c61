"""Cases of irgrad/ops/optional.py; onnx.reference wraps what an Optional holds into a list, hence the oracles."""

from __future__ import annotations

from typing import Any

import numpy as np

from irgrad.types import OptionalType, SequenceType, TensorType
from tests.ops.harness import Case, rng

F64 = np.dtype(np.float64)
X = rng(0).standard_normal((2, 3))
ROWS = [rng(k).standard_normal((k + 1, 3)) for k in range(3)]
TENSOR, SEQUENCE = TensorType(F64, (2, 3)), SequenceType(TensorType(F64, (None, 3)))


def of(*types: Any) -> dict[int, Any]:
    """The types of operands that are optionals of these types."""
    return dict(enumerate(map(OptionalType, types)))


def same(x: Any = None) -> Any:
    return x


MADE = [
    Case("Optional", [X], id="tensor", oracle=same),
    Case("Optional", [X], {"type": TENSOR}, id="tensor-of-a-type", oracle=same),
    Case("Optional", [ROWS], id="sequence", oracle=same),
    Case("Optional", [], {"type": TENSOR}, id="nothing", order=0, oracle=same),
    Case("Optional", [], {"type": SEQUENCE}, id="no-sequence", order=0, oracle=same),
    Case("Optional", [X.astype(np.float32)], id="f32", oracle=same),
    Case("Optional", [np.array([1, 2])], id="i64", order=0, oracle=same),
]

READ = [
    Case("OptionalGetElement", [X], id="plain-tensor", oracle=same),
    Case("OptionalGetElement", [ROWS], id="plain-sequence", oracle=same),
    Case("OptionalGetElement", [X], id="tensor", types=of(TENSOR), oracle=same),
    Case("OptionalGetElement", [ROWS], id="sequence", types=of(SEQUENCE), oracle=same),
    Case("OptionalHasElement", [], id="absent", order=0),
    Case("OptionalHasElement", [X], id="plain-tensor", order=0),
    Case("OptionalHasElement", [ROWS], id="plain-sequence", order=0),
    Case("OptionalHasElement", [X], id="tensor", order=0, types=of(TENSOR)),
    Case("OptionalHasElement", [ROWS], id="sequence", order=0, types=of(SEQUENCE)),
    Case("OptionalHasElement", [[]], id="sequence-of-nothing", order=0, types=of(SEQUENCE)),
    Case("OptionalHasElement", [None], id="nothing", order=0, types=of(TENSOR), oracle=lambda o: np.array(False)),
    Case("OptionalHasElement", [None], id="no-sequence", order=0, types=of(SEQUENCE), oracle=lambda o: np.array(False)),
]

OWN = [
    Case("irgrad.OptionalSum", [X, X], id="tensors", types=of(TENSOR, TENSOR), oracle=lambda a, b: 2 * X),
    Case("irgrad.OptionalSum", [X], id="one", types=of(TENSOR), oracle=same),
    Case(
        "irgrad.OptionalSum",
        [ROWS, ROWS, ROWS],
        id="sequences",
        types=of(SEQUENCE, SEQUENCE, SEQUENCE),
        oracle=lambda *o: [3 * x for x in ROWS],
    ),
    Case("irgrad.OptionalSum", [None, None], id="nothing", order=0, types=of(TENSOR, TENSOR), oracle=lambda a, b: None),
    Case("irgrad.OptionalZeros", [X], id="tensor", order=0, types=of(TENSOR), oracle=lambda o: 0 * X),
    Case("irgrad.OptionalZeros", [ROWS], id="sequence", order=0, types=of(SEQUENCE), oracle=lambda o: [0 * x for x in o]),
    Case("irgrad.OptionalZeros", [None], id="nothing", order=0, types=of(TENSOR), oracle=same),
]

CASES = [*MADE, *READ, *OWN]
