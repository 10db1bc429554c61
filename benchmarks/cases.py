"""A suite with its files: the model written once by PyTorch's exporter, weights, inputs, and PyTorch's own gradients."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import import_module
from io import StringIO
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from benchmarks.suites import Suite

__all__ = ["Case", "cache_folder", "model_of", "prepare"]

_OPSET = 17
_DIFFERENCE = 1e-3  # of a gradient from the right one, relative to its norm
_OWN = 4  # times the effect of rounding, where that is more: kinks and batch normalisation amplify it in deep networks
_ROUNDING = 1e-6  # relative disturbance of weights and inputs by which that effect is measured, and of how many draws
_DRAWS = 3
_NOISE = 1e-6  # relative to all gradients together: some (of the bias of attention's keys) are 0 but for rounding


@dataclass(frozen=True)
class Case:
    """What every peer is given.

    Attributes:
        suite: the suite.
        path: the model as ONNX, with the loss as its output and the parameters as initializers.
        parameters, inputs: the arrays.
        loss, gradients: PyTorch's in float64.
        errors: what rounding does to those, as norms: how far PyTorch's in float32 are off, and how far they move in float64
            where weights and inputs are disturbed as much as float32 disturbs them.
    """

    suite: Suite
    path: Path
    parameters: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    loss: float
    gradients: Mapping[str, np.ndarray]
    errors: Mapping[str, float]

    @classmethod
    def of(cls, suite: Suite) -> Case:
        """Read the files that `prepare` has written."""
        folder = _folder(suite)
        with np.load(folder / "arrays.npz") as arrays:
            parts: dict[str, dict[str, np.ndarray]] = {"p": {}, "x": {}, "g": {}, "e": {}}
            for key in arrays.files:
                kind, _, name = key.partition("/")
                if kind in parts:
                    parts[kind][name] = arrays[key]
            errors = {name: float(error) for name, error in parts["e"].items()}
            return cls(suite, folder / "model.onnx", parts["p"], parts["x"], float(arrays["loss"]), parts["g"], errors)

    def check(self, loss: float, gradients: Mapping[str, Any]) -> None:
        """Hold a result against the right one.

        Raises:
            ValueError: it is another one.
        """
        if not abs(loss - self.loss) <= _DIFFERENCE * abs(self.loss):
            raise ValueError(f"the loss is {loss:.6g} in place of {self.loss:.6g}")
        norms = {name: _norm(expected) for name, expected in self.gradients.items()}
        noise = _NOISE * float(np.linalg.norm(list(norms.values())))
        for name, expected in self.gradients.items():
            found = np.asarray(gradients[name])
            if found.shape != expected.shape:
                raise ValueError(f"the gradient of {name} has the shape {found.shape} in place of {expected.shape}")
            difference = _norm(found - expected)
            if not difference <= max(_DIFFERENCE * norms[name], _OWN * self.errors[name]) + noise:
                raise ValueError(f"the gradient of {name} is off by {difference / (norms[name] or 1):.1e}")


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def cache_folder() -> Path:
    """Where the files go: outside of the tree, in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "irgrad-benchmarks"


def model_of(suite: Suite) -> Any:
    """The suite's module in training mode, with the weights that all peers have."""
    import torch

    module, _, name = suite.model.partition(":")
    torch.manual_seed(0)
    return getattr(import_module(f"benchmarks.models.{module}"), name)(**suite.settings).train()


def prepare(suite: Suite) -> None:
    """Write the files of a suite, unless they are there."""
    folder = _folder(suite)
    if (folder / "arrays.npz").exists():
        return
    import torch

    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = model_of(suite)
    inputs = model.sample(np.random.default_rng(0), suite.batch)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    parameters = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    _, single = _gradients(model, list(tensors.values()))
    with _silent():
        torch.onnx.export(
            model,
            tuple(tensors.values()),
            str(folder / "model.onnx"),
            input_names=list(tensors),
            output_names=["loss"],
            opset_version=_OPSET,
            # The newer exporter (dynamo=True) writes batch normalisation that trains as if it did not.
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )
    model.double()
    loss, gradients = _gradients(model, [t.double() if t.is_floating_point() else t for t in tensors.values()])
    errors = {name: _norm(single[name] - g) for name, g in gradients.items()}
    for moved in _disturbed(model, list(tensors.values())):
        errors = {name: max(error, _norm(moved[name] - gradients[name])) for name, error in errors.items()}
    arrays = {
        "loss": np.asarray(loss),
        **{f"p/{name}": array for name, array in parameters.items()},
        **{f"x/{name}": array for name, array in inputs.items()},
        **{f"g/{name}": g for name, g in gradients.items()},
        **{f"e/{name}": np.asarray(error) for name, error in errors.items()},
    }
    part = folder / "part.npz"
    np.savez(part, **arrays)
    part.rename(folder / "arrays.npz")  # written last: it says that the folder is whole


def _gradients(model: Any, inputs: list[Any]) -> tuple[float, dict[str, np.ndarray]]:
    import torch

    loss = model(*inputs)
    found = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), {name: g.numpy() for (name, _), g in zip(model.named_parameters(), found, strict=True)}


def _disturbed(model: Any, inputs: list[Any]) -> Iterator[dict[str, np.ndarray]]:
    """The gradients in float64 with weights and inputs disturbed a little, some times; the model is left disturbed."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def disturb(tensor: Any) -> Any:
        noise = torch.empty(tensor.shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        return tensor.double() * (1 + _ROUNDING * noise)

    weights = [(p, p.detach().clone()) for p in model.parameters()]
    for _ in range(_DRAWS):
        with torch.no_grad():
            for parameter, weight in weights:
                parameter.copy_(disturb(weight))
        yield _gradients(model, [disturb(t) if t.is_floating_point() else t for t in inputs])[1]


def _folder(suite: Suite) -> Path:
    """The folder of a suite; it changes with the models, the settings, PyTorch, and what is written here."""
    from importlib.metadata import version

    told = sha256(repr((sorted(asdict(suite).items(), key=str), version("torch"), _OPSET)).encode())
    for path in (Path(__file__), *sorted((Path(__file__).parent / "models").glob("*.py"))):
        told.update(path.read_bytes())
    return cache_folder() / f"{suite.name}-{told.hexdigest()[:12]}"


@contextmanager
def _silent() -> Iterator[None]:
    """Without the progress that the exporter prints."""
    import logging
    import warnings

    printed, sys.stdout = sys.stdout, StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout = printed
        logging.disable(logging.NOTSET)
