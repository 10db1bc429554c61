"""Cases of irgrad/ops/rotary.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_rotary_embedding import rotary_embedding

from tests.ops.harness import Case, rng

BATCH, HEADS, STEPS, SIZE, LAST = 2, 3, 3, 4, 5
POSITIONS = np.array([[0, 1, 2], [4, 1, 1]])


def operands(packed: bool, positions: bool, size: int = SIZE, dtype: Any = np.float64) -> list[np.ndarray]:
    generator = rng(7)
    x = generator.standard_normal((BATCH, STEPS, HEADS * SIZE) if packed else (BATCH, HEADS, STEPS, SIZE))
    angles = generator.uniform(-2, 2, (LAST, size // 2) if positions else (BATCH, STEPS, size // 2))
    found = [x.astype(dtype), np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)]
    return [*found, POSITIONS] if positions else found


# In 16 bits onnx.reference rounds after every step.
def in_double(*arrays: np.ndarray) -> np.ndarray:
    return rotary_embedding(*(a.astype(np.float64) for a in arrays[:3]), *arrays[3:]).astype(arrays[0].dtype)


def itself(x: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """What there is nothing to turn of, which onnx.reference does not take."""
    return x


CASES: list[Case] = []
for _packed in (False, True):
    for _interleaved in (0, 1):
        for _positions in (False, True):
            for _size in (0, 2):
                _attrs: dict[str, Any] = {"interleaved": _interleaved}
                if _size:
                    _attrs["rotary_embedding_dim"] = _size
                if _packed:
                    _attrs["num_heads"] = HEADS
                _words = ["packed"] * _packed + ["interleaved"] * _interleaved
                _words += ["positions"] * _positions + ["partial"] * (_size > 0)
                _inputs = operands(_packed, _positions, _size or SIZE)
                CASES.append(Case("RotaryEmbedding", _inputs, _attrs, id="-".join(_words) or "plain"))

CASES += [
    Case("RotaryEmbedding", operands(False, True, dtype=np.float32), id="single"),
    Case("RotaryEmbedding", operands(False, True, dtype=np.float16), id="half", oracle=in_double, rtol=1e-3),
    Case("RotaryEmbedding", operands(False, True), id="by-x", wrt=[0]),
    Case("RotaryEmbedding", operands(False, True), id="by-sine", wrt=[2]),
    *(
        Case(
            "RotaryEmbedding",
            [x, *(cache[:1] for cache in caches)],
            {"num_heads": HEADS} if packed else {},
            id=f"one-cache-for-all-{'packed' if packed else 'by-head'}",
        )
        for packed in (False, True)
        for x, *caches in [operands(packed, False)]
    ),
    Case("RotaryEmbedding", [a[:0] for a in operands(True, False)], {"num_heads": HEADS}, id="no-batch", oracle=itself),
    Case("RotaryEmbedding", [a[:, :0] for a in operands(True, False)], {"num_heads": HEADS}, id="no-steps", oracle=itself),
    Case("RotaryEmbedding", [a[:0] for a in operands(False, False)], {"interleaved": 1}, id="no-batch-by-head"),
]
