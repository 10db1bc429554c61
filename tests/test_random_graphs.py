"""Random graphs over all operations: verified, differentiated, printed, written and read back, simplified.

A graph is made of the cases in tests/ops, see `irgrad.testing.random_graph`.
"""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from irgrad.compare import graphs_equal
from irgrad.errors import ExportError
from irgrad.gradcheck import GradientChecker
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.simplify import Simplify
from irgrad.runtime import compile
from irgrad.testing import START, compose, usable
from irgrad.text import parse_text, to_text
from irgrad.verify import verify
from tests.frontends.round_trip import assert_round_trips
from tests.ops.test_ops import DIFFERENTIATED

TEMPLATES = {case.name: case for case in DIFFERENTIATED if usable(case)}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(list(TEMPLATES)), min_size=1, max_size=12), st.integers(0, 2**16))
def test_random_graphs(names: list[str], seed: int) -> None:
    graph = compose([TEMPLATES[name] for name in names], seed)
    verify(graph)
    assert graphs_equal(parse_text(to_text(graph, "full")), graph) is None
    feeds = {"x": START}
    want = compile(graph)(feeds)

    result = GradientChecker(graph, feeds, ["x"]).check(np.random.default_rng(seed))
    # The outputs are about 1: what their rounding hides is not held against the gradient.
    close = abs(result.analytic - result.numeric) <= 1e-5 * result.scale + 1e-10
    assert close or not result.conclusive, result

    joint = graph.copy()
    Vjp(["x"]).run(joint)
    verify(joint)
    assert graphs_equal(parse_text(to_text(joint, "full")), joint) is None
    feeds |= {f"{name}_cotangent": np.array(1.0) for name in want}
    before = compile(joint)(feeds)
    Simplify().run(joint)
    verify(joint)
    after = compile(joint)(feeds)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9, atol=1e-12)
        if name in want:
            np.testing.assert_allclose(after[name], want[name], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(list(TEMPLATES)), min_size=1, max_size=8), st.integers(0, 2**16))
def test_random_graphs_as_files(names: list[str], seed: int) -> None:
    graph = compose([TEMPLATES[name] for name in names], seed)
    Vjp(["x"]).run(graph)
    try:
        back = assert_round_trips(graph)
    except ExportError:
        reject()  # some operations have no float64 in ONNX
    feeds = {"x": START, **{name: np.array(1.0) for name in graph.inputs if name != "x"}}
    want, got = compile(graph)(feeds), compile(back)(feeds)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, atol=1e-9)
