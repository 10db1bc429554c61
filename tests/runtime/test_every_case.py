"""Every case of every operation, with its gradient: planned, in memory full of rubbish, against the plain interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.testing import Case
from tests.ops.test_ops import DIFFERENTIATED
from tests.runtime.test_program import poisoned

FAMILIES: dict[str, list[Case]] = {}
for case in DIFFERENTIATED:
    if not case.definition.random:
        FAMILIES.setdefault(case.op, []).append(case)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("op", FAMILIES)
def test_joint_graphs(op: str, dynamic: bool) -> None:
    for case in FAMILIES[op]:
        if dynamic and not case.dynamic:
            continue
        graph = case.graph(dynamic=dynamic)
        feeds = case.feeds(graph)
        outputs = case.checked_outputs(graph)
        joint = graph.copy()
        Vjp([f"x{k}" for k in case.differentiated()], outputs).run(joint)
        generator = np.random.default_rng(0)
        for name, value in ig.compile(graph, plan=False)(feeds).items():
            cotangent = f"{name}_cotangent"
            if cotangent in joint.inputs:
                feeds[cotangent] = _like(value, generator)
        want = ig.compile(joint, plan=False)(feeds)
        got = poisoned(joint, feeds)
        for name, array in want.items():
            _assert_close(got[name], array, f"{case.name}: {name}")


def _like(value: Any, generator: np.random.Generator) -> Any:
    if isinstance(value, list):
        return [_like(item, generator) for item in value]
    return None if value is None else generator.standard_normal(value.shape).astype(value.dtype)


def _assert_close(got: Any, want: Any, what: str) -> None:
    if isinstance(want, list):
        assert len(got) == len(want), what
        for a, b in zip(got, want, strict=True):
            _assert_close(a, b, what)
    elif want is None:
        assert got is None, what
    elif want.dtype.kind in "fc":
        np.testing.assert_allclose(got, want, rtol=1e-9 if want.itemsize == 8 else 1e-5, atol=1e-12, err_msg=what)
    else:
        np.testing.assert_array_equal(np.asarray(got, want.dtype), want, what)
