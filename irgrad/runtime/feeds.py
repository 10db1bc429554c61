"""What is fed to a graph, checked against its inputs and parameters: the same for every executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irgrad.errors import FeedError
from irgrad.graph import Graph, Value
from irgrad.parameters import decides_types
from irgrad.runtime.owned import read_only
from irgrad.types import OptionalType, SequenceType, Type, dtype_name

__all__ = ["FeedChecker"]


class FeedChecker:
    """Checks the feeds of one graph.

    Args:
        graph: the graph, which must not change any more.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._decides: dict[str, bool] = {}

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The feeds as read-only arrays: those of the inputs in their order, then those of parameters.

        Numbers and lists take the dtype of the input; an array of another dtype is an error, since a silent cast would hide
        a mistake.

        Raises:
            FeedError: see `irgrad.runtime.executor.Executable.__call__`.
        """
        graph = self._graph
        inputs = graph.inputs
        missing = [name for name in inputs if name not in feeds]
        if missing:
            raise FeedError(
                f"no array was fed for {', '.join(repr(m) for m in missing)}; the inputs are {_signature_text(graph)}"
            )
        sizes: dict[str, tuple[int, str]] = {}
        checked: dict[str, Any] = {}
        for name in [*inputs, *(n for n in feeds if n not in inputs)]:
            value = inputs.get(name)
            if value is None:
                value = graph.value(name) if graph.has_value(name) else None
                if value is None or not value.is_parameter:
                    raise FeedError(f"{name!r} is neither an input nor a parameter; the inputs are {_signature_text(graph)}")
            checked[name] = _check_feed(name, value.type, feeds[name], sizes)
            if name not in inputs:
                self._check_parameter(value)
        return checked

    def _check_parameter(self, value: Value) -> None:
        if value.name not in self._decides:
            self._decides[value.name] = decides_types(value)
        if self._decides[value.name]:
            raise FeedError(
                f"the parameter {value.name!r} decides the shape of a result, so that no other array can be fed in its "
                "place; make it an input of the model"
            )


def _check_feed(name: str, type: Type, feed: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    if isinstance(type, OptionalType):
        return None if feed is None else _check_feed(name, type.element, feed, sizes)
    if isinstance(type, SequenceType):
        if not isinstance(feed, (list, tuple)):
            raise FeedError(f"the feed for {name!r} is no list of arrays, but the input is {type}")
        return [_check_feed(f"{name}[{k}]", type.element, element, sizes) for k, element in enumerate(feed)]
    try:
        array = feed if isinstance(feed, np.ndarray) else np.asarray(feed, type.dtype)
    except (TypeError, ValueError) as error:
        raise FeedError(f"the feed for {name!r} is no {type}: {error}") from None
    if type.dtype == object and array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype != type.dtype:
        raise FeedError(
            f"the feed for {name!r} has dtype {dtype_name(array.dtype)}, the input is {type}; "
            f"convert it with .astype({type.dtype.name!r})"
        )
    if type.shape is not None:
        if len(type.shape) != array.ndim:
            raise FeedError(f"the feed for {name!r} has shape {array.shape}, the input is {type}")
        for axis, (dim, size) in enumerate(zip(type.shape, array.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                raise FeedError(f"the feed for {name!r} has shape {array.shape}, the input is {type}")
            if isinstance(dim, str) and "*" not in dim:
                known, where = sizes.setdefault(dim, (size, name))
                if known != size:
                    raise FeedError(
                        f"the dimension {dim!r} is {known} in the feed for {where!r} but {size} in axis {axis} of the feed "
                        f"for {name!r}"
                    )
    return read_only(array)


def _signature_text(graph: Graph) -> str:
    return ", ".join(f"{name}: {value.type}" for name, value in graph.inputs.items()) or "none"
