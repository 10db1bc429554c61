"""The activation functions of recurrent layers, in numpy and as emitted nodes.

They are those of ONNX's description of RNN, GRU and LSTM, which differ in one point from the operations of the same names:
ThresholdedRelu(alpha) is alpha. At a kink the derivative is that of the branch at lower x, as in `irgrad.ops.activation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError, did_you_mean
from irgrad.graph import Value
from irgrad.ops.special import sigmoid, softplus

__all__ = ["Activation", "activations_of"]


@dataclass(frozen=True)
class Activation(ABC):
    """One function with its parameters."""

    alpha: float = 0.0
    beta: float = 0.0

    parameters: ClassVar[Mapping[str, float | None]] = {}
    """The parameters that the function takes, in the order of its description → default, None where there is none."""

    @abstractmethod
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        """Write f(x) into y, which may be x."""

    @abstractmethod
    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        """Write f'(x), given y = f(x), into `out`, which is neither of them."""

    @abstractmethod
    def emit(self, b: Builder, x: Value) -> Value:
        """Emit f(x)."""

    @abstractmethod
    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        """Emit f'(x), given y = f(x); it broadcasts to the shape of x."""


# --- smooth ones ------------------------------------------------------------------------------------------------------


class Tanh(Activation):
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.tanh(x, out=y)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        np.multiply(y, y, out=out)
        np.subtract(1, out, out=out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Tanh", x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return 1 - y * y


class Sigmoid(Activation):
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, -1, out=y)  # np.negative of numpy 2.4 is wrong for some strides of x and y
        np.exp(y, out=y)
        y += 1
        np.reciprocal(y, out=y)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        np.subtract(1, y, out=out)
        out *= y

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Sigmoid", x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return y * (1 - y)


class ScaledTanh(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": None, "beta": None}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, self.beta, out=y)
        np.tanh(y, out=y)
        y *= self.alpha

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        np.multiply(x, self.beta, out=out)
        np.tanh(out, out=out)
        np.multiply(out, out, out=out)
        np.subtract(1, out, out=out)
        out *= self.alpha * self.beta

    def emit(self, b: Builder, x: Value) -> Value:
        return self.alpha * b.op("Tanh", self.beta * x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        inner = b.op("Tanh", self.beta * x)
        return self.alpha * self.beta * (1 - inner * inner)


class Affine(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": None, "beta": 0.0}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, self.alpha, out=y)
        y += self.beta

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        out.fill(self.alpha)

    def emit(self, b: Builder, x: Value) -> Value:
        return self.alpha * x + self.beta

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.scalar(self.alpha, x)


class Softsign(Activation):
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        below = np.abs(x)
        below += 1
        np.divide(x, below, out=y)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        np.abs(x, out=out)
        out += 1
        np.multiply(out, out, out=out)
        np.reciprocal(out, out=out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Softsign", x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        root = 1 - b.op("Abs", y)
        return root * root


class Softplus(Activation):
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        y[...] = softplus(x)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        out[...] = sigmoid(x)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Softplus", x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.op("Sigmoid", x)


# --- with kinks -------------------------------------------------------------------------------------------------------


def _step(condition: np.ndarray, above: float, below: float, out: np.ndarray) -> None:
    """Write one number where a condition holds and another one elsewhere."""
    out.fill(below)
    np.copyto(out, above, where=condition)


def _emit_step(b: Builder, condition: Value, above: float, below: float, like: Value) -> Value:
    return b.op("Where", condition, b.scalar(above, like), b.scalar(below, like))


class Relu(Activation):
    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.maximum(x, 0, out=y)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        _step(x > 0, 1, 0, out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Relu", x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _emit_step(b, x > 0, 1, 0, x)


class LeakyRelu(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": 0.01}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        below = np.minimum(x, 0)
        below *= self.alpha
        np.maximum(x, 0, out=y)
        y += below

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        _step(x > 0, 1, self.alpha, out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("LeakyRelu", x, alpha=self.alpha)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _emit_step(b, x > 0, 1, self.alpha, x)


class ThresholdedRelu(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": 1.0}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        below = x < self.alpha
        np.copyto(y, x)
        np.copyto(y, 0, where=below)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        _step(x > self.alpha, 1, 0, out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Where", x < self.alpha, b.scalar(0, x), x)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _emit_step(b, x > self.alpha, 1, 0, x)


class HardSigmoid(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": 0.2, "beta": 0.5}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        np.multiply(x, self.alpha, out=y)
        y += self.beta
        np.clip(y, 0, 1, out=y)

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        _step((y > 0) & (y < 1), self.alpha, 0, out)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("HardSigmoid", x, alpha=self.alpha, beta=self.beta)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _emit_step(b, b.op("And", y > 0, y < 1), self.alpha, 0, x)


class Elu(Activation):
    parameters: ClassVar[Mapping[str, float | None]] = {"alpha": 1.0}

    def apply(self, x: np.ndarray, y: np.ndarray) -> None:
        below = np.minimum(x, 0)
        np.expm1(below, out=below)
        below *= self.alpha
        np.maximum(x, 0, out=y)
        y += below

    def slope(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        np.add(y, self.alpha, out=out)
        np.copyto(out, 1, where=x > 0)

    def emit(self, b: Builder, x: Value) -> Value:
        return b.op("Elu", x, alpha=self.alpha)

    def emit_slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.op("Where", x > 0, b.scalar(1, x), y + self.alpha)


# --- as attributes tell them ------------------------------------------------------------------------------------------

_KINDS: dict[str, type[Activation]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus, Softsign, Tanh, ThresholdedRelu),
    )
}


def activations_of(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """The functions that the attributes `activations`, `activation_alpha` and `activation_beta` describe.

    Names do not tell case. "The values are consumed in the order of activation functions": each function that has a
    parameter takes the next value, as onnxruntime has it. Other readers take one value per function, whether it has the
    parameter or not; a list in which both readings find values, but not the same ones, is refused.

    Raises:
        TypeInferenceError: there is no such function, a parameter that has no default is missing, or the values can be
            read in two ways.
    """
    kinds = [_kind(name) for name in names]
    given = {"alpha": _distributed("alpha", kinds, alphas), "beta": _distributed("beta", kinds, betas)}
    return [
        kind(**{name: _value(kind, name, default, given[name][k]) for name, default in kind.parameters.items()})
        for k, kind in enumerate(kinds)
    ]


def _kind(name: str) -> type[Activation]:
    kind = _KINDS.get(name.lower())
    if kind is None:
        known = [k.__name__ for k in _KINDS.values()]
        raise TypeInferenceError(f"{name!r} is no activation function{did_you_mean(name, known)}")
    return kind


def _distributed(parameter: str, kinds: Sequence[type[Activation]], values: Sequence[float]) -> list[float | None]:
    """For each function the value that it is given, or None."""
    takers = [k for k, kind in enumerate(kinds) if parameter in kind.parameters]
    consumed = dict(zip(takers, values, strict=False))
    if len(values) > len(takers) and any(value != values[k] for k, value in consumed.items()):
        raise TypeInferenceError(
            f"activation_{parameter} has {len(values)} values, but {len(takers)} of the activation functions "
            f"{', '.join(kind.__name__ for kind in kinds)} take one; give as many, in their order"
        )
    return [consumed.get(k) for k in range(len(kinds))]


def _value(kind: type[Activation], name: str, default: float | None, given: float | None) -> float:
    value = default if given is None else given
    if value is None:
        raise TypeInferenceError(f"the activation function {kind.__name__} needs a value in activation_{name}")
    return float(value)
