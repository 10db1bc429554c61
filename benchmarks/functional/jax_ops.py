"""The building blocks in JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.functional.ops import Ops

__all__ = ["JaxOps"]


class JaxOps(Ops):
    """Channels last, which XLA is fast in on a CPU."""

    np: Any = jnp
    channels = -1

    def parameter(self, array: Any) -> Any:
        return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)

    def gradient(self, array: Any) -> Any:
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array

    def images(self, x: Any) -> Any:
        return x.transpose(0, 2, 3, 1)

    def rows(self, x: Any) -> Any:
        return x.reshape(-1, x.shape[-1])

    def flatten(self, x: Any) -> Any:
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1)

    def conv(self, x: Any, w: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
        return lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def up(self, x: Any, w: Any) -> Any:
        n, h, width, _ = x.shape
        k, _, outputs, _ = w.shape
        return jnp.einsum("nhwc,ijoc->nhiwjo", x, w).reshape(n, h * k, width * k, outputs)

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any:
        pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), pads)

    def erf(self, x: Any) -> Any:
        return lax.erf(x)

    def relu(self, x: Any) -> Any:
        return jax.nn.relu(x)

    def relu6(self, x: Any) -> Any:
        return jax.nn.relu6(x)

    def sigmoid(self, x: Any) -> Any:
        return jax.nn.sigmoid(x)

    def gelu(self, x: Any, approximate: bool) -> Any:
        return jax.nn.gelu(x, approximate=approximate)

    def softmax(self, x: Any) -> Any:
        return jax.nn.softmax(x)

    def scan(self, step: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        return lax.scan(step, state, inputs)
