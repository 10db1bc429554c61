"""The ONNX frontend: files of every opset in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from irgrad.frontends.onnx.reader import read_model
from irgrad.frontends.onnx.source import read_source
from irgrad.graph import Graph

__all__ = ["OnnxFrontend"]


class OnnxFrontend:
    """Reads a path, bytes or a ModelProto."""

    def accepts(self, source: Any) -> bool:
        if isinstance(source, (onnx.ModelProto, bytes, bytearray, memoryview)):
            return True
        return isinstance(source, (str, Path)) and Path(source).suffix.lower() != ".py"

    def load(self, source: Any, *, folder: str | Path | None = None) -> Graph:
        """Read an ONNX model.

        Args:
            source: a path, bytes, or a ModelProto.
            folder: where external data lies; by default beside the file.

        Raises:
            ModelError: see its subclasses.
            UsageError: the path does not exist or cannot be read.
        """
        model, place = read_source(source, folder)
        return read_model(model, place)
