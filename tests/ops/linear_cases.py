"""Cases of irgrad/ops/linear.py."""

from __future__ import annotations

from tests.ops.harness import Case, rng

CASES = [
    Case("MatMul", [rng(0).standard_normal((3, 4)), rng(1).standard_normal((4, 2))]),
]
