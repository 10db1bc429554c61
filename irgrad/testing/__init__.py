"""Checks for passes and operations, one's own and irgrad's: what the authors of plugins (and irgrad's own tests) use.

    from irgrad.testing import assert_ir, assert_same_results, check_op, random_graph

    def test_my_pass():
        graph = random_graph(seed=0)
        assert_same_results(graph, ig.apply(graph, "my_pass"))

    def test_my_op():
        check_op("my.Op", [np.array([0.3, -0.7])], {"limit": 2.0})

A check that does not hold raises AssertionError, or one of irgrad's errors where something cannot be run or differentiated
at all. No test framework is needed.
"""

from __future__ import annotations

from irgrad.gradcheck import check_grads
from irgrad.testing.case import Case, leaves, loosened, mapped, type_of
from irgrad.testing.graphs import UPDATE_GOLDEN, assert_ir, assert_same_results
from irgrad.testing.ops import (
    check_forward,
    check_gradient,
    check_lowering,
    check_op,
    check_second_order,
    check_unlisted_operands,
)
from irgrad.testing.random_graphs import START, TEMPLATES, compose, random_graph, usable
from irgrad.testing.results import assert_close, assert_type

__all__ = [
    "START",
    "TEMPLATES",
    "UPDATE_GOLDEN",
    "Case",
    "assert_close",
    "assert_ir",
    "assert_same_results",
    "assert_type",
    "check_forward",
    "check_gradient",
    "check_grads",
    "check_lowering",
    "check_op",
    "check_second_order",
    "check_unlisted_operands",
    "compose",
    "leaves",
    "loosened",
    "mapped",
    "random_graph",
    "type_of",
    "usable",
]
