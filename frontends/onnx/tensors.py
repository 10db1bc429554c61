"""From TensorProtos to arrays: every encoding that ONNX has, checked before anything is allocated."""

from __future__ import annotations

import sys
from functools import cache
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper

from irgrad.errors import ModelSizeError, ModelTypeError
from irgrad.frontends.onnx.external import ExternalData

__all__ = ["sparse_to_array", "tensor_to_array"]

_BITS: dict[int, int] = {
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.FLOAT6E2M3: 6,
    TensorProto.FLOAT6E3M2: 6,
}
"""Element types that are stored packed, several to a byte, lowest bits first; numpy has one byte per element."""

_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_LARGEST_DENSE = 2**29  # bytes: a sparse tensor that would be larger than this when written out is refused
_LARGEST_RANK = 64  # numpy's own limit
_CHUNK = 2**20  # groups of packed elements that are unpacked at a time, so that little more than the result is allocated


def tensor_to_array(tensor: TensorProto, external: ExternalData, what: str = "") -> np.ndarray:
    """The array that a TensorProto holds; a read-only view of the mapped file where the data is external.

    Args:
        tensor: any encoding but segments.
        external: where external data lies.
        what: how messages call the tensor; by default by its name.

    Raises:
        ModelTypeError: the element type is unknown, or the encoding is one that the type cannot have.
        ModelSizeError: the shape is not possible, or does not agree with the data that is there; nothing was allocated.
        ExternalDataError: see `ExternalData.read`.
    """
    what = what or f"the tensor {tensor.name!r}"
    if tensor.HasField("segment"):
        raise ModelTypeError(f"{what} is stored in segments, an encoding that is not supported; save it in one piece")
    dtype = _dtype_of(tensor, what)
    shape = _checked_shape(tensor.dims, dtype, what)
    count = prod(shape)
    if tensor.data_location == TensorProto.EXTERNAL:
        if dtype.hasobject:
            raise ModelTypeError(f"{what} holds strings, which cannot lie in a file of their own")
        flat = _from_bytes(external.read(tensor, _bytes_needed(tensor, dtype, count), what), tensor, dtype, count)
        return flat.reshape(shape)
    raw = tensor.raw_data
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    if len(filled) + bool(raw) > 1:
        names = ", ".join([*(["raw_data"] if raw else []), *filled])
        raise ModelTypeError(f"{what} holds its data more than once, in {names}")
    if raw and dtype.hasobject:
        raise ModelTypeError(f"{what} holds strings, which cannot be stored as raw data")
    if raw or (not filled and tensor.HasField("raw_data")):
        _check_count(len(raw), _bytes_needed(tensor, dtype, count), "bytes of raw data", shape, what)
        return _from_bytes(np.frombuffer(raw, np.uint8), tensor, dtype, count).reshape(shape)
    return _from_field(tensor, dtype, count, shape, what).reshape(shape)


def sparse_to_array(sparse: onnx.SparseTensorProto, external: ExternalData, what: str) -> np.ndarray:
    """The dense array that a SparseTensorProto means.

    Args:
        sparse: its indices are either linear (one axis) or coordinates (one row per value).
        external: where external data lies.
        what: how messages call the tensor.

    Raises:
        ModelTypeError: indices are not int64, or name an element twice.
        ModelSizeError: indices and values do not agree, an index is out of range, or the dense array would be huge.
    """
    values = tensor_to_array(sparse.values, external, f"the values of {what}")
    indices = tensor_to_array(sparse.indices, external, f"the indices of {what}")
    shape = _checked_shape(sparse.dims, values.dtype, what)
    size = prod(shape)
    if size * values.dtype.itemsize > _LARGEST_DENSE:
        raise ModelSizeError(f"{what} is sparse, and written out its shape {list(shape)} is too large for memory")
    if indices.dtype != np.int64:
        raise ModelTypeError(f"{what} is sparse with indices of type {indices.dtype}; they must be int64")
    if values.ndim != 1 or indices.shape not in ((values.size,), (values.size, len(shape))):
        raise ModelSizeError(
            f"{what} is sparse with values of shape {list(values.shape)} and indices of shape {list(indices.shape)}, which "
            f"do not fit together or not the rank {len(shape)}"
        )
    limits = np.array([size] if indices.ndim == 1 else shape, np.int64)
    if indices.size and ((indices < 0).any() or (indices >= limits).any()):
        raise ModelSizeError(f"{what} is sparse with an index outside its shape {list(shape)}")
    linear = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    if np.unique(linear).size != linear.size:
        raise ModelTypeError(f"{what} is sparse and gives two values for one index")
    dense = np.full(size, "", object) if values.dtype.hasobject else np.zeros(size, values.dtype)
    dense[linear] = values
    return dense.reshape(shape)


# --- types and sizes --------------------------------------------------------------------------------------------------


@cache
def _dtypes() -> dict[int, np.dtype]:
    known = (elem for elem in TensorProto.DataType.values() if elem != TensorProto.UNDEFINED)
    return {elem: np.dtype(helper.tensor_dtype_to_np_dtype(elem)) for elem in known}


def _dtype_of(tensor: TensorProto, what: str) -> np.dtype:
    dtype = _dtypes().get(tensor.data_type)
    if dtype is None:
        raise ModelTypeError(f"{what} has the element type {tensor.data_type}, which is not one of ONNX")
    return dtype


def _checked_shape(dims: object, dtype: np.dtype, what: str) -> tuple[int, ...]:
    shape = tuple(int(d) for d in dims)  # type: ignore[attr-defined]
    if any(d < 0 for d in shape):
        raise ModelSizeError(f"{what} has the shape {list(shape)}, in which a dimension is negative")
    # Dimensions of an array without elements have to be representable too.
    if len(shape) > _LARGEST_RANK or prod(d for d in shape if d) * dtype.itemsize >= 2**63:
        shown = f"{len(shape)} axes" if len(shape) > _LARGEST_RANK else f"the shape {list(shape)}"
        raise ModelSizeError(f"{what} has {shown}, more than any array can have")
    return shape


def _bytes_needed(tensor: TensorProto, dtype: np.dtype, count: int) -> int:
    bits = _BITS.get(tensor.data_type)
    return count * dtype.itemsize if bits is None else -(-count * bits // 8)


def _check_count(have: int, need: int, unit: str, shape: tuple[int, ...], what: str) -> None:
    if have != need:
        raise ModelSizeError(f"{what} has {have} {unit}, but its shape {list(shape)} needs {need}")


# --- encodings --------------------------------------------------------------------------------------------------------


def _from_bytes(data: np.ndarray, tensor: TensorProto, dtype: np.dtype, count: int) -> np.ndarray:
    """The flat array that raw little-endian bytes stand for: a view of them where that is possible."""
    bits = _BITS.get(tensor.data_type)
    if bits is not None:
        return _unpacked(data, bits, count).view(dtype)
    if dtype.kind == "b":
        # Any byte but 0 is true; numpy takes only 1 for it.
        return data.view(bool) if data.max(initial=0) <= 1 else data != 0
    array = data.view(dtype)
    if sys.byteorder == "big":
        halves = 2 if dtype.kind == "c" else 1
        swapped = array.view(f"u{dtype.itemsize // halves}").byteswap()
        array = swapped.view(dtype)
    return array


def _unpacked(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """One byte per element from elements of `bits` bits that follow each other, lowest bits first."""
    group = 3 if bits == 6 else 1  # bytes after which the pattern repeats
    per_group = group * 8 // bits
    result = np.empty(-(-count // per_group) * per_group, np.uint8)
    shifts = np.arange(per_group, dtype=np.uint32) * np.uint32(bits)
    for start in range(0, data.size, group * _CHUNK):
        part = data[start : start + group * _CHUNK]
        words = np.zeros((-(-part.size // group), 4), np.uint8)
        padded = np.zeros(words.shape[0] * group, np.uint8)
        padded[: part.size] = part
        words[:, :group] = padded.reshape(-1, group)
        numbers = words.view("<u4").astype(np.uint32)
        first = start // group * per_group
        unpacked = (numbers >> shifts) & np.uint32(2**bits - 1)
        result[first : first + unpacked.size] = unpacked.reshape(-1)
    return result[:count]


def _from_field(tensor: TensorProto, dtype: np.dtype, count: int, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The flat array of a tensor whose elements lie in the field for its type."""
    name = helper.tensor_dtype_to_field(tensor.data_type)
    field = getattr(tensor, name)
    bits = _BITS.get(tensor.data_type, dtype.itemsize * 8)
    need = count
    if dtype.kind == "c":
        need = 2 * count
    elif bits in (2, 4):
        need = -(-count * bits // 8)
    _check_count(len(field), need, f"entries in {name}", shape, what)
    if dtype.hasobject:
        strings = np.empty(count, object)
        strings[:] = [s.decode("utf-8", errors="surrogateescape") for s in field]
        return strings
    if dtype.kind == "c":
        return np.fromiter(field, np.float32 if name == "float_data" else np.float64, need).view(dtype)
    if name in ("float_data", "double_data", "int64_data") or dtype.name in ("int32", "uint64"):
        return np.fromiter(field, dtype, need)
    # What remains lies in wider integers: as numbers, or (floats, packed elements) as bit patterns. Either way the lowest
    # bits count; the range of the rest is checked, so that nothing is cut off.
    wide = np.fromiter(field, np.int64 if name == "int32_data" else np.uint64, need)
    if dtype.kind == "b":
        return wide.astype(bool)
    stored = 8 if bits in (2, 4) else bits
    lowest = 0 if bits == 6 else -(2 ** (stored - 1))
    if wide.size and (wide.min() < lowest or wide.max() >= 2**stored):
        raise ModelSizeError(f"{what} has a number in {name} that does not fit into {stored} bits")
    if bits in (2, 4):
        return _unpacked(wide.astype(np.uint8), bits, count).view(dtype)
    return wide.astype(f"u{dtype.itemsize}").view(dtype)
