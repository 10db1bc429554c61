"""Cases of irgrad/ops/elementwise.py."""

from __future__ import annotations

from tests.ops.harness import Case, rng

CASES = [
    Case("Add", [rng(0).standard_normal((3, 4)), rng(1).standard_normal((4,))], id="bias"),
    Case("Add", [rng(0).standard_normal((3, 1)), rng(1).standard_normal((2, 1, 4))], id="both"),
    Case("Mul", [rng(0).standard_normal((3, 4)), rng(1).standard_normal((3, 1))]),
    Case("Tanh", [rng(0).standard_normal((3, 4))]),
    Case("Relu", [rng(0).standard_normal((3, 4))], order=1),
]
