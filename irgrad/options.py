"""Options given as text: converting words to what the fields of a dataclass hold, and back."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from irgrad.literals import quote

__all__ = ["Nested", "Quoted", "Words", "convert", "defaults_of", "option_text", "option_types"]

_NUMBER = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9]*)?)(?:([kmgt])(i?))?b?\Z", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_BARE = re.compile(r"[A-Za-z0-9_./$:-]+\Z")


class Quoted(str):
    """A string that stood in quotation marks: a string and nothing else."""


class Words(tuple[Any, ...]):
    """A list in brackets, of whatever options can be."""


class Nested(tuple[Any, ...]):
    """What stood in parentheses, converted already: the passes of an inner pipeline."""


def option_types(cls: type) -> dict[str, Any]:
    """Name → type of the options that a dataclass takes."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def defaults_of(cls: type) -> dict[str, Any]:
    """Name → default of the options that have one."""
    found = {}
    for field in fields(cls):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


def convert(given: Any, hint: Any) -> Any:
    """What an option's type makes of a word, a `Quoted`, a `Words` list or something `Nested`.

    Integers (and floats) may be sizes: "64MB" is 64,000,000, "64MiB" is 64 times 2 to the 20th. A list is written ``[a,b]``
    or ``a|b``. Of several types, the first that takes the word wins, strings last.

    Raises:
        ValueError: none of the types takes it; the message says what would do.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first_of(given, sorted(args, key=lambda arg: _priority(arg, given)))
    if origin is Literal:
        return _choice(given, {str(value): value for value in args})
    if isinstance(origin, type) and issubclass(origin, (Sequence, frozenset, set)):
        return _sequence(given, args[0], tuple if issubclass(origin, Sequence) else frozenset)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(given, {str(member.value): member for member in hint})
    if isinstance(given, Nested) and isinstance(hint, type) and len(given) == 1 and isinstance(given[0], hint):
        return given[0]
    reader = _READERS.get(hint)
    if reader is None or not isinstance(given, str) or (isinstance(given, Quoted) and hint not in (str, Any)):
        raise ValueError(_describe(hint))
    return reader(given)


def _first_of(given: Any, hints: Iterable[Any]) -> Any:
    wanted = []
    for hint in hints:
        try:
            return convert(given, hint)
        except ValueError as error:
            wanted.append(str(error))
    raise ValueError(" or ".join(wanted))


def _choice(given: Any, choices: Mapping[str, Any]) -> Any:
    if isinstance(given, str) and given in choices:
        return choices[given]
    raise ValueError(" or ".join(choices))


def _sequence(given: Any, item: Any, make: Callable[[Iterable[Any]], Any]) -> Any:
    if isinstance(given, Nested):
        if not all(isinstance(x, item) for x in given):
            raise ValueError(_describe(item))
        return make(given)
    if isinstance(given, Words):
        return make(convert(word, item) for word in given)
    if isinstance(given, Quoted):
        return make([convert(given, item)])
    return make(convert(word, item) for word in given.split("|"))


def _priority(hint: Any, given: Any) -> int:
    """Strings, which take any word, after numbers; lists last, but first where the word looks like one."""
    if isinstance(get_origin(hint), type):
        return 0 if isinstance(given, str) and not isinstance(given, Quoted) and "|" in given else 2
    return 1 if hint in (str, Any) else 0


def _describe(hint: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "none"}.get(
        hint, f"a {getattr(hint, '__name__', hint)}, which cannot be written as text"
    )


def _number(word: str) -> int | float | None:
    match = _NUMBER.match(word)
    if match is None:
        return None
    digits, unit, binary = match.groups()
    scale = 1 if unit is None else (1024 if binary else 1000) ** _POWERS[unit.lower()]
    return float(digits) * scale if "." in digits else int(digits) * scale


def _int(word: str) -> int:
    number = _number(word)
    if number is None or number != int(number):
        raise ValueError("a whole number (or a size such as 64MB)")
    return int(number)


def _float(word: str) -> float:
    number = _number(word)
    try:
        return float(word if number is None else number)
    except ValueError:
        raise ValueError("a number") from None


def _bool(word: str) -> bool:
    try:
        return _BOOLS[word.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def _none(word: str) -> None:
    if word != "none":
        raise ValueError("none")


def _str(word: str) -> str:
    return str(word)


_READERS: dict[Any, Callable[[str], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    type(None): _none,
    Any: _str,
}


def option_text(value: Any) -> str:
    """The text that `convert` makes this value of."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Enum):
        return option_text(value.value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(map(option_text, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "[" + ",".join(sorted(map(option_text, value))) + "]"
    text = str(value)
    # What could be taken for something other than a string is quoted.
    plain = _BARE.match(text) and _number(text) is None and text.lower() not in (*_BOOLS, "none", "inf", "nan")
    return text if plain else quote(text)
