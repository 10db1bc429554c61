"""The lexical ground of the text form: strings, names, types and array elements, written and read back exactly."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from irgrad.errors import TextError
from irgrad.types import Dim, OptionalType, SequenceType, TensorType, Type, dtype_name

__all__ = [
    "LITERAL_SIZE",
    "array_bytes",
    "array_from_base64",
    "array_from_elements",
    "array_text",
    "contents_text",
    "counted",
    "float_from_text",
    "float_text",
    "is_uniform",
    "name_text",
    "quote",
    "same_bits",
    "type_text",
    "unquote",
]

LITERAL_SIZE = 32
"""Arrays of at most this many elements (and larger ones whose elements are all the same) are written element by element."""

_BARE_NAME = re.compile(r"[A-Za-z0-9_./$-]+\Z")
_BARE_DIM = re.compile(r"(?:\d+\*)?[A-Za-z_][A-Za-z0-9_.]*(?:\*[A-Za-z_][A-Za-z0-9_.]*)*\Z")
_INT = re.compile(r"[+-]?[0-9]+\Z")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPED = {text[1]: char for char, text in _ESCAPES.items()}
_ESCAPE = re.compile(r'\\(?:u\{([0-9a-fA-F]{1,6})\}|(["\\nrt]))|\\')


# --- strings, names, numbers ------------------------------------------------------------------------------------------


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2,000 nodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quote(text: str) -> str:
    """A string literal on one line; what a terminal would not show is escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def unquote(literal: str) -> str:
    """The inverse of `quote`; the literal comes with its quotation marks.

    Raises:
        TextError: it holds an escape that `quote` never writes.
    """
    return _ESCAPE.sub(_unescape, literal[1:-1]) if "\\" in literal else literal[1:-1]


def _unescape(match: re.Match[str]) -> str:
    code, char = match.groups()
    if char is not None:
        return _UNESCAPED[char]
    if code is None or int(code, 16) > 0x10FFFF:
        raise TextError(r"an escape is one of \" \\ \n \r \t \u{hex}")
    return chr(int(code, 16))


def name_text(name: str) -> str:
    """A name as it stands after ``%``, ``@`` and keywords: bare where it is plain, otherwise quoted."""
    return name if _BARE_NAME.match(name) else quote(name)


def float_text(number: float) -> str:
    """A float attribute, exactly; the suffix "f" marks the shortest text of a number that is a float32."""
    text = repr(number)
    with np.errstate(over="ignore"):
        single = np.float32(number)
    # ONNX stores attributes as float32: 0.1f says more than 0.10000000149011612.
    if len(text) > 8 and float(single) == number and float(np.float32(str(single))) == number:
        return f"{single!s}f"
    return text


def float_from_text(text: str) -> float:
    """The inverse of `float_text`.

    Raises:
        ValueError: it is no number.
    """
    if text.endswith("f") and text[:-1].lower().lstrip("+-") != "in":
        return float(np.float32(text[:-1]))
    return float(text)


# --- types ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def type_text(type: Type | None) -> str:
    """A type as the text form writes it: like ``str(type)``, with odd names of dimensions quoted; "?" for None."""
    if isinstance(type, TensorType):
        dims = "*" if type.shape is None else ",".join(map(_dim_text, type.shape))
        return f"{dtype_name(type.dtype)}[{dims}]"
    if isinstance(type, SequenceType):
        return f"seq({type_text(type.element)})"
    if isinstance(type, OptionalType):
        return f"optional({type_text(type.element)})"
    return "?"


def contents_text(contents: Iterable[Dim]) -> str:
    """The known elements of a small integer tensor: ``{N,?,3}``."""
    return "{" + ",".join(map(_dim_text, contents)) + "}"


def _dim_text(dim: Dim) -> str:
    if dim is None:
        return "?"
    if isinstance(dim, str):
        return dim if _BARE_DIM.match(dim) else quote(dim)
    return str(dim)


# --- arrays -----------------------------------------------------------------------------------------------------------


def array_text(array: np.ndarray, constants: str) -> str:
    """The elements of an array in braces, as they stand after its type.

    Args:
        array: any array that a graph may hold.
        constants: "short" (large ones become ``{...}``), "full" (large ones in base64) or "none" (an empty text).

    Returns:
        ``{1.0,2.0}`` in row-major order; one element where all are the same, bit by bit; strings in full under "full". An
        array of objects that are no strings has no text and becomes ``{...}``.
    """
    if constants == "none":
        return ""
    if array.size <= LITERAL_SIZE or constants == "full" or array.dtype != object:
        sample = array.reshape(-1)[:1] if array.size > 1 and is_uniform(array) else array
        if sample.size <= LITERAL_SIZE or array.dtype == object:
            elements = _elements(sample)
            if elements is not None:
                return "{" + ",".join(elements) + "}"
    if array.dtype == object or (constants == "short" and array.size > LITERAL_SIZE):
        return "{...}"
    return '{base64 "' + base64.b64encode(array_bytes(array)).decode() + '"}'


def is_uniform(array: np.ndarray) -> bool:
    """Whether all elements of an array that has some are the same, bit by bit."""
    flat = array.reshape(-1)
    # The first few elements settle it for nearly every array of weights without a pass over all of them.
    return same_bits(flat[:8], np.broadcast_to(flat[:1], flat[:8].shape)) and (
        array.size <= 8 or same_bits(flat, np.broadcast_to(flat[:1], flat.shape))
    )


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and elements bit by bit, so that nan equals itself and -0 is not 0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == object:
        return all(type(x) is type(y) and x == y for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True))
    return a is b or bool(np.array_equal(_bytes(a), _bytes(b)))


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def array_bytes(array: np.ndarray) -> bytes:
    """The elements of an array that holds no objects: little-endian, row-major."""
    return (array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array).tobytes()


def _elements(array: np.ndarray) -> list[str] | None:
    """One text per element, or None where those would not give the same bits (a nan with a payload)."""
    flat, kind = array.reshape(-1), array.dtype.kind
    if kind == "O":
        return [quote(x) for x in flat] if all(isinstance(x, str) for x in flat) else None
    if kind == "b":
        return ["true" if x else "false" for x in flat]
    if kind in "iu":
        return [str(x) for x in flat.tolist()]
    if kind == "c":
        texts = [f"{x.real!s}{'' if str(x.imag).startswith('-') else '+'}{x.imag!s}j" for x in flat]
    elif kind == "f":
        texts = [str(x) for x in flat]
    elif dtype_name(array.dtype).startswith(("i", "u")):
        texts = [str(int(x)) for x in flat]
    else:
        texts = [repr(float(x)) for x in flat]
    return texts if same_bits(array_from_elements(array.dtype, array.shape, texts), array) else None


def array_from_elements(dtype: np.dtype, shape: Sequence[int], elements: Sequence[str]) -> np.ndarray:
    """The array that `array_text` wrote element by element; a single element fills the whole of it.

    Args:
        dtype: its dtype.
        shape: its shape.
        elements: texts of the elements, unquoted where they are strings.

    Raises:
        TextError: an element is not of that dtype, or there are too few or too many of them.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if len(elements) != size and (len(elements) != 1 or size < 1):
        raise TextError(f"an array of shape {list(shape)} has {size} elements, not {len(elements)}")
    try:
        flat = _convert(dtype, elements)
    except (KeyError, ValueError, OverflowError) as error:
        raise TextError(f"an element is no {dtype_name(dtype)}: {error}") from None
    return np.full(shape, flat[0], dtype) if size > 1 == len(elements) else flat.reshape(shape)


def _convert(dtype: np.dtype, elements: Sequence[str]) -> np.ndarray:
    if dtype.kind == "O":
        array = np.empty(len(elements), object)
        array[:] = elements
        return array
    if dtype == np.bool_:
        return np.array([_BOOLS[e] for e in elements], np.bool_)
    if dtype.kind == "c":
        return np.array([complex(e) for e in elements], dtype)
    if dtype_name(dtype).startswith(("i", "u")):
        for element in elements:
            if not _INT.match(element):
                raise ValueError(f"{element!r} is no integer")
        return np.array([int(e) for e in elements], dtype)
    return np.array([float(e) for e in elements], dtype)


_BOOLS = {"true": True, "false": False}


def array_from_base64(dtype: np.dtype, shape: Sequence[int], text: str) -> np.ndarray:
    """The array whose bytes (little-endian, row-major) are given in base64; it cannot be written to.

    Raises:
        TextError: the text is no base64, or holds another number of bytes than the array has.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise TextError(f"this is not base64: {error}") from None
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if dtype.kind == "O" or len(raw) != expected:
        raise TextError(f"a {dtype_name(dtype)} array of shape {list(shape)} is not made of {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape)
