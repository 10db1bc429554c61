"""ONNX's own test suite: all of it forward, and the gradients of all of its node tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from onnx.backend.test import BackendTest

from irgrad.backend import IrgradBackend
from irgrad.conformance import EXCLUDED, MISSED, NodeCase, Verdict, assert_same_results, judge_gradient, node_cases

# --- forward ----------------------------------------------------------------------------------------------------------

EXPECTED = {"Node": 1884, "Simple": 23, "Real": 9, "PyTorchConverted": 82, "PyTorchOperator": 35}
"""How many tests of each kind onnx 1.23 has: none may go missing."""


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The runner copies data of the real models to a folder of the user's."""
    monkeypatch.setenv("ONNX_HOME", str(tmp_path))


class Suite(BackendTest):
    @classmethod
    def assert_similar_outputs(
        cls, ref_outputs: Any, outputs: Any, rtol: float, atol: float, model_dir: str | None = None
    ) -> None:
        assert_same_results(ref_outputs, outputs, rtol, atol)


runner = Suite(IrgradBackend, __name__)
for excluded in EXCLUDED:
    runner.exclude(f"^{re.escape(excluded)}_cpu$")
for missed in MISSED:
    runner.xfail(f"^{re.escape(missed)}_cpu$")
suites = runner.test_cases
for suite in suites.values():
    for attribute in [name for name in vars(suite) if name.endswith("_cuda")]:
        delattr(suite, attribute)
globals().update(suites)


def test_the_suite_is_whole() -> None:
    found = {
        name.removeprefix("OnnxBackend").removesuffix("ModelTest"): sum(test.startswith("test_") for test in vars(suite))
        for name, suite in suites.items()
    }
    assert all(found[kind] >= number for kind, number in EXPECTED.items()), found


def test_exclusions_and_misses_exist() -> None:
    assert {*EXCLUDED, *MISSED} <= {case.name for case in node_cases()}
    assert len(node_cases()) - len(EXCLUDED) - len(MISSED) >= 1875


# --- gradients --------------------------------------------------------------------------------------------------------

_POSITIONS = "there is no cotangent of roi or scales"
_RANKS = "the ranks of its operands must be known"

REFUSED: dict[str, str] = {
    "test_affine_grid_2d_align_corners_expanded": _RANKS,
    "test_affine_grid_2d_expanded": _RANKS,
    "test_resize_downsample_scales_cubic_A_n0p5_exclude_outside": _POSITIONS,
    "test_resize_downsample_scales_cubic_antialias": _POSITIONS,
    "test_resize_downsample_scales_linear_antialias": _POSITIONS,
    "test_resize_upsample_scales_cubic_A_n0p5_exclude_outside": _POSITIONS,
}
"""Node test → part of the sentence with which its gradient is refused."""

UNDECIDED = {"test_unique_bfloat16_sorted_without_axis": "equal elements, which any step makes different ones"}
"""Node test → why its gradient cannot be told by finite differences."""


@pytest.mark.parametrize("case", node_cases(), ids=[case.name for case in node_cases()])
def test_gradient(case: NodeCase) -> None:
    finding = judge_gradient(case)
    if case.name in REFUSED:
        assert finding.verdict is Verdict.REFUSED
        assert REFUSED[case.name] in finding.reason
    elif case.name in UNDECIDED:
        assert finding.verdict is Verdict.UNDECIDED
    else:
        assert finding.verdict in (Verdict.OK, Verdict.ABSENT), finding
