"""The executor `onnxruntime`: the graph as an ONNX model in Microsoft's runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from irgrad.errors import ExecutionError, UsageError
from irgrad.executors.accommodation import expand_rotary_caches, reuse_is_unsafe
from irgrad.executors.exported import Exported, checked, export
from irgrad.frontends.onnx.writer import graph_to_model, write_model
from irgrad.graph import Graph
from irgrad.runtime.executor import MemoryReport
from irgrad.runtime.feeds import FeedChecker
from irgrad.types import TensorType, Type, dtype_name

__all__ = ["OnnxRuntimeExecutable"]

_RUNTIME = "onnxruntime"
_IN_MEMORY = 2**30
"""Bytes of constants up to which a model is handed over in one piece; a protobuf message must be smaller than 2 GiB."""

_QUIET = 4  # onnxruntime's severity "fatal": errors are raised, they need not be printed too


class OnnxRuntimeExecutable:
    """Runs a graph on onnxruntime. See `irgrad.runtime.executor.Executable` for the contract.

    The graph is exported in standard operations. Parameters are constants of the session, so that onnxruntime may compute
    with them ahead of the run, until they are fed for the first time: then a session is made in which those are inputs.

    Args:
        graph: the graph; a copy of it is kept.
        providers: onnxruntime's execution providers, in order of preference: names, or pairs of a name and its options.
            The CPU by default.
        session_options: an `onnxruntime.SessionOptions`, which is used as it is.
        threads: how many threads one operation may use; onnxruntime's own choice by default.

    Raises:
        UsageError: onnxruntime is not installed, a provider is not there, or an option is out of range.
        ExportError: the graph has no form in standard operations.
        ExecutionError: onnxruntime refuses the model; the message names the node where onnxruntime's does.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        providers: Sequence[Any] | None = None,
        session_options: Any = None,
        threads: int | None = None,
    ) -> None:
        self._runtime = _import()
        self._providers = list(providers) if providers is not None else ["CPUExecutionProvider"]
        there = self._runtime.get_available_providers()
        for provider in self._providers:
            name = provider if isinstance(provider, str) else provider[0]
            if name not in there:
                raise UsageError(f"onnxruntime has no execution provider {name!r} here; it has {', '.join(there)}")
        self._options = self._session_options(session_options, threads)
        self._has_own_options = session_options is None
        self._graph = graph.copy()
        self._check = FeedChecker(self._graph)
        self._lock = Lock()  # one executable may be called from several threads
        self._session = self._start(frozenset())

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def memory(self) -> MemoryReport:
        """Nothing is known: onnxruntime does not tell what it needed."""
        return MemoryReport(None)

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        arrays = self._check(feeds)
        inputs = self._graph.inputs
        fed = frozenset(name for name in arrays if name not in inputs)
        with self._lock:
            if not fed <= self._session.fed:
                self._session = self._start(self._session.fed | fed)
            session = self._session
        return session.run(arrays)

    def _session_options(self, given: Any, threads: int | None) -> Any:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        if given is not None:
            if threads is not None:
                raise UsageError("give threads or session_options, which say how many threads there are themselves")
            return given
        options = self._runtime.SessionOptions()
        options.log_severity_level = _QUIET
        if threads is not None:
            options.intra_op_num_threads = threads
        return options

    def _start(self, fed: frozenset[str]) -> _Session:
        """A session in which some parameters are inputs."""
        model = export(self._graph, sorted(fed))
        expand_rotary_caches(model.graph)
        if self._has_own_options:
            self._options.enable_mem_reuse = not reuse_is_unsafe(model.graph)
        try:
            return _Session(self._runtime, self._load(model.graph), model, fed)
        except _errors(self._runtime) as error:
            raise model.failure(_RUNTIME, error) from error

    def _load(self, graph: Graph) -> Any:
        make = self._runtime.InferenceSession
        if sum(array.nbytes for array in graph.constants.values()) <= _IN_MEMORY:
            return make(graph_to_model(graph).SerializeToString(), self._options, providers=self._providers)
        with TemporaryDirectory(prefix="irgrad-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            write_model(graph, path, external_data=True)
            return make(str(path), self._options, providers=self._providers)


@dataclass(frozen=True)
class _Session:
    """A session of onnxruntime, the model in it, and the parameters that are inputs of it."""

    runtime: Any
    session: Any
    model: Exported
    fed: frozenset[str]

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        graph = self.model.graph
        feeds = self.model.feeds(arrays)
        types = {name: value.type for name, value in graph.outputs.items()}
        if not types:
            return {}
        inputs = graph.inputs
        strange = any(not _is_native(type) for type in types.values())
        run = self._run_on_values if strange else self._run
        results = run({name: self._fed(array, inputs[name].type, strange) for name, array in feeds.items()}, list(types))
        return {
            name: checked(result, type, name, _RUNTIME) for (name, type), result in zip(types.items(), results, strict=True)
        }

    def _run(self, feeds: dict[str, Any], outputs: list[str]) -> list[Any]:
        try:
            return list(self.session.run(outputs, feeds))
        except _errors(self.runtime) as error:
            raise self.model.failure(_RUNTIME, error) from error

    def _run_on_values(self, feeds: dict[str, Any], outputs: list[str]) -> list[Any]:
        """Run where some outputs are of dtypes that onnxruntime has no numpy arrays of."""
        try:
            results = self.session.run_with_ort_values(outputs, feeds)
        except _errors(self.runtime) as error:
            raise self.model.failure(_RUNTIME, error) from error
        types = (value.type for value in self.model.graph.outputs.values())
        return [_elements(value, type, name) for value, type, name in zip(results, types, outputs, strict=True)]

    def _fed(self, feed: Any, type: Type, as_value: bool) -> Any:
        """A feed as onnxruntime takes it: an array, a list of arrays or None; an OrtValue where it has no such arrays."""
        if isinstance(type, TensorType) and not _is_native(type):
            return self._value(feed, type)
        if not isinstance(type, TensorType) and feed is not None and not _is_native(type):
            raise _not_passed(type)
        if not as_value:
            return feed
        if not isinstance(type, TensorType) or type.dtype == object:
            raise _not_passed(type, ", where outputs are of dtypes that numpy lacks")
        return self.runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feed).reshape(feed.shape))

    def _value(self, array: np.ndarray, type: TensorType) -> Any:
        element = helper.np_dtype_to_tensor_dtype(type.dtype)
        value = self.runtime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element)
        raw = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape)).raw_data
        ctypes.memmove(value.data_ptr(), raw, len(raw))
        return value


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            "the executor 'onnxruntime' needs the extra irgrad[onnxruntime]: pip install 'irgrad[onnxruntime]'"
        ) from None
    return onnxruntime


def _errors(runtime: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its classes have no base of their own."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = [thing for thing in vars(state).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    return (*own, RuntimeError, ValueError)


def _is_native(type: Type) -> bool:
    """Whether onnxruntime exchanges tensors of this dtype (or sequences, optionals of such) as numpy arrays."""
    while not isinstance(type, TensorType):
        type = type.element
    return type.dtype == object or (type.dtype.kind in "biuf" and type.dtype.isbuiltin == 1)


def _not_passed(type: Type, why: str = "") -> ExecutionError:
    return ExecutionError(f"onnxruntime's Python interface does not pass a {type}{why}; run this graph on executor='numpy'")


def _elements(value: Any, type: Type, name: str) -> np.ndarray:
    """A copy of what an OrtValue holds."""
    if not isinstance(type, TensorType) or type.dtype == object:
        raise _not_passed(type, ", where other outputs are of dtypes that numpy lacks")
    if value.device_name() != "cpu":
        raise ExecutionError(f"the output {name!r} lies on the device {value.device_name()!r} as {dtype_name(type.dtype)}")
    if _is_native(type):
        return np.array(value.numpy())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()) if value.tensor_size_in_bytes() else b""
    proto = helper.make_tensor(name, value.element_type(), value.shape(), raw, raw=True)
    return np.array(numpy_helper.to_array(proto))
