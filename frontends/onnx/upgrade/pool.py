"""Pooling."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter

__all__: list[str] = []


@adapter("LpPool", "GlobalLpPool", since=2)
def lp_pool_2(b: Builder, node: OldNode) -> None:
    """`p` becomes an integer."""
    p = node.attrs.pop("p", 2.0)
    if p != int(p):
        raise node.error(f"pools by the norm of order {p}; only whole orders exist since opset 2")
    node.attrs["p"] = int(p)
