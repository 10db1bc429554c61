"""Checking gradients against finite differences.

The derivative of ``<c, f(x + h v)>`` along a random direction v, for random cotangents c, is estimated by central
differences with one Richardson step at several widths h; the width whose own error estimate is smallest wins. That
estimate is part of the result: where it is larger than the tolerance (a kink in the way, a function too rough), the check
is inconclusive, which is not a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irgrad.errors import AdjointError
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp, Wrt, resolve_outputs, resolve_wrt
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import Executable, compile
from irgrad.types import is_differentiable

__all__ = ["GradientCheck", "check_grads", "directional_check"]

_WIDTHS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


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
    double = graph.copy()
    ConvertFloat("f64").run(double)
    arrays = {name: _as_double(feed) for name, feed in feeds.items()}
    joint = double.copy()
    Vjp(wrt, outputs).run(joint)
    forward, backward = compile(double), compile(joint)
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(directions):
        result = directional_check(double, forward, joint, backward, arrays, wrt, outputs, rng, rtol)
        results.append(result)
        if not result.ok:
            verdict = "disagrees with" if result.conclusive else "cannot be judged by"
            raise AdjointError(
                f"the gradient {verdict} finite differences: analytic {result.analytic:.12g}, numeric {result.numeric:.12g} "
                f"± {result.uncertainty:.2g}, relative error {result.error:.3g} (tolerance {rtol:g})"
            )
    return results


def directional_check(
    double: Graph,
    forward: Executable,
    joint: Graph,
    backward: Executable,
    feeds: Mapping[str, Any],
    wrt: Wrt,
    outputs: Sequence[str] | None,
    rng: np.random.Generator,
    rtol: float,
) -> GradientCheck:
    """One direction of `check_grads`, for callers that have compiled both graphs already (in float64)."""
    values = resolve_wrt(double, wrt)
    names = list(resolve_outputs(double, outputs))
    base = forward(feeds)
    cotangents = {f"{name}_cotangent": rng.standard_normal(base[name].shape) for name in names}
    gradients = backward({**feeds, **cotangents})
    start = {v.name: np.asarray(feeds.get(v.name, v.constant)) for v in values}
    direction = {name: _unit(rng, array.shape) for name, array in start.items()}
    products = {n: float(np.vdot(gradients[joint.gradients[n]], direction[n])) for n in start}

    def along(step: float) -> float:
        moved = {name: array + step * direction[name] for name, array in start.items()}
        results = forward({**feeds, **moved})
        # Differences are summed, not sums subtracted: the large common part cancels element by element.
        return sum(float(np.vdot(cotangents[f"{n}_cotangent"], results[n] - base[n])) for n in names)

    numeric, uncertainty = _derivative(along)
    analytic = sum(products.values())
    size = sum(float(np.linalg.norm(gradients[joint.gradients[n]])) for n in start)
    scale = max(abs(analytic), abs(numeric), 1e-3 * size, 1e-12)
    return GradientCheck(analytic, numeric, uncertainty, scale, rtol)


def _derivative(function: Any) -> tuple[float, float]:
    best = (0.0, float("inf"))
    for width in _WIDTHS:
        coarse = (function(width) - function(-width)) / (2 * width)
        fine = (function(width / 2) - function(-width / 2)) / width
        # A kink at or near the point does not show in central differences, but it does in a one-sided one.
        onesided = (4 * function(width / 2) - function(width)) / width
        value = (4 * fine - coarse) / 3
        spread = max(abs(value - fine), 0.1 * abs(value - onesided))
        if np.isfinite(value) and spread < best[1]:
            best = (value, spread)
    return best


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    vector = rng.standard_normal(shape)
    return vector / max(float(np.linalg.norm(vector)), 1e-300)


def _as_double(feed: Any) -> Any:
    if isinstance(feed, list):
        return [_as_double(item) for item in feed]
    array = np.asarray(feed)
    return array.astype(np.float64) if is_differentiable(array.dtype) else feed
