"""A pass made of one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.builder import Builder
from irgrad.graph import Graph, Value
from irgrad.pattern import OpPattern, Var, constant, op, rule
from irgrad.pipeline import Pass
from irgrad.rewrite import rewrite

__all__ = ["FuseSoftClip"]


@rule(exclusive=True)
def soft_clip(x: Var, limit: Var) -> OpPattern:
    """tanh(x / limit) · limit → SoftClip(x)."""
    return op("Mul", op("Tanh", op("Div", x, constant(limit))), constant(limit))


@soft_clip.check
def _(limit: Value) -> str | None:
    return None if limit.constant is not None and limit.constant.size == 1 else f"{limit!r} is not a single number"


@soft_clip.replace
def _(b: Builder, x: Value, limit: Value) -> Value:
    assert limit.constant is not None
    return b.op("example.SoftClip", x, limit=float(limit.constant.reshape(())))


@dataclass(frozen=True)
class FuseSoftClip(Pass):
    """Put a SoftClip in the place of the three nodes that it stands for."""

    name: ClassVar[str] = "fuse_soft_clip"

    def run(self, graph: Graph) -> bool:
        return rewrite(graph, [soft_clip]).changed
