"""HIPS autograd, which differentiates numpy."""

from __future__ import annotations

from typing import Any

from autograd import value_and_grad

from benchmarks.cases import Case
from benchmarks.functional import forms
from benchmarks.functional.autograd_ops import AutogradOps
from benchmarks.peers import Prepared

__all__ = ["start"]


def start(case: Case, threads: int) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    ops = AutogradOps()
    form = getattr(forms, case.suite.form)
    inputs = list(case.inputs.values())
    parameters = dict(case.parameters)
    run = value_and_grad(lambda p: form(ops, p, *inputs, **case.suite.settings))

    def read(result: Any) -> Any:
        loss, gradients = result
        return float(loss), gradients

    return Prepared(lambda: run(parameters), read)
