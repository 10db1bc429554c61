"""Perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Mlp"]


class Mlp(nn.Module):
    """Linear layers with ReLU in between, and the cross-entropy of their logits.

    Args:
        sizes: the widths, that of the inputs first and the number of classes last.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.sizes = sizes

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Inputs and targets."""
        x = generator.standard_normal((batch, self.sizes[0]), np.float32)
        return {"x": x, "target": generator.integers(0, self.sizes[-1], batch)}

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.relu(layer(x))
        return functional.cross_entropy(last(x), target)
