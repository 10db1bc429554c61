"""PyTorch, eagerly or compiled."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.cases import Case, model_of
from benchmarks.peers import Prepared

__all__ = ["start"]


def start(case: Case, threads: int, *, compiled: bool) -> Prepared:
    """See `benchmarks.peers.Peer`."""
    torch.set_num_threads(threads)
    model = model_of(case.suite)
    names = [name for name, _ in model.named_parameters()]
    parameters = list(model.parameters())
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # nobody else keeps running statistics
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    inputs = [torch.from_numpy(array) for array in case.inputs.values()]
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        loss = forward(*inputs)
        return loss, torch.autograd.grad(loss, parameters)

    def read(result: Any) -> Any:
        loss, gradients = result
        return loss.item(), {name: g.numpy() for name, g in zip(names, gradients, strict=True)}

    return Prepared(step, read)
