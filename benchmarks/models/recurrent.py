"""A recurrent network."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Lstm"]


class Lstm(nn.Module):
    """Stacked LSTM layers, of either one or both directions, and a linear layer on the last step's result."""

    def __init__(
        self, size: int = 256, steps: int = 64, layers: int = 2, bidirectional: bool = False, classes: int = 10
    ) -> None:
        super().__init__()
        self.size, self.steps, self.classes = size, steps, classes
        self.lstm = nn.LSTM(size, size, layers, bidirectional=bidirectional)
        self.head = nn.Linear(size * (1 + bidirectional), classes)

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Sequences, steps first, and one class each."""
        x = generator.standard_normal((self.steps, batch, self.size), np.float32)
        return {"x": x, "target": generator.integers(0, self.classes, batch)}

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return functional.cross_entropy(self.head(y[-1]), target)
