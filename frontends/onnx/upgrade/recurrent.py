"""RNN, GRU and LSTM."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter

__all__: list[str] = []


@adapter("GRU", since=3)
def gru_3(b: Builder, node: OldNode) -> None:
    """The value "forward" of `direction`, which the first schema misspelt, is spelt right."""
    if node.attrs.get("direction") == "foward":
        node.attrs["direction"] = "forward"


@adapter("RNN", "GRU", "LSTM", since=7)
def recurrent_7(b: Builder, node: OldNode) -> None:
    """`output_sequence`, which said that the first output is there, is gone: a first output that is named is there."""
    node.attrs.pop("output_sequence", None)
