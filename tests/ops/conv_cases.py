"""Cases of irgrad/ops/conv.py."""

from __future__ import annotations

from tests.ops.harness import Case

CASES: list[Case] = []
