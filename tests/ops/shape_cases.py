"""Cases of irgrad/ops/shape.py."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, rng

CASES = [
    Case(
        "irgrad.SumTo",
        [rng(0).standard_normal((2, 3, 4)), np.array([3, 1])],
        oracle=lambda x, shape: x.sum((0, 2))[:, None],
    ),
]
