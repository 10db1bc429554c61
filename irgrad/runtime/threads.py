"""One number of threads for everything that runs: the BLAS library's own and ours never add up to more.

Inside `parallel` the BLAS library works with one thread for each of ours; outside it has them all. Numpy and BLAS release
Python's global lock while they compute, so that plain Python threads are enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread, local
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["available_threads", "limited", "parallel", "threads"]

T = TypeVar("T")

_here = local()
_lock = Lock()
_sections = 0  # parallel sections that run now, of all executables


def available_threads() -> int:
    """How many threads the BLAS library uses by itself, which is what the machine and the environment allow."""
    return max([1, *(int(library.num_threads) for library in _blas())])


def threads() -> int:
    """How many threads a kernel may use at this moment: 1 inside of `parallel`."""
    count: int | None = getattr(_here, "count", None)
    return _default() if count is None else count


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Let everything that runs inside use so many threads, BLAS included."""
    before = getattr(_here, "count", None)
    known = threads()
    _here.count = count
    if count != known:
        _set_blas(count)
    try:
        yield
    finally:
        _here.count = before
        if count != known:
            _set_blas(known)


def parallel(function: Callable[[T], Any], items: Sequence[T]) -> None:
    """Call a function with every item, on as many threads as there may be; the caller's own is one of them.

    Each thread takes the next item when it is done with one. They share memory, so that the function must write to places
    that the item alone decides.

    Raises:
        whatever the function raised first; the other calls have ended by then.
    """
    count = min(threads(), len(items))
    if count < 2:
        for item in items:
            function(item)
        return
    waiting = iter(items)
    guard = Lock()

    def work() -> None:
        while True:
            with guard:
                item = next(waiting, waiting)
            if item is waiting:
                return
            function(item)  # type: ignore[arg-type]

    allowed = threads()
    with _one_thread_each(allowed):
        done: SimpleQueue[BaseException | None] = SimpleQueue()
        helpers = _helpers(count - 1)
        for helper in helpers:
            helper.put((work, done))
        _here.count, before = 1, getattr(_here, "count", None)
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failure = error
        finally:
            _here.count = before
        for _ in helpers:
            failure = done.get() or failure
    _free.extend(helpers)
    if failure is not None:
        raise failure


# --- our threads ------------------------------------------------------------------------------------------------------

_free: list[SimpleQueue[Any]] = []  # the orders of threads that wait; append and pop are atomic


def _forget_threads() -> None:
    """In the child of a fork, which has none of its parent's threads, nor its parallel sections."""
    global _lock, _sections
    _free.clear()
    _lock, _sections = Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _helpers(count: int) -> list[SimpleQueue[Any]]:
    found = []
    for _ in range(count):
        try:
            found.append(_free.pop())
        except IndexError:
            orders: SimpleQueue[Any] = SimpleQueue()
            Thread(target=_serve, args=(orders,), name="irgrad", daemon=True).start()
            found.append(orders)
    return found


def _serve(orders: SimpleQueue[Any]) -> None:
    _here.count = 1
    while True:
        work, done = orders.get()
        try:
            work()
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)


# --- the BLAS library -------------------------------------------------------------------------------------------------


@cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@cache
def _default() -> int:
    return available_threads()


def _set_blas(count: int) -> None:
    for library in _blas():
        library.set_num_threads(count)


@contextmanager
def _one_thread_each(allowed: int) -> Iterator[None]:
    global _sections
    with _lock:
        _sections += 1
        if _sections == 1:
            _set_blas(1)
    try:
        yield
    finally:
        with _lock:
            _sections -= 1
            if _sections == 0:
                _set_blas(allowed)
