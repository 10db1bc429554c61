"""If: its types and its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.errors import TypeInferenceError
from irgrad.op import Call, Cost, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.if_adjoint import if_adjoint
from irgrad.ops.subgraphs import Body, joined, possible_branches, single
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Type

ops = OpTable()


if_ = ops.define("If", gradient=if_adjoint, defaults={"captured": 0})


@if_.infer
def _if_types(call: Call) -> Sequence[Type]:
    """The types of the branch that is taken where that is known, else what holds for both.

    A branch that does not type-check cannot be the one that is taken: ``If(dim == 1, Squeeze(x), x)`` with a fixed shape.
    """
    types: list[list[Type]] = []
    errors: list[TypeInferenceError] = []
    for name in possible_branches(call):
        body = Body(call, name)
        body.expect(0, call.n_outputs, exactly=False)
        try:
            types.append([known.type for known in body.infer([])[: call.n_outputs]])
        except TypeInferenceError as error:
            errors.append(error)
    if not types:
        raise errors[0]
    return types[0] if len(types) == 1 else [joined(a, b) for a, b in zip(*types, strict=True)]


@if_.cost
def _if_cost(call: Call) -> Cost | None:
    """That of the branch that is taken, or of the costlier one where that is not known."""
    found = [costs.of_graph(Body(call, name).specialised([])) for name in possible_branches(call)]
    known = [cost for cost in found if cost is not None]
    return max(known) if len(known) == len(found) else None


@if_.prepare
def _if(call: Call) -> Kernel:
    branches = {name: Body(call, name).compiled([]) for name in ("then_branch", "else_branch")}

    def kernel(condition: np.ndarray, *captured: Any, out: Any = None) -> Any:
        name = "then_branch" if single(condition, "the condition") else "else_branch"
        return deliver_all(branches[name](*captured)[: call.n_outputs], out)

    return kernel
