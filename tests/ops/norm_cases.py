"""Cases of irgrad/ops/norm.py."""

from __future__ import annotations

from tests.ops.harness import Case

CASES: list[Case] = []
