"""Kernels that are given where to write and where to work: the same results, and operands that nobody wrote to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irgrad.builder import typed_call
from irgrad.op import Kernel, WorkspaceKernel
from irgrad.runtime import fast
from irgrad.runtime.kernels import bind, results_of
from irgrad.types import TensorType
from tests.ops.harness import Case
from tests.ops.test_ops import CASES, names

RUNNABLE = [case for case in CASES if case.definition.has_kernel]


def garbage(like: np.ndarray) -> np.ndarray:
    """An array like another, full of what must be overwritten."""
    if like.dtype.kind == "O":
        return np.full(like.shape, "unwritten", object)
    array = np.empty(like.shape, like.dtype)
    array.reshape(-1).view(np.uint8)[...] = 1 if like.dtype.kind == "b" else 0x5A
    return array


def workspace(size: int) -> np.ndarray:
    """So many bytes of garbage at a multiple of 64, and none behind them that could be written to."""
    block = np.full(size + 64, 0x5A, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size]


def run(kernel: Kernel, operands: Sequence[Any], out: Any) -> Any:
    """What a kernel returns in memory that is all garbage before."""
    if isinstance(kernel, WorkspaceKernel):
        return kernel.function(*operands, out=out, work=workspace(kernel.workspace))
    return kernel(*operands, out=out)


def bound(case: Case) -> Kernel:
    """The kernel of a case whose operands and results are all tensors."""
    (node,) = case.graph().nodes()
    call = typed_call(node)
    if not all(isinstance(type, TensorType) for type in (*call.inputs, *call.outputs) if type is not None):
        pytest.skip("sequences have no place of their own")
    with fast.using(False):  # the compiled form, which would take over after a few runs, rounds otherwise
        return bind(call)


def read_only(operand: np.ndarray | None) -> np.ndarray | None:
    if operand is not None:
        operand.flags.writeable = False
    return operand


def assert_same(got: np.ndarray, want: np.ndarray, rtol: float = 0.0) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype.kind == "O":
        assert got.tolist() == want.tolist()
    else:
        np.testing.assert_allclose(got.astype(np.complex128), want.astype(np.complex128), rtol, atol=rtol)


@pytest.mark.parametrize("case", RUNNABLE, ids=names(RUNNABLE))
def test_writes_where_it_is_told(case: Case) -> None:
    kernel = bound(case)
    operands = [None if a is None else read_only(a.copy()) for a in case.operands()]
    with np.errstate(all="ignore"):
        expected = results_of(kernel(*operands), case.outputs)
        places = tuple(map(garbage, expected))
        found = results_of(run(kernel, operands, places if case.outputs > 1 else places[0]), case.outputs)
    for want, got, place in zip(expected, found, places, strict=True):
        assert_same(got, want)
        assert got is place


STRIDED = [case for case in RUNNABLE if any(isinstance(a, np.ndarray) and a.ndim > 1 for a in case.operands())]


@pytest.mark.parametrize("case", STRIDED, ids=names(STRIDED))
def test_takes_operands_of_any_strides(case: Case) -> None:
    kernel = bound(case)
    operands = case.operands()
    strided = [None if a is None else read_only(a.copy(order="F")) for a in operands]
    with np.errstate(all="ignore"):
        expected = results_of(kernel(*operands), case.outputs)
        places = tuple(map(garbage, expected))
        found = results_of(run(kernel, strided, places if case.outputs > 1 else places[0]), case.outputs)
    for want, got in zip(expected, found, strict=True):
        narrow = want.dtype.itemsize <= 2 and want.dtype.kind not in "iub"
        assert_same(got, want, 1e-2 if narrow else 1e-5 if want.dtype in (np.float32, np.complex64) else 1e-11)
