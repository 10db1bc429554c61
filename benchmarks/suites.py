"""The suites: which models, and how large. The sizes are such that a step takes what the table in the docs says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NINE", "SUITES", "Suite"]

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True)
class Suite:
    """A training step: the loss of a batch and the gradients of all parameters.

    Attributes:
        name: what it is called.
        model: module and class in `benchmarks.models`.
        form: function in `benchmarks.functional.forms`.
        batch: how many examples.
        settings: what the class and the function take.
        what: the model in words.
        quick: what replaces some of the settings, and "batch", for a quick run that only shows that all of it works.
    """

    name: str
    model: str
    form: str
    batch: int
    settings: Mapping[str, Any]
    what: str
    quick: Mapping[str, Any] = field(default_factory=dict)

    def small(self) -> Suite:
        """The quick form."""
        batch = self.quick.get("batch", 2)
        settings = {**self.settings, **{k: v for k, v in self.quick.items() if k != "batch"}}
        return Suite(f"{self.name}-quick", self.model, self.form, batch, settings, "a small form of it")

    @property
    def title(self) -> str:
        """Name, model and batch."""
        return f"{self.name}: {self.what}, batch {self.batch}"


_ALL = (
    Suite("mlp_tiny", "mlp:Mlp", "mlp", 32, {"sizes": (64, 64, 64, 10)}, "64-64-64-10", {"batch": 32}),
    Suite("mlp_mnist", "mlp:Mlp", "mlp", 128, {"sizes": (784, 512, 512, 10)}, "784-512-512-10", {"batch": 8}),
    Suite(
        "mlp_wide", "mlp:Mlp", "mlp", 256, {"sizes": (2048, 2048, 2048, 10)}, "2048-2048-2048-10", {"sizes": (96, 96, 10)}
    ),
    Suite("lenet", "convnets:LeNet", "lenet", 128, {}, "28×28, two 5×5 convolutions of 32 and 64", {}),
    Suite(
        "resnet",
        "convnets:ResNet",
        "resnet",
        8,
        {"size": 64, "depths": (2, 2, 2, 2)},
        "ResNet-18, 64×64",
        {"size": 32, "width": 8, "depths": (1, 1)},
    ),
    Suite(
        "mobilenetv2",
        "convnets:MobileNetV2",
        "mobilenetv2",
        8,
        {"size": 96, "stages": _STAGES},
        "MobileNetV2, 96×96",
        {"size": 32, "stages": _STAGES[:2]},
    ),
    Suite(
        "bert",
        "transformers:Bert",
        "bert",
        8,
        {"tokens": 128, "width": 256, "heads": 4, "depth": 4},
        "BERT, 4 layers of 256, 128 tokens",
        {"tokens": 8, "width": 16, "heads": 2, "depth": 1, "vocabulary": 64},
    ),
    Suite(
        "gpt2",
        "transformers:Gpt2",
        "gpt2",
        8,
        {"tokens": 128, "width": 256, "heads": 4, "depth": 4},
        "GPT-2, 4 layers of 256, 128 tokens, 8192 words",
        {"tokens": 8, "width": 16, "heads": 2, "depth": 1, "vocabulary": 64},
    ),
    Suite(
        "vit",
        "transformers:Vit",
        "vit",
        8,
        {"size": 32, "patch": 4, "width": 192, "heads": 3, "depth": 4},
        "ViT, 4 layers of 192, 65 tokens",
        {"size": 8, "patch": 4, "width": 16, "heads": 2, "depth": 1},
    ),
    Suite(
        "unet",
        "convnets:UNet",
        "unet",
        4,
        {"size": 64, "widths": (32, 64, 128, 256)},
        "U-Net of 32 to 256 channels, 64×64",
        {"size": 16, "widths": (4, 8)},
    ),
    Suite(
        "lstm",
        "recurrent:Lstm",
        "lstm",
        32,
        {"size": 256, "steps": 64, "layers": 2},
        "two LSTM layers of 256, 64 steps",
        {"size": 8, "steps": 4},
    ),
)

SUITES = {suite.name: suite for suite in _ALL}
"""All suites by name."""

NINE = ("mlp_tiny", "mlp_mnist", "mlp_wide", "lenet", "resnet", "mobilenetv2", "bert", "gpt2", "vit")
"""Those that the geometric mean is of."""
