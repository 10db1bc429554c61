"""Optimizers as passes: to a graph that returns gradients they add what moves the parameters by them.

The formulae, their defaults and the order of their operations are those of torch.optim, so that training goes on as it would
there; each pass names the paper behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import PassError
from irgrad.graph import Graph, Value
from irgrad.passes.training.optimizer import POSITIVE, SHARE, Optimizer, Update

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Lion", "RMSprop"]


def _decayed(x: Value, g: Value, decay: float) -> Value:
    """The gradient with that of the penalty decay/2 · |x|² added."""
    return g + x * decay if decay else g


def _mean(old: Value, new: Value, share: float) -> Value:
    """The exponential moving average (1 − share) · old + share · new."""
    return old + (new - old) * share


def _mean_square(old: Value, g: Value, keep: float) -> Value:
    return old * keep + g * (1 - keep) * g


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted: g ← g + λx; v ← μv + (1 − τ)g; x ← x − ηv.

    In the first step v is g, whatever the dampening. With `nesterov`, x ← x − η(g + μv).

    Reference: Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013, with the
    learning rate outside of the momentum, as in torch.optim.SGD.

    Attributes:
        momentum: μ; 0 for none, then nothing is remembered.
        dampening: τ.
        nesterov: Nesterov's momentum, which looks ahead.
    """

    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"momentum": POSITIVE}

    @property
    def states(self) -> Mapping[str, float]:
        return {"v": 0.0} if self.momentum else {}

    @property
    def counts(self) -> bool:
        return bool(self.momentum and self.dampening)

    def requires(self, graph: Graph) -> None:
        super().requires(graph)
        if self.nesterov and (not self.momentum or self.dampening):
            raise PassError("nesterov=true needs a momentum and no dampening")

    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        share = None
        if count is not None:
            share = b.op("Where", b.op("Equal", count, 1), b.scalar(1, rate), b.scalar(1 - self.dampening, rate))

        def update(x: Value, g: Value, decay: float, v: Value | None = None) -> tuple[Value, ...]:
            g = _decayed(x, g, decay)
            if v is None:
                return (x - rate * g,)
            v = v * self.momentum + (g if share is None else g * share)
            return x - rate * (g + v * self.momentum if self.nesterov else v), v

        return update


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Steps that shrink with the squares seen so far: g ← g + λx; s ← s + g²; x ← x − η/(1 + (t − 1)κ) · g/(√s + ε).

    Reference: Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR
    12, 2011, as in torch.optim.Adagrad.

    Attributes:
        rate_decay: κ, by which the learning rate shrinks as well (torch's lr_decay).
        initial: what s begins with (torch's initial_accumulator_value).
        eps: ε.
    """

    name: ClassVar[str] = "adagrad"
    rate_decay: float = 0.0
    initial: float = 0.0
    eps: float = 1e-10

    limits: ClassVar[Mapping[str, tuple[float, float]]] = dict.fromkeys(("rate_decay", "initial", "eps"), POSITIVE)

    @property
    def states(self) -> Mapping[str, float]:
        return {"s": self.initial}

    @property
    def counts(self) -> bool:
        return bool(self.rate_decay)

    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        if count is not None:
            rate = rate / (b.cast(count - 1, rate.dtype) * self.rate_decay + 1)

        def update(x: Value, g: Value, decay: float, s: Value) -> tuple[Value, ...]:
            g = _decayed(x, g, decay)
            s = s + g * g
            return x - rate * g / (b.op("Sqrt", s) + self.eps), s

        return update


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps in units of the gradient's root mean square: g ← g + λx; s ← αs + (1 − α)g²; x ← x − η · g/(√s + ε).

    With a momentum, v ← μv + g/(√s + ε) and x ← x − ηv. With `centered`, the mean of g squared is taken off s: its variance
    remains, which counts as 0 where rounding makes it negative (torch.optim.RMSprop gives NaN there).

    Reference: Tieleman and Hinton, Lecture 6.5 of Neural Networks for Machine Learning, 2012; centered: Graves, Generating
    Sequences With Recurrent Neural Networks, 2013, equations 38 to 45, with ε outside of the root, as in torch.

    Attributes:
        alpha: α.
        eps: ε.
        momentum: μ; 0 for none.
        centered: divide by the standard deviation.
    """

    name: ClassVar[str] = "rmsprop"
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": SHARE, "eps": POSITIVE, "momentum": POSITIVE}

    @property
    def states(self) -> Mapping[str, float]:
        wanted = {"s": True, "mean": self.centered, "v": bool(self.momentum)}
        return {state: 0.0 for state, there in wanted.items() if there}

    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        def update(x: Value, g: Value, decay: float, s: Value, *others: Value) -> tuple[Value, ...]:
            remembered = dict(zip([*self.states][1:], others, strict=True))
            g = _decayed(x, g, decay)
            s = variance = _mean_square(s, g, self.alpha)
            if self.centered:
                mean = remembered["mean"] = _mean(remembered["mean"], g, 1 - self.alpha)
                variance = b.op("Max", s - mean * mean, 0)
            root = b.op("Sqrt", variance) + self.eps
            if not self.momentum:
                return x - rate * g / root, s, *remembered.values()
            v = remembered["v"] = remembered["v"] * self.momentum + g / root
            return x - rate * v, s, *remembered.values()

        return update


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: g ← g + λx; m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; x ← x − η · m̂/(√v̂ + ε).

    m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) make up for m and v having begun as 0. The powers are computed in float64.

    Reference: Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1, as in torch.optim.Adam.

    Attributes:
        beta1: β₁.
        beta2: β₂.
        eps: ε.
    """

    name: ClassVar[str] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"beta1": SHARE, "beta2": SHARE, "eps": POSITIVE}
    decoupled: ClassVar[bool] = False

    @property
    def states(self) -> Mapping[str, float]:
        return {"m": 0.0, "v": 0.0}

    @property
    def counts(self) -> bool:
        return True

    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        assert count is not None
        exponent = b.cast(count, np.dtype(np.float64))
        first, second = (1 - b.op("Pow", b.scalar(beta, exponent), exponent) for beta in (self.beta1, self.beta2))
        size = rate / b.cast(first, rate.dtype)
        scale = b.cast(b.op("Sqrt", second), rate.dtype)

        def update(x: Value, g: Value, decay: float, m: Value, v: Value) -> tuple[Value, ...]:
            if not self.decoupled:
                g = _decayed(x, g, decay)
            elif decay:
                x = x * (1 - rate * decay)
            m, v = _mean(m, g, 1 - self.beta1), _mean_square(v, g, self.beta2)
            return x - size * m / (b.op("Sqrt", v) / scale + self.eps), m, v

        return update


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: first x ← (1 − ηλ)x, then a step of Adam by the gradient alone.

    Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2, as in torch.optim.AdamW.
    """

    name: ClassVar[str] = "adamw"
    weight_decay: float = 0.01

    decoupled: ClassVar[bool] = True


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion: x ← x − η(sign(β₁m + (1 − β₁)g) + λx); m ← β₂m + (1 − β₂)g.

    Reference: Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Attributes:
        beta1: β₁.
        beta2: β₂.
    """

    name: ClassVar[str] = "lion"
    beta1: float = 0.9
    beta2: float = 0.99

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"beta1": SHARE, "beta2": SHARE}

    @property
    def states(self) -> Mapping[str, float]:
        return {"m": 0.0}

    def rule(self, b: Builder, rate: Value, count: Value | None) -> Update:
        def update(x: Value, g: Value, decay: float, m: Value) -> tuple[Value, ...]:
            direction = _decayed(x, b.op("Sign", _mean(m, g, 1 - self.beta1)), decay)
            return x - rate * direction, _mean(m, g, 1 - self.beta2)

        return update
