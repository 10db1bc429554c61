"""Kernels that numba compiles, where it is installed (the extra `irgrad[fast]`), beside those that numpy runs.

Compiling takes seconds, so it happens on a thread of its own, and only for kernels that run again and again: until the
compiled form is there, numpy's serves. What was compiled once is kept on disk and is there soon in the next process.

The compiled functions hold no lock of Python and use one thread each (``njit(nogil=True)``); they are spread over threads
by `irgrad.runtime.threads.parallel`, so that one number of threads rules everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Event, Lock, Thread, local
from typing import Any
from warnings import warn

from irgrad.errors import UsageError
from irgrad.op import Kernel, WorkspaceKernel

__all__ = ["available", "compiled", "enabled", "is_compiled", "using", "wait"]

_RUNS_BEFORE = 2  # runs of a kernel before it is worth compiling: a graph that runs once should not cost a compiler

_here = local()


@cache
def available() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def enabled() -> bool:
    """Whether kernels that are prepared now may be compiled."""
    wanted: bool | None = getattr(_here, "wanted", None)
    return available() if wanted is None else wanted


@contextmanager
def using(wanted: bool | None) -> Iterator[None]:
    """Say for all kernels that are prepared inside whether they may be compiled; None: where numba is installed.

    Raises:
        UsageError: they are to be compiled, but numba is not installed.
    """
    if wanted and not available():
        raise UsageError("compiled kernels need the extra irgrad[fast]: pip install 'irgrad[fast]'")
    before = getattr(_here, "wanted", None)
    _here.wanted = wanted
    try:
        yield
    finally:
        _here.wanted = before


def compiled(build: Callable[[], Kernel], meanwhile: Kernel) -> Kernel:
    """A kernel that is `meanwhile` until what `build` makes is ready, and that from then on.

    Args:
        build: compiles and returns the kernel; it is called on another thread, once the kernel has run twice. Both forms
            take the same arguments (`work` among them, if `meanwhile` is a `WorkspaceKernel`). If it fails, there is a
            warning, and `meanwhile` serves on.
        meanwhile: numpy's form.
    """
    if isinstance(meanwhile, WorkspaceKernel):
        return WorkspaceKernel(_Swapped(build, meanwhile.function), meanwhile.workspace)
    return _Swapped(build, meanwhile)


def is_compiled(kernel: Kernel) -> bool:
    """Whether a kernel is, or may become, a compiled one: those count on results that lie in memory of their own."""
    return isinstance(kernel.function if isinstance(kernel, WorkspaceKernel) else kernel, _Swapped)


def wait(timeout: float | None = None) -> bool:
    """Wait until everything that was begun is compiled; False if that took longer than so many seconds."""
    if _compiler is None:
        return True
    done = Event()
    _compiler.put(done.set)
    return done.wait(timeout)


class _Swapped:
    """Calls the kernel that there is at the moment."""

    def __init__(self, build: Callable[[], Kernel], meanwhile: Kernel) -> None:
        self._kernel = meanwhile
        self._build = build
        self._runs_left = _RUNS_BEFORE

    def _compile(self) -> None:
        try:
            self._kernel = self._build()
        except Exception as error:  # numba fails in many ways, and the other form is as good an answer
            warn(f"a kernel could not be compiled and runs on numpy: {error}", RuntimeWarning, stacklevel=2)

    def __call__(self, *operands: Any, **options: Any) -> Any:
        if self._runs_left:
            self._runs_left -= 1
            if not self._runs_left:
                _submit(self._compile)
        return self._kernel(*operands, **options)


_compiler: SimpleQueue[Callable[[], Any]] | None = None
_lock = Lock()


def _forget_compiler() -> None:
    """In the child of a fork, which has none of its parent's threads."""
    global _compiler, _lock
    _compiler, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_compiler)


def _submit(job: Callable[[], Any]) -> None:
    global _compiler
    with _lock:
        if _compiler is None:
            _compiler = SimpleQueue()
            Thread(target=_serve, args=(_compiler,), name="irgrad-compiler", daemon=True).start()
    _compiler.put(job)


def _serve(jobs: SimpleQueue[Callable[[], Any]]) -> None:
    while True:
        jobs.get()()
