"""How exact kernels have to be: whether algorithms may be used whose rounding errors are some times larger than need be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

__all__ = ["exact", "using"]

_here = local()


def exact() -> bool:
    """Whether kernels that are prepared now must use algorithms that round as the definition does, such as im2col.

    Otherwise they may be up to a hundred times less exact in float32: an error of 1e-5 of the largest element, not of 1e-7.
    """
    return bool(getattr(_here, "exact", False))


@contextmanager
def using(exact: bool) -> Iterator[None]:
    """Say for all kernels that are prepared inside how exact they have to be."""
    before = getattr(_here, "exact", False)
    _here.exact = exact
    try:
        yield
    finally:
        _here.exact = before
