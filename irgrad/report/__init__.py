"""A report on a graph: one HTML page that stands for itself."""

from __future__ import annotations

from irgrad.report.write import report

__all__ = ["report"]
