"""From a path, bytes or a ModelProto to a ModelProto."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from irgrad.errors import ModelParseError, UsageError

__all__ = ["read_source"]

_LARGEST_MESSAGE = 2**31 - 1  # bytes: protobuf's own limit


def read_source(source: Any, folder: str | Path | None = None) -> tuple[onnx.ModelProto, Path | None]:
    """The model, and the folder that its external data lies in (None where there is no folder).

    Args:
        source: a path, bytes, or a ModelProto.
        folder: where external data lies; by default the folder of the path, symbolic links followed.

    Raises:
        UsageError: the path names no readable file, or `folder` is not a folder.
        ModelParseError: the bytes are not a whole ModelProto.
    """
    if folder is not None:
        folder = Path(folder)
        if not folder.is_dir():
            raise UsageError(f"folder={str(folder)!r} is not a folder")
    if isinstance(source, onnx.ModelProto):
        return _checked(source, "the ModelProto"), folder
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        return _parse(view.cast("B") if view.c_contiguous else memoryview(view.tobytes()), "the bytes"), folder
    path = Path(source)
    try:
        # Not a pipe or a device, which could block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{str(path)!r} is not a file" if path.is_dir() else f"{str(path)!r} is not a regular file")
        model = _parse_file(path)
        return model, path.resolve().parent if folder is None else folder
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the file {str(path)!r} cannot be read: {reason}") from None


def _parse_file(path: Path) -> onnx.ModelProto:
    what = repr(str(path))
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return _parse(memoryview(b""), what)
        # Mapped, not read: what is not a model is refused after its first bytes, and no copy of a model is made.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            return _parse(data, what)


def _parse(data: memoryview, what: str) -> onnx.ModelProto:
    if not data.nbytes:
        raise ModelParseError(f"{what}: empty, not an ONNX model")
    if data.nbytes > _LARGEST_MESSAGE:
        raise ModelParseError(
            f"{what}: larger than the 2 GiB that a protobuf may have, so it is not an ONNX model (large weights belong into "
            "a file beside it)"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelParseError(
            f"{what}: not an ONNX model, or one that was cut off (it does not parse as protobuf)"
        ) from None
    return _checked(model, what)


def _checked(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    if not model.HasField("graph"):
        raise ModelParseError(f"{what}: parses as protobuf but holds no graph, so it is not an ONNX model")
    if not model.HasField("ir_version"):
        raise ModelParseError(f"{what}: parses as protobuf but has no IR version, so it is not an ONNX model")
    return model
