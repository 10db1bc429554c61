"""Transformers, without dropout; attention is PyTorch's fused one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Bert", "Gpt2", "Vit"]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Block(nn.Module):
    """Attention and two linear layers.

    Args:
        first: normalise before each of the two (GPT-2, ViT) and not after it (BERT).
        approximate: which form of GELU.
    """

    def __init__(self, width: int, heads: int, *, first: bool, causal: bool = False, approximate: str = "none") -> None:
        super().__init__()
        self.attention = _Attention(width, heads, causal)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.approximate = first, approximate

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.attention(self.norm1(x))
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x), approximate=self.approximate))


class _Text(nn.Module):
    """What the two language models have in common."""

    def __init__(self, vocabulary: int, tokens: int, width: int) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, tokens
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        nn.init.normal_(self.words.weight, std=0.02)

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Tokens, and the token that follows each."""
        text = generator.integers(0, self.vocabulary, (batch, self.length + 1))
        return {"tokens": np.ascontiguousarray(text[:, :-1]), "target": np.ascontiguousarray(text[:, 1:])}


class Bert(_Text):
    """Devlin et al. (2018), fine-tuned as a classifier of texts by its first token."""

    def __init__(
        self, vocabulary: int = 8192, tokens: int = 128, width: int = 256, heads: int = 4, depth: int = 4, classes: int = 4
    ) -> None:
        super().__init__(vocabulary, tokens, width)
        self.classes = classes
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_Block(width, heads, first=False) for _ in range(depth))
        self.pooler = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Texts and one class each."""
        tokens = generator.integers(0, self.vocabulary, (batch, self.length))
        return {"tokens": tokens, "target": generator.integers(0, self.classes, batch)}

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.positions)
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(torch.tanh(self.pooler(x[:, 0]))), target)


class Gpt2(_Text):
    """Radford et al. (2019): the next token after each, the embedding shared with the last layer."""

    def __init__(self, vocabulary: int = 8192, tokens: int = 128, width: int = 256, heads: int = 4, depth: int = 4) -> None:
        super().__init__(vocabulary, tokens, width)
        self.blocks = nn.ModuleList(_Block(width, heads, first=True, causal=True, approximate="tanh") for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.words.weight)
        return functional.cross_entropy(logits.reshape(-1, self.vocabulary), target.reshape(-1))


class Vit(nn.Module):
    """Dosovitskiy et al. (2020): patches of an image as tokens, after one that stands for the class."""

    def __init__(
        self, size: int = 32, patch: int = 4, width: int = 192, heads: int = 3, depth: int = 4, classes: int = 100
    ) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(_Block(width, heads, first=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
        """Images and one class each."""
        x = generator.standard_normal((batch, 3, self.size, self.size), np.float32)
        return {"x": x, "target": generator.integers(0, self.classes, batch)}

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(self.norm(x[:, 0])), target)
