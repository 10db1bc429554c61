"""The matrix: one row per operation, what was measured of it on ONNX's own node tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from onnx import defs

from irgrad.conformance.cases import EXCLUDED, NodeCase, node_cases
from irgrad.conformance.judge import (
    PRECISION,
    Finding,
    Verdict,
    judge_forward,
    judge_gradient,
    judge_precision,
    judge_second_order,
)
from irgrad.coverage import Coverage, coverage
from irgrad.graph import OPSET

__all__ = ["CHECKS", "Matrix", "Row", "measure"]

CHECKS: dict[str, Callable[[NodeCase], Finding]] = {
    "forward": judge_forward,
    "gradient": judge_gradient,
    "second order": judge_second_order,
    **{dtype: partial(judge_precision, dtype=dtype) for dtype in PRECISION},
}
"""Column → what is checked of each node test."""


@dataclass
class Row:
    """One operation.

    Attributes:
        coverage: how it runs and where its gradient comes from.
        opsets: the first and the last opset in which its definition changed.
        findings: column → (name of the node test, finding) for each node test of it.
    """

    coverage: Coverage
    opsets: tuple[int, int]
    findings: dict[str, list[tuple[str, Finding]]] = field(default_factory=dict)

    def count(self, column: str) -> tuple[int, int]:
        """How many node tests passed a check, of how many that there was something to check of."""
        return _passed([finding for _, finding in self.findings.get(column, ())])


@dataclass
class Matrix:
    """All rows, and all findings by node test.

    Attributes:
        rows: by name of the operation.
        findings: column → name of the node test → finding.
    """

    rows: list[Row]
    findings: dict[str, dict[str, Finding]]

    def count(self, column: str) -> tuple[int, int]:
        """How many node tests passed a check, of how many that there was something to check of."""
        return _passed(list(self.findings[column].values()))

    def totals(self) -> list[str]:
        """The sentences that README quotes."""
        forward, gradient, second = (self.count(column) for column in ("forward", "gradient", "second order"))
        wrong = sum(f.verdict is Verdict.WRONG for f in self.findings["gradient"].values())
        ways = Counter(row.coverage.gradient for row in self.rows)
        return [
            f"{forward[0]} of {len(self.findings['forward'])} node tests give the results that onnx expects.",
            f"{gradient[0]} of {gradient[1]} with floating-point operands and results have a gradient that agrees with "
            f"finite differences; {wrong} have a wrong one.",
            f"{second[0]} of {second[1]} have a second derivative that does.",
            f"{len(self.rows)} operations: {ways['rule']} have an adjoint rule, {ways['expansion']} an expansion that has, "
            f"{ways['zero']} are declared to pass no gradient, {ways['none']} have none.",
        ]

    def markdown(self) -> Iterator[str]:
        """The lines of docs/coverage.md."""
        yield "# What is covered"
        yield ""
        yield (
            "Measured by `irgrad ops --matrix docs/coverage.md` on the node tests of the installed onnx package, which have "
            f"one small model for each mode of each operation, up to opset {OPSET}."
        )
        yield ""
        yield from (f"- {line}" for line in self.totals())
        yield ""
        yield (
            "A cell says how many of the node tests passed, of those where there is something to check. *Gradient* is "
            "checked in float64 by all floating-point operands at once, along random directions against central "
            "differences with a Richardson step (relative tolerance 1e-5); operands that lie on a kink are moved off it. "
            "*Second* is the same for the gradient's own gradient. *f32*, *f16* and *bf16* compare the gradient in that "
            f"precision with the one in float64 (relative to its norm: {_bounds()}). *By* says where the gradient comes "
            "from: a rule, an expansion into simpler operations, or the declaration that no gradient passes."
        )
        yield ""
        columns = list(CHECKS)
        yield "| operation | opsets | runs on | by | " + " | ".join(c.replace(" order", "") for c in columns) + " |"
        yield "| --- | --- | --- | --- |" + " --- |" * len(columns)
        for row in self.rows:
            first, last = row.opsets
            cells = [row.coverage.name, f"{first}" if first == last else f"{first}-{last}", row.coverage.kernel]
            cells += [row.coverage.gradient, *(_cell(*row.count(column)) for column in columns)]
            yield "| " + " | ".join(cells) + " |"
        yield ""
        yield "## What is not ok"
        yield ""
        for column in columns:
            misses = [(n, f) for n, f in self.findings[column].items() if f.verdict not in (Verdict.OK, Verdict.ABSENT)]
            if misses:
                yield f"### {column.capitalize()}"
                yield ""
                yield from (f"- `{name}`: {f.verdict.value}: {_one_line(f.reason)}" for name, f in misses)
                yield ""


def measure(progress: Callable[[Sequence[NodeCase]], Iterator[NodeCase]] = iter) -> Matrix:
    """Run every check on every node test.

    Args:
        progress: wraps the node tests that are gone through, to show how far it is.
    """
    findings: dict[str, dict[str, Finding]] = {column: {} for column in CHECKS}
    by_op: dict[str, list[NodeCase]] = {}
    for case in progress(node_cases()):
        for column, check in CHECKS.items():
            findings[column][case.name] = _reported(check, case)
        for op in case.ops:
            by_op.setdefault(op, []).append(case)
    rows = []
    for entry in coverage():
        if entry.name.startswith("irgrad."):
            continue
        cases = by_op.get(entry.name, [])
        found = {column: [(case.name, findings[column][case.name]) for case in cases] for column in CHECKS}
        rows.append(Row(entry, _opsets(entry.name), found))
    return Matrix(rows, findings)


def _reported(check: Callable[[NodeCase], Finding], case: NodeCase) -> Finding:
    if case.name in EXCLUDED:
        return Finding(Verdict.ABSENT, EXCLUDED[case.name])
    return check(case)


def _opsets(name: str) -> tuple[int, int]:
    domain, _, short = name.rpartition(".")
    versions = [s.since_version for s in defs.get_all_schemas_with_history() if s.name == short and s.domain == domain]
    return (min(versions), max(versions)) if versions else (0, 0)


def _passed(findings: Sequence[Finding]) -> tuple[int, int]:
    checked = [finding for finding in findings if finding.verdict is not Verdict.ABSENT]
    return sum(finding.verdict is Verdict.OK for finding in checked), len(checked)


def _bounds() -> str:
    return ", ".join(f"{name} {rtol:g}" for name, rtol in PRECISION.items())


def _cell(passed: int, checked: int) -> str:
    return f"{passed}/{checked}" if checked else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= 200 else line[:197] + "..."
