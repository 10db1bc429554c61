"""Comparisons, logic and rounding: operations through which no gradient flows."""

from __future__ import annotations

from irgrad.op import OpTable

ops = OpTable()
