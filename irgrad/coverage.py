"""What irgrad can do with each operation: how it runs, and where its gradient comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx import defs

from irgrad.graph import OPSET
from irgrad.op import ZERO, Op, find_op
from irgrad.plugin import registry

__all__ = ["Coverage", "coverage", "coverage_of"]


@dataclass(frozen=True)
class Coverage:
    """One operation's row.

    Attributes:
        name: qualified name.
        kernel: "numpy" (our own), "reference" (onnx.reference runs it) or "none" (an opaque operation).
        gradient: "rule", "zero" (declared: no gradient flows through it), "expansion" (through its meaning in simpler
            operations) or "none".
    """

    name: str
    kernel: str
    gradient: str


def coverage_of(op: Op) -> Coverage:
    """The row of one operation."""
    schema: Any = op.schema
    kernel = "numpy" if op.has_kernel else "none" if schema is None else "reference"
    if op.gradient is ZERO:
        gradient = "zero"
    elif op.gradient is not None:
        gradient = "rule"
    elif op.has_lowering or (schema is not None and (schema.has_function or schema.has_context_dependent_function)):
        gradient = "expansion"
    else:
        gradient = "none"
    return Coverage(op.qualified_name, kernel, gradient)


def coverage() -> list[Coverage]:
    """All standard operations that are not deprecated, and all that plugins bring, sorted by name."""
    standard = {s.name for s in defs.get_all_schemas() if s.domain == "" and not s.deprecated and s.since_version <= OPSET}
    rows = []
    for name in sorted(standard | set(registry.names("operations"))):
        domain, _, short = name.rpartition(".")
        rows.append(coverage_of(find_op(short, domain)))
    return rows
