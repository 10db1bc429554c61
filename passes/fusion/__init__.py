"""Fusion: nodes that run over the same space become one node, which runs tile by tile."""
