"""JAX, compiled by jit. It has as many threads as the process has processors, which `benchmarks.worker` sees to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.functional import forms
from benchmarks.functional.jax_ops import JaxOps
from benchmarks.peers import Prepared

__all__ = ["start"]


def start(case: Case, threads: int) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    ops = JaxOps()
    form = getattr(forms, case.suite.form)
    parameters = {name: jax.block_until_ready(ops.parameter(array)) for name, array in case.parameters.items()}
    inputs = [jnp.asarray(array.astype(np.int32) if array.dtype.kind == "i" else array) for array in case.inputs.values()]

    @jax.jit
    def run(parameters: Any, *inputs: Any) -> Any:
        return jax.value_and_grad(lambda p: form(ops, p, *inputs, **case.suite.settings))(parameters)

    def step() -> Any:
        return jax.block_until_ready(run(parameters, *inputs))

    def read(result: Any) -> Any:
        loss, gradients = result
        return float(loss), {name: ops.gradient(np.asarray(g)) for name, g in gradients.items()}

    return Prepared(step, read)
