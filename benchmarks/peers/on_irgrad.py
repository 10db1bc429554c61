"""irgrad on numpy, alone or with numba. The parameters are inputs, as in training, where they change from step to step."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import irgrad as ig
from benchmarks.cases import Case
from benchmarks.peers import Prepared
from irgrad.parameters import make_inputs
from irgrad.runtime import fast as compiling

__all__ = ["joint_of", "start"]


def start(case: Case, threads: int, *, fast: bool) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    seconds: dict[str, float] = {}
    joint = joint_of(case, seconds)
    run = ig.compile(joint, threads=threads, fast=fast)
    feeds = {**case.inputs, **case.parameters}
    names = {name: joint.gradients[name] for name in case.parameters}
    return Prepared(
        partial(run, feeds),
        lambda results: (float(results["loss"]), {name: results[output] for name, output in names.items()}),
        compiling.wait,
        seconds,
        ig.cost(joint).total().flops,
    )


def joint_of(case: Case, seconds: dict[str, float] | None = None) -> ig.Graph:
    """The joint graph of a suite; `seconds` is given what each phase took."""
    taken = seconds if seconds is not None else {}
    graph = _timed(taken, "load", ig.load, case.path)
    make_inputs(graph, case.parameters)
    joint = _timed(taken, "grad", ig.grad, graph, list(case.parameters), simplify=False)
    simple: ig.Graph = _timed(taken, "simplify", ig.apply, joint, "simplify")
    return simple


def _timed(taken: dict[str, float], name: str, function: Any, *arguments: Any, **options: Any) -> Any:
    began = perf_counter()
    result = function(*arguments, **options)
    taken[name] = perf_counter() - began
    return result
