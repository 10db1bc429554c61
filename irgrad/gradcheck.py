"""Checking gradients against finite differences.

The derivative of ``<c, f(x + h v)>`` along a random direction v, for random cotangents c, is estimated by central
differences with one Richardson step at several widths h; the width whose own error estimate is smallest wins. That
estimate is part of the result: where it is larger than the tolerance (a kink in the way, a function too rough), the check
is inconclusive, which is not a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import AdjointError, ExecutionError, FeedError
from irgrad.graph import Graph, Role, Value
from irgrad.passes.autodiff.derivatives import Vjp, Wrt, resolve_outputs, resolve_wrt
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import compile
from irgrad.types import TensorType, Type, is_differentiable
from irgrad.unpacked import Unpacked

__all__ = ["GradientCheck", "GradientChecker", "as_float", "check_grads", "return_gradients"]

# The likeliest first, since the search ends at the first width that is sure of its result: 1e-6 for smooth functions, 1e-8
# to step between the kinks of a deep network of ReLUs (of a million units some change sign within any larger step).
_WIDTHS = (1e-6, 1e-8, 1e-7, 1e-5, 1e-4, 1e-9, 1e-3, 1e-2)

# Where an operation has float32 only, its rounding hides smaller steps.
_WIDTHS_IN_SINGLE = (1e-2, 3e-3, 3e-2, 1e-3, 0.1)
_RTOL_IN_SINGLE = 2e-3

_FAINT = 1e-2  # times the norm of the largest gradient: an error of a smaller one is down there by as much


@dataclass(frozen=True)
class GradientCheck:
    """One direction's outcome.

    Attributes:
        analytic: the derivative along the direction, from the adjoint graph.
        numeric: the same from finite differences.
        uncertainty: how far `numeric` itself may be off, by its own estimate.
        scale: what errors are relative to: the largest of |analytic|, |numeric| and the sum over values of the gradients'
            norms times 1e-3, so that a derivative that happens to be near 0 is not held to its own size. What is not finite
            does not count: a gradient of NaN where differences are finite is wrong.
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
        return bool(np.isfinite(self.uncertainty) and self.uncertainty <= 0.5 * self.rtol * self.scale)

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
        wrt: see `resolve_wrt`; all the values are perturbed together, each along a random unit vector, and those once more
            whose gradients are too small to be seen beside the others'.
        outputs: see `resolve_outputs`.
        directions: how many directions to try.
        rtol: relative tolerance.
        seed: of the random directions and cotangents.

    Returns:
        One result per direction, and those of `GradientChecker.check_faint`; all of them ok.

    Raises:
        AdjointError: a direction disagrees, or finite differences are inconclusive along it.
    """
    checker = GradientChecker(graph, feeds, wrt, outputs, rtol=rtol)
    # Not the stream that a caller gets from the same seed: feeds drawn from that would be equal to the cotangents.
    generator = np.random.default_rng([seed, 1])
    results = []
    for result in chain((checker.check(generator) for _ in range(directions)), checker.check_faint(generator)):
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
        self._whole = Unpacked(graph, feeds)
        wrt = wrt if wrt in ("parameters", "inputs") else self._whole.names([wrt] if isinstance(wrt, str) else wrt)
        outputs = None if outputs is None else self._whole.names(outputs)
        double = self._whole.graph.copy()
        ConvertFloat("f64").run(double)
        self._feeds = {name: as_float(feed) for name, feed in self._whole.feeds.items()}
        self._start = _movable(double, list(resolve_wrt(double, wrt).values()), self._feeds)
        differentiated = resolve_outputs(double, outputs)
        double.set_outputs({**double.outputs, **differentiated})
        self._outputs = list(differentiated)
        joint = double.copy()
        Vjp(list(self._start), outputs).run(joint)
        self._gradients = {name: joint.gradients[name] for name in self._start}
        single = any(_is_single(v.type) for node in joint.nodes() if node.role is Role.BACKWARD for v in node.outputs)
        self._widths = _WIDTHS_IN_SINGLE if single else _WIDTHS
        self._rtol = max(rtol, _RTOL_IN_SINGLE) if single else rtol
        self._forward, self._backward = compile(double), compile(joint)
        base = self._forward(self._feeds)
        # An output that is infinite or NaN has no derivative: it is left out.
        self._finite = {name: np.isfinite(base[name]) for name in self._outputs}
        self._base = {name: np.where(finite, base[name], 0) for name, finite in self._finite.items()}
        self._norms: dict[str, float] = {}

    def check(self, generator: np.random.Generator, names: Sequence[str] | None = None) -> GradientCheck:
        """One random direction.

        Args:
            generator: draws the direction and the cotangents.
            names: the values to perturb, of those in `wrt`; all of them by default.
        """
        cotangents = {n: np.where(finite, generator.standard_normal(finite.shape), 0) for n, finite in self._finite.items()}
        results = self._backward({**self._feeds, **{f"{n}_cotangent": c for n, c in cotangents.items()}})
        asked = self._whole.names(names) if names else self._start
        gradients = {name: results[self._gradients[name]] for name in asked}
        for name, gradient in gradients.items():
            have, want = list(gradient.shape), list(self._start[name].shape)
            if have != want:
                raise AdjointError(f"the gradient by {name!r} has the shape {have}, but {name!r} itself has {want}")
        direction = {name: _unit(generator, gradient.shape) for name, gradient in gradients.items()}

        def along(step: float) -> float:
            moved = {name: self._start[name] + step * direction[name] for name in direction}
            try:
                results = self._forward({**self._feeds, **moved})
            except (ExecutionError, FeedError):
                return float("nan")  # shapes that depend on what is moved do not fit any more: a step, not a slope
            total = 0.0
            for name, finite in self._finite.items():
                if results[name].shape != finite.shape:
                    return float("nan")  # elements come or go: likewise
                # Differences are summed, not sums subtracted: the large common part cancels element by element.
                total += float(np.vdot(cotangents[name], np.where(finite, results[name], 0) - self._base[name]))
            return total

        analytic = sum(float(np.vdot(gradient, direction[name])) for name, gradient in gradients.items())
        norms = {name: float(np.linalg.norm(gradient)) for name, gradient in gradients.items()}
        self._norms.update(norms)
        scale = _largest(1e-3 * sum(norms.values()), abs(analytic))
        parts = [float(np.linalg.norm(cotangents[name] * self._base[name])) for name in self._outputs]
        numeric, uncertainty = _derivative(
            along, self._widths, 0.1 * self._rtol, scale, np.finfo(np.float64).eps * sum(parts)
        )
        if not np.isfinite(analytic) and not all(finite.all() for finite in self._finite.values()):
            uncertainty = float("inf")  # it may come from the outputs that are left out
        return GradientCheck(analytic, numeric, uncertainty, _largest(scale, abs(numeric), 1e-12), self._rtol)

    def check_faint(self, generator: np.random.Generator) -> Iterator[GradientCheck]:
        """A random direction of the values alone whose gradients are less than a hundredth of the largest, and so on.

        A gradient that is wrong altogether does not show beside one that is a million times larger. Nothing is said where
        finite differences cannot tell, or both are rounding errors of what is larger. `check` has to be called before.
        """
        left, roundoff = self._norms, 1e-12 * _largest(*self._norms.values())
        while left := {name: norm for name, norm in left.items() if norm < _FAINT * _largest(*left.values())}:
            result = self.check(generator, list(left))
            if result.conclusive and max(abs(result.analytic), abs(result.numeric)) > roundoff:
                yield result


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


def _derivative(
    function: Callable[[float], float], widths: Sequence[float], rtol: float, scale: float, roundoff: float
) -> tuple[float, float]:
    """The derivative at 0 of a function that is 0 there and knows its values to `roundoff`; and how far off it may be."""
    best = (0.0, float("inf"))
    for width in widths:
        fine = [function(step * width / 2) for step in (-1, 1)]
        coarse = [function(step * width) for step in (-1, 1)]
        central = (fine[1] - fine[0]) / width
        value = (4 * central - (coarse[1] - coarse[0]) / (2 * width)) / 3
        # A kink at or near the point does not show in central differences, but it does in a one-sided one.
        onesided = (4 * fine[1] - coarse[1]) / width
        spread = max(abs(value - central), abs(value - onesided))
        if scale or any((*fine, *coarse)):  # else nothing moves, and nothing is said to
            spread = max(spread, roundoff / width)
        if np.isfinite(value) and spread < best[1]:
            best = (value, spread)
        if best[1] <= rtol * scale:
            break
    return best


def _largest(*numbers: float) -> float:
    """The largest of those that are finite."""
    return max((number for number in numbers if np.isfinite(number)), default=0.0)


def _is_single(type: Type) -> bool:
    if isinstance(type, TensorType):
        return type.differentiable and type.dtype != np.float64
    return _is_single(type.element)


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    vector = rng.standard_normal(shape)
    return vector / max(float(np.linalg.norm(vector)), 1e-300)


def return_gradients(graph: Graph, wrt: Wrt, outputs: Sequence[str]) -> list[str]:
    """Make a graph return the gradients of its outputs and nothing else, so that those can be checked in their turn.

    Returns:
        The names of the new outputs, which differ from those that the gradients of the gradients take.
    """
    Vjp(wrt, outputs).run(graph)
    gradients = {f"d{name}": graph.outputs[output] for name, output in graph.gradients.items()}
    graph.set_outputs(gradients)
    graph.gradients.clear()
    return list(gradients)


def as_float(feed: Any, dtype: Any = np.float64) -> Any:
    """A feed in a floating-point dtype if it is an array of floating-point numbers, or a list of those; otherwise itself."""
    if isinstance(feed, list) and any(isinstance(item, np.ndarray) for item in feed):
        return [as_float(item, dtype) for item in feed]
    array = np.asarray(feed)
    return array.astype(dtype) if is_differentiable(array.dtype) else feed
