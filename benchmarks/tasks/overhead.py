"""What a node costs beside its arithmetic: a chain of nodes on tensors of 8 elements."""

from __future__ import annotations

from typing import Any

import numpy as np

import irgrad as ig
from benchmarks.peers import PEERS
from benchmarks.tasks.given import reason
from benchmarks.timing import interleaved

__all__ = ["run"]

_NODES = 1000
_ELEMENTS = 8


def run(rounds: int, threads: int) -> dict[str, Any]:
    """See `benchmarks.worker`.

    Returns:
        "seconds": who → seconds a node; "failed": who → why.
    """
    x = np.linspace(0.5, 1.5, _ELEMENTS, dtype=np.float32)
    constants = [np.full(_ELEMENTS, value, np.float32) for value in (1.01, 0.01)]
    expected = _bare(x, constants)()
    makers = {
        "bare ufuncs": _bare,
        "irgrad": lambda x, c: _on_irgrad(x, c, threads, fast=False),
        "irgrad[fast]": lambda x, c: _on_irgrad(x, c, threads, fast=True),
        "torch": lambda x, c: _on_torch(x, c, threads),
        "jax": _on_jax,
    }
    steps, failed = {}, {}
    for name, make in makers.items():
        if name in PEERS and PEERS[name].missing:
            continue
        try:
            steps[name] = make(x, constants)
            np.testing.assert_allclose(np.asarray(steps[name]()), expected, rtol=1e-4)
        except Exception as error:  # see benchmarks.tasks.time
            failed[name] = reason(error)
            steps.pop(name, None)
    return {"seconds": {name: s / _NODES for name, s in interleaved(steps, rounds).items()}, "failed": failed}


def _bare(x: np.ndarray, constants: list[np.ndarray]) -> Any:
    """The least that numpy can do it in: the same ufuncs in a loop, with results in place."""
    scale, shift = constants
    out = np.empty_like(x)

    def step() -> np.ndarray:
        multiply, add = np.multiply, np.add
        np.copyto(out, x)
        for _ in range(_NODES // 2):
            multiply(out, scale, out=out)
            add(out, shift, out=out)
        return out

    return step


def _on_irgrad(x: np.ndarray, constants: list[np.ndarray], threads: int, *, fast: bool) -> Any:
    graph = ig.Graph("chain")
    value = graph.add_input("x", ig.TensorType(x.dtype, x.shape))
    scale, shift = (graph.add_input(name, ig.TensorType(x.dtype, x.shape)) for name in ("scale", "shift"))
    with ig.Builder(graph) as b:
        for _ in range(_NODES // 2):
            value = b.op("Add", b.op("Mul", value, scale), shift)
    graph.set_outputs({"y": value})
    run = ig.compile(graph, threads=threads, fast=fast)
    feeds = {"x": x, "scale": constants[0], "shift": constants[1]}
    return lambda: run(feeds)["y"]


def _on_torch(x: np.ndarray, constants: list[np.ndarray], threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    start, scale, shift = (torch.from_numpy(array) for array in (x, *constants))

    def step() -> Any:
        value = start
        with torch.inference_mode():
            for _ in range(_NODES // 2):
                value = value * scale + shift
        return value

    return step


def _on_jax(x: np.ndarray, constants: list[np.ndarray]) -> Any:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(value: Any, scale: Any, shift: Any) -> Any:
        for _ in range(_NODES // 2):
            value = value * scale + shift
        return value

    operands = [jnp.asarray(array) for array in (x, *constants)]
    return lambda: jax.block_until_ready(run(*operands))
