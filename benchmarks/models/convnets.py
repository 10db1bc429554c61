"""Convolutional networks; batch normalisation runs in training mode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LeNet", "MobileNetV2", "ResNet", "UNet"]


class _Images(nn.Module):
    """What the networks have in common: batches of random images.

    Args:
        channels: of the images.
        size: their height and width.
        classes: how many there are.
    """

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.shape, self.classes = (channels, size, size), classes

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Images and one class each."""
        x = generator.standard_normal((batch, *self.shape), np.float32)
        return {"x": x, "target": generator.integers(0, self.classes, batch)}


class LeNet(_Images):
    """Two 5x5 convolutions with pooling and two linear layers, with the widths of today's tutorials (32, 64, 512)."""

    def __init__(self, size: int = 28, classes: int = 10) -> None:
        super().__init__(1, size, classes)
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * (size // 4) ** 2, 512)
        self.fc2 = nn.Linear(512, classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return functional.cross_entropy(self.fc2(x), target)


class _Norm(nn.Module):
    """A convolution without a bias and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _Norm(inputs, outputs, 3, stride)
        self.second = _Norm(outputs, outputs, 3)
        self.shortcut = _Norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(_Images):
    """He et al. (2016) with basic blocks; 18 layers with the default depths."""

    def __init__(self, size: int, classes: int = 100, width: int = 64, depths: Sequence[int] = (2, 2, 2, 2)) -> None:
        super().__init__(3, size, classes)
        self.stem = _Norm(3, width, 7, 2)
        blocks = []
        inputs = width
        for stage, depth in enumerate(depths):
            for position in range(depth):
                outputs = width << stage
                blocks.append(_Residual(inputs, outputs, 2 if stage and not position else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(x.mean((2, 3))), target)


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _Norm(inputs, hidden, 1) if expansion != 1 else None
        self.depthwise = _Norm(hidden, hidden, 3, stride, groups=hidden)
        self.project = _Norm(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(_Images):
    """Sandler et al. (2018).

    Args:
        stages: (expansion, channels, blocks, stride) of each; the published ones by default.
    """

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, size: int, classes: int = 100, stages: Sequence[tuple[int, int, int, int]] = STAGES) -> None:
        super().__init__(3, size, classes)
        self.stem = _Norm(3, 32, 3, 2)
        blocks = []
        inputs = 32
        for expansion, outputs, count, stride in stages:
            for position in range(count):
                blocks.append(_Inverted(inputs, outputs, 1 if position else stride, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = _Norm(inputs, 4 * inputs, 1)
        self.head = nn.Linear(4 * inputs, classes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.last(x))
        return functional.cross_entropy(self.head(x.mean((2, 3))), target)


class _Double(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Norm(inputs, outputs, 3)
        self.second = _Norm(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))))


class UNet(_Images):
    """Ronneberger et al. (2015), padded and with batch normalisation: a class for every pixel."""

    def __init__(self, size: int, classes: int = 4, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__(3, size, classes)
        self.down = nn.ModuleList(_Double(a, b) for a, b in pairwise((3, *widths)))
        steps = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in steps)
        self.merge = nn.ModuleList(_Double(2 * b, b) for _, b in steps)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Images and the classes of their pixels."""
        x = generator.standard_normal((batch, *self.shape), np.float32)
        return {"x": x, "target": generator.integers(0, self.classes, (batch, *self.shape[1:]))}

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if skipped else x)
            skipped.append(x)
        for up, merge, skip in zip(self.up, self.merge, skipped[-2::-1], strict=True):
            x = merge(torch.cat((skip, up(x)), 1))
        return functional.cross_entropy(self.head(x), target)
