"""How irgrad does on ONNX's own node tests, forward and backward: what `docs/coverage.md` is made from."""

from __future__ import annotations

from irgrad.conformance.cases import EXCLUDED, MISSED, NodeCase, node_cases
from irgrad.conformance.judge import (
    Finding,
    Verdict,
    assert_same_results,
    judge_forward,
    judge_gradient,
    judge_precision,
    judge_second_order,
)
from irgrad.conformance.matrix import CHECKS, Matrix, Row, measure

__all__ = [
    "CHECKS",
    "EXCLUDED",
    "MISSED",
    "Finding",
    "Matrix",
    "NodeCase",
    "Row",
    "Verdict",
    "assert_same_results",
    "judge_forward",
    "judge_gradient",
    "judge_precision",
    "judge_second_order",
    "measure",
    "node_cases",
]
