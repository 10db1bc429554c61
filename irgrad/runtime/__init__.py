"""Running graphs: the executor protocol, specialisation to concrete shapes, and the numpy interpreter."""

from irgrad.runtime.executor import Executable, MemoryReport, compile

__all__ = ["Executable", "MemoryReport", "compile"]
