"""Models as files: the elements of tensors, in the model or in one file beside it, and files whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, numpy_helper

from irgrad.errors import ExportError, UsageError
from irgrad.files import replacing

__all__ = ["THRESHOLD", "fill", "is_filled", "is_large", "store"]

THRESHOLD = 1024
"""Tensors of fewer bytes stay in the model when the others lie beside it."""

_MOST = 2**31 - 1
"""The bytes that a protobuf message may have."""

_LARGEST = _MOST - 2**25
"""The bytes of tensors that fit into a model beside everything else in it."""

_PAGE, _GRANULE, _BIG = 2**12, 2**16, 2**20  # what mapping a file needs: pages, on Windows 64 KiB (worth it for big ones)
_CHUNK = 2**24

_Arrays = Sequence[tuple[TensorProto, np.ndarray]]


def fill(tensor: TensorProto, array: np.ndarray) -> None:
    """Put the elements of an array into a TensorProto that has the name, the shape and the type of it."""
    made = numpy_helper.from_array(np.ascontiguousarray(array))
    if array.dtype == object:
        tensor.string_data.extend(made.string_data)
    else:
        tensor.raw_data = made.raw_data


def is_filled(tensor: TensorProto) -> bool:
    """Whether a TensorProto has its elements."""
    return tensor.HasField("raw_data") or tensor.data_type == TensorProto.STRING


def is_large(arrays: _Arrays) -> bool:
    """Whether the tensors of a model are too many bytes for one file."""
    return sum(array.nbytes for _, array in arrays) > _LARGEST


def store(model: onnx.ModelProto, arrays: _Arrays, path: Path, *, external: bool, threshold: int) -> None:
    """Write a model.

    Args:
        model: some of its tensors are without their elements, which are put in.
        arrays: the tensors of its graph, each with the array that its elements are in.
        path: the file; with `external`, that of the same name with ".data" behind it is written too. Where writing fails,
            both are as they were.
        external: put the large tensors into a file beside the model.
        threshold: the number of bytes from which on a tensor counts as large.

    Raises:
        UsageError: the path cannot be written.
        ExportError: the model is too large for one file.
    """
    if path.is_dir():
        raise UsageError(f"{str(path)!r} cannot be written: it is a folder")
    outside = [pair for pair in arrays if external and pair[1].nbytes >= threshold and pair[1].dtype != object]
    leaving = {id(tensor) for tensor, _ in outside}
    staying = [pair for pair in arrays if id(pair[0]) not in leaving]
    if sum(array.nbytes for _, array in staying) > _MOST:
        raise _too_large()
    for tensor, array in staying:
        if not is_filled(tensor):
            fill(tensor, array)
    with replacing(path) as file:
        if not outside:
            file.write(_serialized(model))
            return
        beside = path.with_name(path.name + ".data")
        # Both are complete before either takes its place, the data first: a model is never there without its data.
        with replacing(beside) as data:
            _write_beside(outside, data, beside.name)
            file.write(_serialized(model))
            file.flush()


def _write_beside(arrays: _Arrays, file: IO[bytes], location: str) -> None:
    offset = 0
    for tensor, array in arrays:
        step = _GRANULE if array.nbytes >= _BIG else _PAGE
        file.write(bytes(-offset % step))
        offset += -offset % step
        length = _write_elements(array, file)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        offset += length


def _write_elements(array: np.ndarray, file: IO[bytes]) -> int:
    """Write the elements as raw data; the number of bytes. Little more than a part of them is in memory at a time."""
    if sys.byteorder == "big" or array.dtype.name in _PACKED or not array.flags.c_contiguous:
        return file.write(numpy_helper.from_array(np.ascontiguousarray(array)).raw_data)
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        file.write(flat[start : start + _CHUNK].data)
    return int(flat.size)


_PACKED = frozenset({"int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"})


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        raise _too_large() from None
    return data


def _too_large() -> ExportError:
    return ExportError(
        "the model is larger than the 2 GiB that one file may have; let its tensors lie beside it, with external_data=True"
    )
