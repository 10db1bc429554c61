"""Bringing nodes of older opsets up to the one that graphs are written in.

One small function per change of an operation's meaning or signature, named by operation and by the opset that made the
change. The reader calls `upgrade` on each node; adapters whose change came after the node's opset run in order, oldest
first. A change that only admits more (element types, an optional attribute whose default is the old behaviour) needs none.
"""

from __future__ import annotations

from irgrad.frontends.onnx.upgrade import (  # noqa: F401 - each registers its adapters
    attention,
    axes,
    control,
    elementwise,
    index,
    norm,
    pool,
    recurrent,
    resize,
    shape,
    softmax,
    withdrawn,
)
from irgrad.frontends.onnx.upgrade.registry import OldNode, upgrade

__all__ = ["OldNode", "upgrade"]
