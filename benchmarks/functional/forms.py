"""The models as functions ``loss(f, p, *inputs, **settings)``, with the settings of the classes in benchmarks.models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from benchmarks.functional.ops import Ops, Parameters

__all__ = ["bert", "gpt2", "lenet", "lstm", "mlp", "mobilenetv2", "resnet", "unet", "vit"]


def mlp(f: Ops, p: Parameters, x: Any, target: Any, /, *, sizes: Sequence[int]) -> Any:
    """A perceptron."""
    last = len(sizes) - 2
    for layer in range(last):
        x = f.relu(f.linear(p, f"layers.{layer}", x))
    return f.cross_entropy(f.linear(p, f"layers.{last}", x), target)


# --- convolutional ----------------------------------------------------------------------------------------------------


def lenet(f: Ops, p: Parameters, x: Any, target: Any) -> Any:
    """Two convolutions and two linear layers."""
    x = f.images(x)
    for name in ("conv1", "conv2"):
        x = f.add_bias(f.conv(x, p[f"{name}.weight"], padding=2), p[f"{name}.bias"])
        x = f.max_pool(f.relu(x), 2, 2)
    return f.cross_entropy(f.linear(p, "fc2", f.relu(f.linear(p, "fc1", f.flatten(x)))), target)


def _norm(f: Ops, p: Parameters, name: str, x: Any, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    return f.batch_norm(p, f"{name}.norm", f.conv(x, p[f"{name}.conv.weight"], stride, kernel // 2, groups))


def _pooled(f: Ops, x: Any) -> Any:
    return f.np.mean(x, (1, 2) if f.channels == -1 else (2, 3))


def resnet(f: Ops, p: Parameters, x: Any, target: Any, /, *, depths: Sequence[int] = (2, 2, 2, 2), **_: Any) -> Any:
    """A ResNet of basic blocks."""
    x = f.max_pool(f.relu(_norm(f, p, "stem", f.images(x), 7, 2)), 3, 2, 1)
    number = count()
    for stage, depth in enumerate(depths):
        for position in range(depth):
            name = f"blocks.{next(number)}"
            stride = 2 if stage and not position else 1
            y = f.relu(_norm(f, p, f"{name}.first", x, 3, stride))
            if f"{name}.shortcut.conv.weight" in p:
                x = _norm(f, p, f"{name}.shortcut", x, 1, stride)
            x = f.relu(x + _norm(f, p, f"{name}.second", y, 3))
    return f.cross_entropy(f.linear(p, "head", _pooled(f, x)), target)


def mobilenetv2(
    f: Ops, p: Parameters, x: Any, target: Any, /, *, stages: Sequence[tuple[int, int, int, int]], **_: Any
) -> Any:
    """MobileNetV2."""
    x = f.relu6(_norm(f, p, "stem", f.images(x), 3, 2))
    number = count()
    inputs = 32
    for expansion, outputs, blocks, first in stages:
        for position in range(blocks):
            name = f"blocks.{next(number)}"
            stride = 1 if position else first
            y = x if expansion == 1 else f.relu6(_norm(f, p, f"{name}.expand", x, 1))
            y = f.relu6(_norm(f, p, f"{name}.depthwise", y, 3, stride, inputs * expansion))
            y = _norm(f, p, f"{name}.project", y, 1)
            x = x + y if stride == 1 and inputs == outputs else y
            inputs = outputs
    x = f.relu6(_norm(f, p, "last", x, 1))
    return f.cross_entropy(f.linear(p, "head", _pooled(f, x)), target)


def unet(f: Ops, p: Parameters, x: Any, target: Any, /, *, widths: Sequence[int] = (32, 64, 128, 256), **_: Any) -> Any:
    """A U-Net."""

    def double(name: str, x: Any) -> Any:
        return f.relu(_norm(f, p, f"{name}.second", f.relu(_norm(f, p, f"{name}.first", x, 3)), 3))

    x = f.images(x)
    skipped: list[Any] = []
    for level in range(len(widths)):
        x = double(f"down.{level}", f.max_pool(x, 2, 2) if skipped else x)
        skipped.append(x)
    for step, skip in enumerate(skipped[-2::-1]):
        y = f.add_bias(f.up(x, p[f"up.{step}.weight"]), p[f"up.{step}.bias"])
        x = double(f"merge.{step}", f.np.concatenate((skip, y), f.channels))
    logits = f.add_bias(f.conv(x, p["head.weight"]), p["head.bias"])
    return f.cross_entropy(f.rows(logits), target.reshape(-1))


# --- transformers -----------------------------------------------------------------------------------------------------


def _attention(f: Ops, p: Parameters, name: str, x: Any, heads: int, causal: bool) -> Any:
    batch, tokens, width = x.shape
    parts = f.np.reshape(f.linear(p, f"{name}.qkv", x), (batch, tokens, 3, heads, width // heads))
    q, k, v = (f.np.transpose(parts[:, :, i], (0, 2, 1, 3)) for i in range(3))
    scores = f.np.matmul(q, f.np.transpose(k, (0, 1, 3, 2))) * (width // heads) ** -0.5
    if causal:
        visible = f.np.arange(tokens)[:, None] >= f.np.arange(tokens)
        scores = f.np.where(visible, scores, -1e30)
    mixed = f.np.matmul(f.softmax(scores), v)
    return f.linear(p, f"{name}.out", f.np.reshape(f.np.transpose(mixed, (0, 2, 1, 3)), (batch, tokens, width)))


def _block(
    f: Ops, p: Parameters, name: str, x: Any, heads: int, *, first: bool, causal: bool = False, approximate: bool = False
) -> Any:
    def feed_forward(x: Any) -> Any:
        return f.linear(p, f"{name}.fc2", f.gelu(f.linear(p, f"{name}.fc1", x), approximate))

    if first:
        x = x + _attention(f, p, f"{name}.attention", f.layer_norm(p, f"{name}.norm1", x), heads, causal)
        return x + feed_forward(f.layer_norm(p, f"{name}.norm2", x))
    x = f.layer_norm(p, f"{name}.norm1", x + _attention(f, p, f"{name}.attention", x, heads, causal))
    return f.layer_norm(p, f"{name}.norm2", x + feed_forward(x))


def bert(f: Ops, p: Parameters, tokens: Any, target: Any, /, *, heads: int = 4, depth: int = 4, **_: Any) -> Any:
    """BERT as a classifier."""
    x = f.layer_norm(p, "norm", p["words.weight"][tokens] + p["positions"])
    for layer in range(depth):
        x = _block(f, p, f"blocks.{layer}", x, heads, first=False)
    return f.cross_entropy(f.linear(p, "head", f.np.tanh(f.linear(p, "pooler", x[:, 0]))), target)


def gpt2(f: Ops, p: Parameters, tokens: Any, target: Any, /, *, heads: int = 4, depth: int = 4, **_: Any) -> Any:
    """GPT-2 as a language model."""
    x = p["words.weight"][tokens] + p["positions"]
    for layer in range(depth):
        x = _block(f, p, f"blocks.{layer}", x, heads, first=True, causal=True, approximate=True)
    x = f.layer_norm(p, "norm", x)
    logits = f.np.dot(f.np.reshape(x, (-1, x.shape[-1])), p["words.weight"].T)
    return f.cross_entropy(logits, target.reshape(-1))


def vit(f: Ops, p: Parameters, x: Any, target: Any, /, *, patch: int = 4, heads: int = 3, depth: int = 4, **_: Any) -> Any:
    """A vision transformer."""
    x = f.add_bias(f.conv(f.images(x), p["patches.weight"], patch), p["patches.bias"])
    x = f.np.reshape(f.rows(x), (len(x), -1, p["token"].shape[-1]))
    token = f.np.broadcast_to(p["token"], (len(x), 1, x.shape[-1]))
    x = f.np.concatenate((token, x), 1) + p["positions"]
    for layer in range(depth):
        x = _block(f, p, f"blocks.{layer}", x, heads, first=True)
    return f.cross_entropy(f.linear(p, "head", f.layer_norm(p, "norm", x[:, 0])), target)


# --- recurrent --------------------------------------------------------------------------------------------------------


def lstm(f: Ops, p: Parameters, x: Any, target: Any, /, *, layers: int = 2, bidirectional: bool = False, **_: Any) -> Any:
    """Stacked LSTM layers: all projections of the inputs at once, then step by step."""

    def run(name: str, x: Any) -> Any:
        recurrent = p[f"lstm.weight_hh_{name}"].T
        projected = f.np.dot(x, p[f"lstm.weight_ih_{name}"].T) + (p[f"lstm.bias_ih_{name}"] + p[f"lstm.bias_hh_{name}"])
        size = len(recurrent)

        def step(state: Any, projected: Any) -> Any:
            h, c = state
            gates = projected + f.np.dot(h, recurrent)
            i, o = f.sigmoid(gates[:, :size]), f.sigmoid(gates[:, 3 * size :])
            forget, g = f.sigmoid(gates[:, size : 2 * size]), f.np.tanh(gates[:, 2 * size : 3 * size])
            c = forget * c + i * g
            h = o * f.np.tanh(c)
            return (h, c), h

        zeros = f.np.zeros((x.shape[1], size), x.dtype)
        return f.scan(step, (zeros, zeros), projected)[1]

    for layer in range(layers):
        y = run(f"l{layer}", x)
        if bidirectional:
            y = f.np.concatenate((y, run(f"l{layer}_reverse", x[::-1])[::-1]), -1)
        x = y
    return f.cross_entropy(f.linear(p, "head", x[-1]), target)
