"""From a path, bytes or a ModelProto to a ModelProto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from irgrad.errors import ModelParseError, UsageError

__all__ = ["read_source"]


def read_source(source: Any) -> tuple[onnx.ModelProto, Path | None]:
    """The model, and the folder that its external data lies in (None where there is no folder).

    Raises:
        UsageError: the path names no readable file.
        ModelParseError: the bytes are not a whole ModelProto.
    """
    if isinstance(source, onnx.ModelProto):
        return source, None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parse(bytes(source), "the bytes"), None
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"the file {str(path)!r} cannot be read: {error.strerror or error}") from None
    return _parse(data, repr(str(path))), path.resolve().parent


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    if not data:
        raise ModelParseError(f"{what}: empty, not an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelParseError(
            f"{what}: not an ONNX model, or one that was cut off (it does not parse as protobuf)"
        ) from None
    if not model.HasField("graph"):
        raise ModelParseError(f"{what}: parses as protobuf but holds no graph, so it is not an ONNX model")
    return model
