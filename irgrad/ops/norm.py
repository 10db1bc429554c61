"""Normalisations."""

from __future__ import annotations

from irgrad.op import OpTable

ops = OpTable()
