"""What the models are made of: what JAX and HIPS autograd share here, and what each does in its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

__all__ = ["Ops", "Parameters"]

Parameters = Mapping[str, Any]


class Ops(ABC):
    """The building blocks.

    Attributes:
        np: the library's form of numpy.
        channels: the axis of images' channels in the layout that the library is fast in.
    """

    np: Any
    channels: int

    # --- layouts ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def parameter(self, array: Any) -> Any:
        """A parameter of PyTorch's in this library's layout."""

    @abstractmethod
    def gradient(self, array: Any) -> Any:
        """The gradient of a parameter, in PyTorch's layout."""

    @abstractmethod
    def images(self, x: Any) -> Any:
        """PyTorch's images in this library's layout."""

    @abstractmethod
    def rows(self, x: Any) -> Any:
        """All pixels of all images as rows of channels."""

    @abstractmethod
    def flatten(self, x: Any) -> Any:
        """Each image as a row, in PyTorch's order."""

    # --- operations ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def conv(self, x: Any, w: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
        """A convolution."""

    @abstractmethod
    def up(self, x: Any, w: Any) -> Any:
        """A transposed convolution whose stride is its kernel."""

    @abstractmethod
    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any:
        """The largest pixel of each window."""

    @abstractmethod
    def erf(self, x: Any) -> Any:
        """The error function."""

    @abstractmethod
    def scan(self, step: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        """``state, y = step(state, x)`` over the first axis; the last state and all y."""

    def relu(self, x: Any) -> Any:
        return self.np.maximum(x, 0)

    def relu6(self, x: Any) -> Any:
        return self.np.clip(x, 0, 6)

    def sigmoid(self, x: Any) -> Any:
        return 0.5 * self.np.tanh(0.5 * x) + 0.5

    def gelu(self, x: Any, approximate: bool) -> Any:
        """By the error function, or by tanh."""
        if approximate:
            return 0.5 * x * (1 + self.np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1 + self.erf(0.7071067811865476 * x))

    def linear(self, p: Parameters, name: str, x: Any) -> Any:
        return self.np.dot(x, p[f"{name}.weight"].T) + p[f"{name}.bias"]

    def add_bias(self, x: Any, bias: Any) -> Any:
        """Add one number to each channel."""
        return x + (bias if self.channels == -1 else bias[:, None, None])

    def batch_norm(self, p: Parameters, name: str, x: Any) -> Any:
        axes = (0, 1, 2) if self.channels == -1 else (0, 2, 3)
        mean = self.np.mean(x, axes, keepdims=True)
        centred = x - mean
        variance = self.np.mean(centred * centred, axes, keepdims=True)
        scale, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        if self.channels != -1:
            scale = scale[:, None, None]
        return self.add_bias(centred / self.np.sqrt(variance + 1e-5) * scale, bias)

    def layer_norm(self, p: Parameters, name: str, x: Any) -> Any:
        centred = x - self.np.mean(x, -1, keepdims=True)
        variance = self.np.mean(centred * centred, -1, keepdims=True)
        return centred / self.np.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def softmax(self, x: Any) -> Any:
        exponentials = self.np.exp(x - self.np.max(x, -1, keepdims=True))
        return exponentials / self.np.sum(exponentials, -1, keepdims=True)

    def cross_entropy(self, logits: Any, target: Any) -> Any:
        """The mean over the rows."""
        shifted = logits - self.np.max(logits, -1, keepdims=True)
        picked = shifted[self.np.arange(len(target)), target]
        return self.np.mean(self.np.log(self.np.sum(self.np.exp(shifted), -1)) - picked)
