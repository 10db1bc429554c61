"""The building blocks in HIPS autograd, which differentiates numpy and brings no convolutions of use for networks."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
from autograd.scipy.special import erf

from benchmarks.functional.ops import Ops

__all__ = ["AutogradOps"]


class AutogradOps(Ops):
    """Channels first. Convolutions are a product of matrices over shifted views (im2col)."""

    np: Any = anp
    channels = 1

    def parameter(self, array: Any) -> Any:
        return array

    def gradient(self, array: Any) -> Any:
        return array

    def images(self, x: Any) -> Any:
        return x

    def rows(self, x: Any) -> Any:
        return anp.reshape(anp.transpose(x, (0, 2, 3, 1)), (-1, x.shape[1]))

    def flatten(self, x: Any) -> Any:
        return anp.reshape(x, (len(x), -1))

    def conv(self, x: Any, w: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
        if groups != 1:
            raise ValueError("grouped convolutions have no form in HIPS autograd here")
        kernel = w.shape[2]
        if padding:
            x = anp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), "constant")
        n, c, h, width = x.shape
        rows, columns = (h - kernel) // stride + 1, (width - kernel) // stride + 1
        shifted = [
            x[:, :, i : i + rows * stride : stride, j : j + columns * stride : stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
        table = anp.reshape(anp.stack(shifted, 2), (n, c * kernel * kernel, rows * columns))
        return anp.reshape(anp.matmul(anp.reshape(w, (len(w), -1)), table), (n, len(w), rows, columns))

    def up(self, x: Any, w: Any) -> Any:
        n, _, h, width = x.shape
        _, outputs, k, _ = w.shape
        return anp.reshape(anp.einsum("nchw,coij->nohiwj", x, w), (n, outputs, h * k, width * k))

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int = 0) -> Any:
        if (kernel, padding) != (stride, 0):
            raise ValueError("pools that overlap have no form in HIPS autograd here")
        n, c, h, width = x.shape
        return anp.max(anp.reshape(x, (n, c, h // kernel, kernel, width // kernel, kernel)), (3, 5))

    def erf(self, x: Any) -> Any:
        return erf(x)

    def scan(self, step: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        results = []
        for x in inputs:
            state, y = step(state, x)
            results.append(y)
        return state, anp.stack(results)
