"""The types of values: dtype and shape, sequences and optionals.

A dimension is an int (known), a str (symbolic: the same name is the same size everywhere in a graph; products are written
in one canonical form, "12*N") or None (unknown). A shape is a tuple of dimensions, or None where even the rank is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import prod
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper

from irgrad.errors import ModelTypeError, TextError, TypeInferenceError

__all__ = [
    "Dim",
    "OptionalType",
    "SequenceType",
    "Shape",
    "TensorType",
    "Type",
    "as_known_to_be_there",
    "dims_differ",
    "divide_dims",
    "dtype_from_name",
    "dtype_name",
    "dtype_of_element",
    "is_differentiable",
    "merge_dims",
    "merge_types",
    "multiply_dims",
    "same_dtypes",
    "type_from_proto",
    "type_to_proto",
    "without_symbols",
]

Dim: TypeAlias = "int | str | None"
Shape: TypeAlias = "tuple[Dim, ...] | None"

_SHORT = {
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "bfloat16": "bf16",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "complex64": "c64",
    "complex128": "c128",
    "object": "str",
}


@cache
def _tables() -> tuple[dict[int, np.dtype], dict[np.dtype, int], dict[str, np.dtype]]:
    """ONNX element type → numpy dtype, its inverse, and short name → dtype, for every type of the installed onnx."""
    from_elem: dict[int, np.dtype] = {}
    for elem in TensorProto.DataType.values():
        if elem != TensorProto.UNDEFINED:
            from_elem[elem] = np.dtype(helper.tensor_dtype_to_np_dtype(elem))
    to_elem = {dtype: elem for elem, dtype in from_elem.items()}
    names = {_SHORT.get(dtype.name, dtype.name): dtype for dtype in to_elem}
    return from_elem, to_elem, names


def dtype_name(dtype: np.dtype) -> str:
    """The short name of a dtype as the text form writes it: "f32", "bf16", "i64", "bool", "str"."""
    return _SHORT.get(dtype.name, dtype.name)


def dtype_from_name(name: str) -> np.dtype:
    """The inverse of `dtype_name`.

    Raises:
        TextError: no dtype has this name.
    """
    try:
        return _tables()[2][name]
    except KeyError:
        raise TextError(f"{name!r} is not a dtype; known are {', '.join(sorted(_tables()[2]))}") from None


def dtype_of_element(number: int) -> np.dtype:
    """The dtype of one of ONNX's element types, by its number (TensorProto.DataType).

    Raises:
        TypeInferenceError: no element type has this number.
    """
    try:
        return _tables()[0][number]
    except KeyError:
        raise TypeInferenceError(f"{number} is the number of no element type of ONNX") from None


def is_differentiable(dtype: np.dtype) -> bool:
    """Whether values of this dtype carry gradients: float16, bfloat16, float32 and float64 do."""
    return dtype.name in ("float16", "bfloat16", "float32", "float64")


# --- dimensions -------------------------------------------------------------------------------------------------------


def _factors(dim: int | str) -> tuple[int, list[str]]:
    if isinstance(dim, int):
        return dim, []
    number, symbols = 1, []
    for part in dim.split("*"):
        if part.isdigit():
            number *= int(part)
        else:
            symbols.append(part)
    return number, sorted(symbols)


def _join(number: int, symbols: list[str]) -> Dim:
    if not symbols or number == 0:
        return number
    return "*".join(([str(number)] if number != 1 else []) + symbols)


def add_dims(*dims: Dim) -> Dim:
    """The sum of dimensions where that can be written: of numbers, and of multiples of one product of symbols ("3*N")."""
    number, symbols = 0, list[str]()
    for dim in dims:
        if dim is None:
            return None
        n, s = _factors(dim)
        if n and number and s != symbols:
            return None
        number, symbols = number + n, s if n else symbols
    return _join(number, symbols)


def multiply_dims(*dims: Dim) -> Dim:
    """The product of dimensions in canonical form ("12*N"); None where one is unknown and none is 0."""
    if 0 in dims:
        return 0
    number, symbols = 1, list[str]()
    for dim in dims:
        if dim is None:
            return None
        n, s = _factors(dim)
        number, symbols = number * n, symbols + s
    return _join(number, sorted(symbols))


def divide_dims(numerator: Dim, denominator: Dim) -> Dim:
    """The exact quotient of two dimensions, or None where it is not known to be exact."""
    if numerator is None or denominator is None:
        return None
    (n, ns), (d, ds) = _factors(numerator), _factors(denominator)
    if d == 0 or n % d:
        return None
    for symbol in ds:
        if symbol not in ns:
            return None
        ns.remove(symbol)
    return _join(n // d, ns)


# --- types ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorType:
    """The type of an array: its dtype (object for strings) and its shape."""

    dtype: np.dtype
    shape: Shape = None

    @classmethod
    def of(cls, array: np.ndarray) -> TensorType:
        """The fully static type of a concrete array."""
        return cls(array.dtype, array.shape)

    @property
    def rank(self) -> int | None:
        """The number of axes, or None where it is unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape where every dimension is a number, otherwise None."""
        if self.shape is None:
            return None
        known = tuple(d for d in self.shape if isinstance(d, int))
        return known if len(known) == len(self.shape) else None

    @property
    def nbytes(self) -> int | None:
        """Bytes of such an array, or None where its shape is not static."""
        shape = self.static_shape
        return None if shape is None else prod(shape) * self.dtype.itemsize

    @property
    def differentiable(self) -> bool:
        return is_differentiable(self.dtype)

    def with_shape(self, shape: Shape) -> TensorType:
        return replace(self, shape=shape)

    def __str__(self) -> str:
        name = dtype_name(self.dtype)
        if self.shape is None:
            return name + "[*]"
        return name + "[" + ",".join("?" if d is None else str(d) for d in self.shape) + "]"


@dataclass(frozen=True)
class SequenceType:
    """A list of values that all have the type `element`."""

    element: Type

    @property
    def differentiable(self) -> bool:
        return self.element.differentiable

    def __str__(self) -> str:
        return f"seq({self.element})"


@dataclass(frozen=True)
class OptionalType:
    """A value of the type `element`, or nothing."""

    element: Type

    @property
    def differentiable(self) -> bool:
        return self.element.differentiable

    def __str__(self) -> str:
        return f"optional({self.element})"


Type: TypeAlias = "TensorType | SequenceType | OptionalType"


def without_symbols(type: Type) -> Type:
    """The type with its symbolic dimensions unknown, for where their names mean nothing."""
    if not isinstance(type, TensorType):
        return replace(type, element=without_symbols(type.element))
    if type.shape is None:
        return type
    return type.with_shape(tuple(d if isinstance(d, int) else None for d in type.shape))


def as_known_to_be_there(inferred: Type, declared: Type) -> Type:
    """The inferred type, without its optional where the declared one has none: that something is there may be known."""
    if isinstance(inferred, OptionalType) and not isinstance(declared, OptionalType):
        return inferred.element
    return inferred


def same_dtypes(a: Type, b: Type) -> bool:
    """Whether two types differ in nothing but shapes: both tensors, sequences or optionals, and of the same dtype."""
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        return a.dtype == b.dtype
    if isinstance(a, TensorType) or isinstance(b, TensorType):
        return False
    return a.__class__ is b.__class__ and same_dtypes(a.element, b.element)


def types_compatible(a: Type, b: Type) -> bool:
    """Whether one value can have both types: dtypes are the same, and no two known dimensions differ."""
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.dtype != b.dtype or a.shape is None or b.shape is None:
            return a.dtype == b.dtype
        return len(a.shape) == len(b.shape) and not any(map(dims_differ, a.shape, b.shape))
    if isinstance(a, (SequenceType, OptionalType)) and isinstance(b, (SequenceType, OptionalType)):
        return type(a) is type(b) and types_compatible(a.element, b.element)
    return False


def dims_differ(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are surely not the same size; two symbols may turn out to be, or to be a number."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def merge_dims(*dims: Dim) -> Dim:
    """What several dimensions of the same size tell of it: a number before a symbol before None."""
    return next((dim for kind in (int, str) for dim in dims if isinstance(dim, kind)), None)


def merge_types(a: Type, b: Type) -> Type:
    """All that two compatible types know of one value: numbers before symbols before unknown dimensions."""
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.shape is None or b.shape is None:
            return a if b.shape is None else b
        return a.with_shape(tuple(map(merge_dims, a.shape, b.shape)))
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(merge_types(a.element, b.element))
    if isinstance(a, OptionalType) and isinstance(b, OptionalType):
        return OptionalType(merge_types(a.element, b.element))
    return a


@lru_cache(maxsize=65536)
def type_to_proto(type: Type) -> TypeProto:
    """The ONNX form of a type. The result is shared between callers: do not change it."""
    if isinstance(type, SequenceType):
        return helper.make_sequence_type_proto(type_to_proto(type.element))
    if isinstance(type, OptionalType):
        return helper.make_optional_type_proto(type_to_proto(type.element))
    elem = _tables()[1].get(type.dtype)
    if elem is None:
        raise ModelTypeError(f"ONNX has no tensors of dtype {type.dtype}")
    return helper.make_tensor_type_proto(elem, None if type.shape is None else list(type.shape))


def type_from_proto(proto: TypeProto) -> Type | None:
    """The type that a TypeProto describes, or None where it describes none.

    Raises:
        ModelTypeError: a map or sparse tensor type, or an element type that onnx does not define.
    """
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    if kind == "sequence_type":
        element = type_from_proto(proto.sequence_type.elem_type)
        return None if element is None else SequenceType(element)
    if kind == "optional_type":
        element = type_from_proto(proto.optional_type.elem_type)
        return None if element is None else OptionalType(element)
    if kind != "tensor_type":
        raise ModelTypeError(f"values of the ONNX type {kind} are not supported")
    tensor = proto.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        return None
    dtype = _tables()[0].get(tensor.elem_type)
    if dtype is None:
        raise ModelTypeError(f"{tensor.elem_type} is not an ONNX element type")
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(_dim_from_proto(d) for d in tensor.shape.dim))


def _dim_from_proto(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        # Old exporters write -1 (or any negative number) for "unknown".
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    if isinstance(dim.dim_param, bytes):  # what protobuf gives where it is not UTF-8
        raise ModelTypeError(f"the symbolic dimension {dim.dim_param!r} is not UTF-8")
    # "?" is how some exporters write "unknown": two of them are not the same size.
    return None if dim.dim_param in ("", "?") else dim.dim_param
