"""Who takes part: one module for each library, with a function that makes a suite ready to run in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.cases import Case

__all__ = ["BEST_OF", "PEERS", "Peer", "Prepared"]


@dataclass(frozen=True)
class Prepared:
    """A suite that is ready to run in a library.

    Attributes:
        step: does a step to its end.
        read: the loss and the gradients by name, in PyTorch's layout, of what a step has returned.
        settle: waits for whatever still goes on behind a first step.
        seconds: what making it ready took, by phase.
        flops: the arithmetic of a step, where it is known.
    """

    step: Callable[[], Any]
    read: Callable[[Any], tuple[float, Mapping[str, Any]]]
    settle: Callable[[], Any] = lambda: None
    seconds: Mapping[str, float] = field(default_factory=dict)
    flops: int | None = None


@dataclass(frozen=True)
class Peer:
    """A library, in one of the ways of using it.

    Attributes:
        name: what it is called.
        needs: the packages that have to be there.
        module: in benchmarks.peers; it has a function `start(case, threads, **settings)` that returns a `Prepared`.
        settings: what this way of using it means to that function.
    """

    name: str
    needs: tuple[str, ...]
    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]

    def load(self) -> None:
        """Import the library, so that what that takes is not counted."""
        import_module(f"benchmarks.peers.{self.module}")

    def start(self, case: Case, threads: int) -> Prepared:
        """Make a suite ready."""
        prepared = import_module(f"benchmarks.peers.{self.module}").start(case, threads, **self.settings)
        assert isinstance(prepared, Prepared)
        return prepared


PEERS = {
    peer.name: peer
    for peer in (
        Peer("irgrad", (), "on_irgrad", {"fast": False}),
        Peer("irgrad[fast]", ("numba",), "on_irgrad", {"fast": True}),
        Peer("torch", ("torch",), "on_torch", {"compiled": False}),
        Peer("torch.compile", ("torch",), "on_torch", {"compiled": True}),
        Peer("jax", ("jax",), "on_jax"),
        Peer("autograd", ("autograd", "scipy"), "on_autograd"),
        Peer("onnxruntime", ("onnxruntime",), "on_onnxruntime"),
        Peer("onnx-ad", ("onnx_ad", "onnxruntime"), "on_onnx_ad"),
    )
}
"""All peers by name."""

BEST_OF = ("torch", "torch.compile", "jax")
"""Those whose best is what the others are compared with."""
