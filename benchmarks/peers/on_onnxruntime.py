"""onnxruntime on irgrad's joint graph, by the executor of that name; the parameters are inputs."""

from __future__ import annotations

from functools import partial

import irgrad as ig
from benchmarks.cases import Case
from benchmarks.peers import Prepared
from benchmarks.peers.on_irgrad import joint_of

__all__ = ["start"]


def start(case: Case, threads: int) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    joint = joint_of(case)
    run = ig.compile(joint, "onnxruntime", threads=threads)
    return Prepared(
        partial(run, {**case.inputs, **case.parameters}),
        lambda results: (float(results["loss"]), {name: results[joint.gradients[name]] for name in case.parameters}),
    )
