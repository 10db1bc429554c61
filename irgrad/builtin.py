"""The plugin that irgrad itself is: its operations, frontends, passes and executors."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from irgrad.ops import Operations
from irgrad.plugin import Plugin

__all__ = ["plugin"]


def _lazy(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(module), name)


plugin = Plugin(
    name="irgrad",
    operations=Operations(),
    frontends={
        "ir": lambda: _lazy("irgrad.frontends.text", "TextFrontend")()(),
        "onnx": lambda: _lazy("irgrad.frontends.onnx", "OnnxFrontend")()(),
    },
    passes={
        "vjp": _lazy("irgrad.passes.autodiff.derivatives", "Vjp"),
        "grad": _lazy("irgrad.passes.autodiff.derivatives", "Grad"),
        "jvp": _lazy("irgrad.passes.autodiff.derivatives", "Jvp"),
        "hvp": _lazy("irgrad.passes.autodiff.derivatives", "Hvp"),
        "loss": _lazy("irgrad.passes.loss", "Loss"),
        "canonicalize": _lazy("irgrad.passes.simplify.canonicalize", "Canonicalize"),
        "fold": _lazy("irgrad.passes.simplify.fold", "Fold"),
        "cse": _lazy("irgrad.passes.simplify.cse", "CommonSubexpressions"),
        "dce": _lazy("irgrad.passes.simplify.dce", "DeadCode"),
        "simplify": _lazy("irgrad.passes.simplify.fixpoint", "Simplify"),
        "convert_float": _lazy("irgrad.passes.convert_float", "ConvertFloat"),
        "train_mode": _lazy("irgrad.passes.training.train_mode", "TrainMode"),
        "fuse": _lazy("irgrad.passes.fusion.fuse", "Fuse"),
        "unfuse": _lazy("irgrad.passes.fusion.fuse", "Unfuse"),
        "explicit_keys": _lazy("irgrad.passes.training.explicit_keys", "ExplicitKeys"),
        "clip_grad_norm": _lazy("irgrad.passes.training.gradients", "ClipGradNorm"),
        "clip_grad_value": _lazy("irgrad.passes.training.gradients", "ClipGradValue"),
        "sgd": _lazy("irgrad.passes.training.optimizers", "SGD"),
        "adagrad": _lazy("irgrad.passes.training.optimizers", "Adagrad"),
        "rmsprop": _lazy("irgrad.passes.training.optimizers", "RMSprop"),
        "adam": _lazy("irgrad.passes.training.optimizers", "Adam"),
        "adamw": _lazy("irgrad.passes.training.optimizers", "AdamW"),
        "lion": _lazy("irgrad.passes.training.optimizers", "Lion"),
    },
    executors={
        "numpy": _lazy("irgrad.runtime.executable", "NumpyExecutable"),
        "onnxruntime": _lazy("irgrad.executors.onnx_runtime", "OnnxRuntimeExecutable"),
        "reference": _lazy("irgrad.executors.onnx_reference", "ReferenceExecutable"),
    },
)
