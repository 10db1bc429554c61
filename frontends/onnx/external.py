"""The files beside a model that hold its large tensors: found, confined to the model's folder, mapped read-only."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx

from irgrad.errors import ExternalDataError, ModelSizeError

__all__ = ["ExternalData"]


class ExternalData:
    """Reads external tensor data. Each file is mapped into memory once, so that only what is used is ever read.

    A model is data from anywhere, so it must not be able to name any file of the machine: absolute paths, paths that
    climb out of the folder, symbolic links that lead out of it and anything but regular files are refused.

    Args:
        folder: where the files lie; None where the model came without a folder, which then may have no external data.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[str, np.ndarray] = {}

    def read(self, tensor: onnx.TensorProto, size: int, what: str) -> np.ndarray:
        """The `size` bytes of a tensor, as a read-only uint8 view of the mapped file.

        Args:
            tensor: a tensor whose data location is EXTERNAL.
            size: what its shape and element type need.
            what: how messages call the tensor.

        Raises:
            ExternalDataError: the file is missing, too short, not to be opened, or outside the folder, or the entry that
                names it is malformed.
            ModelSizeError: the length that is declared is another than `size`.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location or isinstance(location, bytes) or "\0" in location:
            raise ExternalDataError(f"{what} lies in a file of its own, but names none")
        offset = _number(entries, "offset", what) or 0
        length = _number(entries, "length", what)
        if length is not None and length != size:
            raise ModelSizeError(f"{what} declares {length} bytes of external data, but its shape and type need {size}")
        contents = self._files.get(location)
        if contents is None:
            contents = self._files[location] = self._map(location, what)
        if offset + size > contents.size:
            raise ExternalDataError(
                f"{what} needs the bytes {offset} to {offset + size} of {location!r}, which has only {contents.size}"
            )
        return contents[offset : offset + size]

    def _map(self, location: str, what: str) -> np.ndarray:
        path = self._confined(location, what)
        # The path holds no symbolic link any more; O_NOFOLLOW keeps that true if somebody swaps the file in between, and
        # O_NONBLOCK keeps a pipe from blocking before it can be refused.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise ExternalDataError(
                f"{what} lies in {location!r}, but there is no such file in {str(self._folder)!r}"
            ) from None
        except OSError as error:
            raise ExternalDataError(f"{what} lies in {location!r}, which cannot be opened: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ExternalDataError(f"{what} lies in {location!r}, which is not a regular file")
            if not status.st_size:
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
        finally:
            os.close(descriptor)

    def _confined(self, location: str, what: str) -> Path:
        if self._folder is None:
            raise ExternalDataError(
                f"{what} lies in the file {location!r}, but the model was not loaded from a path; say with folder=... where "
                "its files are"
            )
        if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
            raise ExternalDataError(f"{what} lies in {location!r}; only paths relative to the model's folder are allowed")
        try:
            root = self._folder.resolve()
            path = (root / location).resolve()
        except (OSError, RuntimeError):  # a circle of symbolic links
            raise ExternalDataError(f"{what} lies in {location!r}, which leads nowhere") from None
        if not path.is_relative_to(root):
            raise ExternalDataError(f"{what} lies in {location!r}, which is outside the model's folder {str(root)!r}")
        return path


def _number(entries: dict[str, str], key: str, what: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20):
        raise ExternalDataError(f"{what} has the {key} {text!r} in its external data, which is not a number of bytes")
    return int(text)
