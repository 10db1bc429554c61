"""Checking gradients against finite differences.

The derivative of ``<c, f(x + h v)>`` along a random direction v, for random cotangents c, is estimated by central
differences with one Richardson step at several widths h; the width whose own error estimate is smallest wins. That
estimate is part of the result: where it is larger than the tolerance (a kink in the way, a function too rough), the check
is inconclusive, which is not a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import AdjointError
from irgrad.graph import Graph, Value
from irgrad.passes.autodiff.derivatives import Vjp, Wrt, resolve_outputs, resolve_wrt
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import compile
from irgrad.types import is_differentiable

__all__ = ["GradientCheck", "GradientChecker", "check_grads"]

# The likeliest first, since the search ends at the first width that is sure of its result: 1e-6 for smooth functions, 1e-8
# to step between the kinks of a deep network of ReLUs (of a million units some change sign within any larger step).
_WIDTHS = (1e-6, 1e-8, 1e-7, 1e-5, 1e-4, 1e-9, 1e-3, 1e-2)


@dataclass(frozen=True)
class GradientCheck:
    """One direction's outcome.

    Attributes:
        analytic: the derivative along the direction, from the adjoint graph.
        numeric: the same from finite differences.
        uncertainty: how far `numeric` itself may be off, by its own estimate.
        scale: what errors are relative to: the largest of |analytic|, |numeric| and the sum over values of the products'
            norms times 1e-3, so that a derivative that happens to be near 0 is not held to its own size.
        rtol: the relative tolerance that was asked for.
    """

    analytic: float
    numeric: float
    uncertainty: float
    scale: float
    rtol: float

    @property
    def error(self) -> float:
        """|analytic − numeric| over the scale."""
        return abs(self.analytic - self.numeric) / self.scale

    @property
    def conclusive(self) -> bool:
        return bool(self.uncertainty <= 0.5 * self.rtol * self.scale)

    @property
    def ok(self) -> bool:
        return bool(self.conclusive and self.error <= self.rtol)

    def __str__(self) -> str:
        word = "agrees" if self.ok else "DISAGREES" if self.conclusive else "cannot be judged (kinks or roundoff in the way)"
        return (
            f"{word}; analytic {self.analytic:.9g}, finite differences {self.numeric:.9g} ± {self.uncertainty:.1g}, "
            f"relative error {self.error:.1e}"
        )


def check_grads(
    graph: Graph,
    feeds: Mapping[str, Any],
    wrt: Wrt = "inputs",
    outputs: Sequence[str] | None = None,
    *,
    directions: int = 2,
    rtol: float = 1e-5,
    seed: int = 0,
) -> list[GradientCheck]:
    """Check the gradients of a graph in float64 along random directions.

    Args:
        graph: a forward graph, of any precision: it is checked as converted to float64.
        feeds: where to check; floating-point arrays are converted to float64.
        wrt: see `resolve_wrt`; all the values are perturbed together, each along a random unit vector.
        outputs: see `resolve_outputs`.
        directions: how many directions to try.
        rtol: relative tolerance.
        seed: of the random directions and cotangents.

    Returns:
        One result per direction, all of them ok.

    Raises:
        AdjointError: a direction disagrees, or finite differences are inconclusive along it.
    """
    checker = GradientChecker(graph, feeds, wrt, outputs, rtol=rtol)
    # Not the stream that a caller gets from the same seed: feeds drawn from that would be equal to the cotangents.
    generator = np.random.default_rng([seed, 1])
    results = []
    for _ in range(directions):
        result = checker.check(generator)
        results.append(result)
        if not result.ok:
            raise AdjointError(f"the gradient against finite differences (tolerance {rtol:g}): {result}")
    return results


class GradientChecker:
    """Compiles a graph and its vector-Jacobian product once, in float64, for any number of directions.

    The arguments are those of `check_grads`.
    """

    def __init__(
        self,
        graph: Graph,
        feeds: Mapping[str, Any],
        wrt: Wrt = "inputs",
        outputs: Sequence[str] | None = None,
        *,
        rtol: float = 1e-5,
    ) -> None:
        double = graph.copy()
        ConvertFloat("f64").run(double)
        self._rtol = rtol
        self._feeds = {name: _as_double(feed) for name, feed in feeds.items()}
        self._start = _movable(double, list(resolve_wrt(double, wrt).values()), self._feeds)
        differentiated = resolve_outputs(double, outputs)
        double.set_outputs({**double.outputs, **differentiated})
        self._outputs = list(differentiated)
        joint = double.copy()
        Vjp(list(self._start), outputs).run(joint)
        self._gradients = {name: joint.gradients[name] for name in self._start}
        self._forward, self._backward = compile(double), compile(joint)
        self._base = self._forward(self._feeds)

    def check(self, generator: np.random.Generator, names: Sequence[str] | None = None) -> GradientCheck:
        """One random direction.

        Args:
            generator: draws the direction and the cotangents.
            names: the values to perturb, of those in `wrt`; all of them by default.
        """
        cotangents = {n: generator.standard_normal(self._base[n].shape) for n in self._outputs}
        results = self._backward({**self._feeds, **{f"{n}_cotangent": c for n, c in cotangents.items()}})
        gradients = {name: results[self._gradients[name]] for name in (names or self._start)}
        direction = {name: _unit(generator, gradient.shape) for name, gradient in gradients.items()}

        def along(step: float) -> float:
            moved = {name: self._start[name] + step * direction[name] for name in direction}
            results = self._forward({**self._feeds, **moved})
            # Differences are summed, not sums subtracted: the large common part cancels element by element.
            return sum(float(np.vdot(cotangents[n], results[n] - self._base[n])) for n in self._outputs)

        analytic = sum(float(np.vdot(gradient, direction[name])) for name, gradient in gradients.items())
        floor = max(1e-3 * sum(float(np.linalg.norm(g)) for g in gradients.values()), 1e-12)
        numeric, uncertainty = _derivative(along, 0.1 * self._rtol, max(floor, abs(analytic)))
        return GradientCheck(analytic, numeric, uncertainty, max(abs(analytic), abs(numeric), floor), self._rtol)


def _movable(graph: Graph, values: Sequence[Value], feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name → array of what to perturb, so that each of `values` moves.

    An intermediate cannot be fed, so `graph` is given an input `<name>_shift` that is added to it; it starts at zero (in
    `feeds` too), and its gradient is that of the intermediate.
    """
    inner = [value for value in values if value.producer is not None]
    if inner:
        probe = graph.copy()
        probe.set_outputs([probe.value(value.name) for value in inner])
        found = compile(probe)(feeds)
    start: dict[str, np.ndarray] = {}
    for value in values:
        if value.producer is None:
            start[value.name] = np.asarray(feeds.get(value.name, value.constant))
            continue
        shift = graph.add_input(f"{value.name}_shift", value.type)
        moved = Builder(graph, near=value.producer).op("Add", value, shift)
        (adder,) = [user for user in value.users if moved in user.outputs]
        graph.replace_all_uses(value, moved)
        graph.set_input(adder, 0, value)
        start[shift.name] = feeds[shift.name] = np.zeros_like(found[value.name])
    return start


def _derivative(function: Callable[[float], float], rtol: float, scale: float) -> tuple[float, float]:
    """The derivative at 0 of a function that is 0 there, and how far off it may be."""
    best = (0.0, float("inf"))
    for width in _WIDTHS:
        fine = [function(step * width / 2) for step in (-1, 1)]
        coarse = [function(step * width) for step in (-1, 1)]
        central = (fine[1] - fine[0]) / width
        value = (4 * central - (coarse[1] - coarse[0]) / (2 * width)) / 3
        # A kink at or near the point does not show in central differences, but it does in a one-sided one.
        onesided = (4 * fine[1] - coarse[1]) / width
        spread = max(abs(value - central), abs(value - onesided))
        if np.isfinite(value) and spread < best[1]:
            best = (value, spread)
        if best[1] <= rtol * scale:
            break
    return best


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    vector = rng.standard_normal(shape)
    return vector / max(float(np.linalg.norm(vector)), 1e-300)


def _as_double(feed: Any) -> Any:
    if isinstance(feed, list):
        return [_as_double(item) for item in feed]
    array = np.asarray(feed)
    return array.astype(np.float64) if is_differentiable(array.dtype) else feed
