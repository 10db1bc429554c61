"""Kernels that are given where to write: the same results, and operands that nobody wrote to."""

from __future__ import annotations

import numpy as np
import pytest

from irgrad.builder import typed_call
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


@pytest.mark.parametrize("case", RUNNABLE, ids=names(RUNNABLE))
def test_writes_where_it_is_told(case: Case) -> None:
    (node,) = case.graph().nodes()
    call = typed_call(node)
    if not all(isinstance(type, TensorType) for type in (*call.inputs, *call.outputs) if type is not None):
        pytest.skip("sequences have no place of their own")
    operands = [None if a is None else a.copy() for a in case.operands()]
    for operand in operands:
        if operand is not None:
            operand.flags.writeable = False
    with np.errstate(all="ignore"):
        kernel = bind(call)
        expected = results_of(kernel(*operands), case.outputs)
        places = tuple(map(garbage, expected))
        found = results_of(kernel(*operands, out=places if case.outputs > 1 else places[0]), case.outputs)
    for want, got in zip(expected, found, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if want.dtype.kind == "O":
            assert got.tolist() == want.tolist()
        else:
            np.testing.assert_array_equal(got.astype(np.complex128), want.astype(np.complex128))
