"""Which algorithm serves for which convolution.

Measured with OpenBLAS on processors with AVX2 and AVX-512: products of matrices reach nearly the same rate for all shapes
that matter, so that what decides is how many multiplications an algorithm makes and what its transforms and copies cost
besides.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache, wraps
from typing import NamedTuple

import numpy as np

from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution import depthwise, depthwise_compiled, im2col, pointwise, winograd
from irgrad.ops.convolution.problem import Problem, add_bias, result
from irgrad.ops.convolution.tiles import chunks_of
from irgrad.runtime.fast import enabled
from irgrad.runtime.precision import exact
from irgrad.runtime.threads import threads

__all__ = ["Choice", "Role", "choice", "forward", "image_adjoint", "weight_adjoint"]

_POINTS = 8  # of Winograd's tiles along an axis, at most: with more, errors in float32 grow a hundredfold
_CLEARLY = 0.97  # what larger tiles, which are less exact, must cost next to smaller ones
# What things cost, in multiplications of the products of Winograd's algorithm:
_IM2COL, _THIN = 1.25, 28  # a multiplication of im2col, its copies included, and what it costs more with only one filter
_TRANSPOSING, _DOWN, _UP, _WRITING = 1.5, 0.7, 0.7, 1.1  # a multiplication of each of the four products of the transforms
_CALL = 95_000  # a call of a product of the transforms
_WEIGHING = 60  # an element of transformed weights


def _remembered(prepare: Callable[[Problem], WorkspaceKernel]) -> Callable[[Problem], WorkspaceKernel]:
    """The same function, which gives the same kernel for the same problem: for shapes that are known only when they run."""

    @lru_cache(maxsize=256)
    def known(problem: Problem, *settings: object) -> WorkspaceKernel:
        return prepare(problem)

    @wraps(prepare)
    def remembered(problem: Problem) -> WorkspaceKernel:
        return known(problem, exact(), enabled(), threads())

    return remembered


class Role(Enum):
    """Which of the three functions of a convolution."""

    FORWARD = "fwd"
    IMAGE_ADJOINT = "dX"
    WEIGHT_ADJOINT = "dW"


class Choice(NamedTuple):
    """An algorithm.

    Attributes:
        name: "nothing", "depthwise", "pointwise", "winograd" or "im2col".
        tiling: how Winograd's cuts the problem.
    """

    name: str
    tiling: winograd.Tiling | None = None


def choice(problem: Problem, role: Role) -> Choice:
    """The algorithm that serves for one function of a convolution."""
    if problem.empty:
        return Choice("nothing")
    if depthwise.serves(problem):
        return Choice("depthwise")
    if problem.windows.pointwise:
        return Choice("pointwise")
    if role is Role.WEIGHT_ADJOINT:
        tiling = _tiling(problem, _work_of_weight_adjoint)
    elif role is Role.FORWARD:
        tiling = _tiling(problem, _work_of_forward)
    else:
        tiling = _tiling(problem.transposed(), _work_of_forward) if set(problem.windows.strides) == {1} else None
    return Choice("im2col") if tiling is None else Choice("winograd", tiling)


@_remembered
def forward(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)``: the convolution, [N, M, *counts]."""
    name, tiling = choice(problem, Role.FORWARD)
    if tiling is not None:
        return winograd.forward(problem, tiling)
    if name == "nothing":
        return _zeros(problem.y_shape, problem.dtype)
    if name == "depthwise":
        return depthwise_compiled.forward(problem)
    return pointwise.forward(problem) if name == "pointwise" else im2col.forward(problem)


@_remembered
def image_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images, [N, C, *size].

    Every element of dy adds the weights, times itself, to what its window read. A bias may follow the weights: for
    ConvTranspose, which is this function.
    """
    name, tiling = choice(problem, Role.IMAGE_ADJOINT)
    if tiling is not None:
        return winograd.image_adjoint(problem, tiling)
    if name == "nothing":
        return _zeros(problem.x_shape, problem.dtype)
    if name == "pointwise":
        return pointwise.image_adjoint(problem)
    return _with_bias((depthwise_compiled if name == "depthwise" else im2col).image_adjoint(problem))


@_remembered
def weight_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights, [M, C / groups, *kernel]."""
    name, tiling = choice(problem, Role.WEIGHT_ADJOINT)
    if tiling is not None:
        return winograd.weight_adjoint(problem, tiling)
    if name == "nothing":
        return _zeros(problem.w_shape, problem.dtype)
    if name == "depthwise":
        return depthwise_compiled.weight_adjoint(problem)
    return pointwise.weight_adjoint(problem) if name == "pointwise" else im2col.weight_adjoint(problem)


def _zeros(shape: tuple[int, ...], dtype: np.dtype) -> WorkspaceKernel:
    """The kernel of a convolution that multiplies nothing."""

    def run(
        a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = result(shape, dtype, out)
        y.fill(0)
        add_bias(y, bias)
        return y

    return WorkspaceKernel(run, 0)


def _with_bias(kernel: WorkspaceKernel) -> WorkspaceKernel:
    """A kernel of two operands that takes a bias as a third."""
    function = kernel.function

    def run(
        dy: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        dx: np.ndarray = function(dy, w, out=out, work=work)
        add_bias(dx, bias)
        return dx

    return WorkspaceKernel(run, kernel.workspace)


# --- Winograd or not --------------------------------------------------------------------------------------------------


def _tiling(problem: Problem, work: Callable[[Problem, winograd.Tiling], float]) -> winograd.Tiling | None:
    """How to cut a problem for Winograd's algorithm; None where that does not pay or is not exact enough.

    Args:
        problem: which.
        work: what a tiling costs, in multiplications.
    """
    windows = problem.windows
    k = windows.kernel[0]
    if (
        problem.dtype != np.float32
        or exact()
        or windows.rank != 2
        or problem.groups != 1
        or set(windows.kernel) != {k}
        or set(windows.strides) != {1}
        or k < 2
        or min(problem.channels, problem.filters) < 8
    ):
        return None
    best, least = None, (_IM2COL + _THIN / problem.filters) * problem.products
    for m in range(2, _POINTS - k + 2):
        tiling = winograd.Tiling(m)
        cost = work(problem, tiling)
        if cost < (least if best is None else _CLEARLY * least):
            best, least = tiling, cost
    return best


class _Sizes(NamedTuple):
    """Of one image: the multiplications of the transforms of x along rows and columns, and of those of y along columns and
    rows, for one channel; the calls of products for both; tiles.
    """

    across: int
    down: int
    up: int
    back: int
    calls: int
    tiles: int


def _sizes(problem: Problem, tiling: winograd.Tiling) -> _Sizes:
    rows, columns = (chunks_of(problem.windows, axis, tiling.m, tiling.chunk, problem.dtype) for axis in (0, 1))
    n = tiling.m + problem.windows.kernel[0] - 1
    across = down = up = back = calls = 0
    for a in rows:
        for b in columns:
            across += a.input_size * b.input_size * n * b.tiles
            down += a.input_size * n * a.tiles * n * b.tiles
            up += a.output_size * n * a.tiles * n * b.tiles
            back += a.output_size * b.output_size * n * b.tiles
            calls += a.input_size + a.output_size + 2 * n
    return _Sizes(across, down, up, back, calls, sum(a.tiles for a in rows) * sum(b.tiles for b in columns))


def _work_of_forward(problem: Problem, tiling: winograd.Tiling) -> float:
    sizes = _sizes(problem, tiling)
    of_images = problem.channels * (_TRANSPOSING * sizes.across + _DOWN * sizes.down)
    return _work(problem, tiling, sizes, of_images + problem.filters * (_UP * sizes.up + _WRITING * sizes.back))


def _work_of_weight_adjoint(problem: Problem, tiling: winograd.Tiling) -> float:
    sizes = _sizes(problem, tiling)
    of_images = problem.channels * (_TRANSPOSING * sizes.across + _DOWN * sizes.down)
    return _work(problem, tiling, sizes, of_images + problem.filters * (_TRANSPOSING * sizes.back + _DOWN * sizes.up))


def _work(problem: Problem, tiling: winograd.Tiling, sizes: _Sizes, transforms: float) -> float:
    weights = (tiling.m + problem.windows.kernel[0] - 1) ** 2 * problem.channels * problem.filters
    return problem.images * (transforms + _CALL * sizes.calls + sizes.tiles * weights) + _WEIGHING * weights
