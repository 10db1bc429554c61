"""docs/coverage.md is what the command writes, and README quotes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from irgrad.conformance import CHECKS, Verdict, judge_precision, measure, node_cases
from irgrad.coverage import coverage

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
LINES = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "|" in line]
ROWS = {cells[0]: cells for cells in LINES}


def test_every_operation_has_its_row() -> None:
    """With the kernel and the gradient that the registry has for it."""
    for row in coverage():
        if not row.name.startswith("irgrad."):
            assert ROWS[row.name][2:4] == [row.kernel, row.gradient], f"{row.name}: run irgrad ops --matrix docs/coverage.md"


def test_readme_quotes_the_totals() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for number in re.findall(r"^- (\d[\d,]* of \d+)", PAGE, re.MULTILINE):
        assert number in readme, f"README does not say {number!r}"


@pytest.mark.parametrize("name", ["test_conv_with_strides_padding", "test_softmax_example", "test_lstm_defaults"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_shorter_floats(name: str, dtype: str) -> None:
    (case,) = [case for case in node_cases() if case.name == name]
    assert judge_precision(case, dtype).verdict is Verdict.OK


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    matrix = measure()
    assert "\n".join(matrix.markdown()) + "\n" == PAGE
    assert not [name for name, f in matrix.findings["gradient"].items() if f.verdict is Verdict.WRONG]
    passed, checked = matrix.count("gradient")
    assert passed >= 0.97 * checked
    assert set(matrix.findings) == set(CHECKS)
