"""Bringing nodes of older opsets up to the one that graphs are written in.

One small function per change of an operation's meaning, named by operation and by the opset that made the change. The
reader calls `upgrade` on each node; adapters whose change came after the node's opset run in order, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapters_of
from irgrad.graph import Value

__all__ = ["OldNode", "upgrade"]


def upgrade(b: Builder, node: OldNode) -> Sequence[Value] | None:
    """Bring a node up to date.

    Args:
        b: where an adapter emits what it needs (constants for what used to be attributes, casts, reshapes).
        node: changed in place.

    Returns:
        None where `node` is now written in today's opset, or the results, where an adapter emitted all of it.
    """
    while True:
        name = node.op
        for since, adapt in adapters_of(node.domain, name):
            if since <= node.version:
                continue
            results = adapt(b, node)
            node.version = since
            if results is not None:
                return results
            if node.op != name:
                break
        else:
            return None
