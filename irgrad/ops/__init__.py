"""The operations that irgrad brings: one file per family, each with a table called `ops`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module

from irgrad.errors import PluginError
from irgrad.op import Op

__all__ = ["FAMILIES", "Operations"]

FAMILIES = (
    "elementwise",
    "transcendental",
    "cast",
    "random",
    "dropout",
    "activation",
    "logic",
    "reduce",
    "cumulative",
    "softmax",
    "norm",
    "norm_adjoint",
    "batch_norm",
    "lrn",
    "loss",
    "attention",
    "rotary",
    "linear_attention",
    "causal_conv",
    "linear",
    "linalg",
    "fourier",
    "signal",
    "conv",
    "pool",
    "unpool",
    "region",
    "deform",
    "shape",
    "layout",
    "slice",
    "pad",
    "resize",
    "recurrent",
    "sampling",
    "col2im",
    "index",
    "scatter",
    "select",
    "sequence",
    "optional",
    "quantize",
    "strings",
    "control",
    "ml",
    "loop",
    "scan",
    "optimize",
    "fused",
)


class Operations(Mapping[str, Callable[[], Op]]):
    """Qualified name → factory for all families, imported at the first look-up."""

    @cached_property
    def _table(self) -> dict[str, Op]:
        table: dict[str, Op] = {}
        for family in FAMILIES:
            for name, op in import_module(f"irgrad.ops.{family}").ops.items():
                if name in table:
                    raise PluginError(f"the operation {name} is defined in two families, one of them {family}")
                table[name] = op
        return table

    def __getitem__(self, name: str) -> Callable[[], Op]:
        op = self._table[name]
        return lambda: op

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
