"""What stands in the boxes of a drawing: short enough to fit, long enough to find it in the graph again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from irgrad.graph import Node, Value
from irgrad.literals import array_text, type_text
from irgrad.types import dtype_name, dtype_of_element

__all__ = ["attributes_text", "cut", "elements_text", "operations_text", "ports_text", "shortened", "type_label"]

WIDTH = 34
"""The most characters of a line in a box."""

_ELLIPSIS = "…"
_DTYPES = ("to", "dtype")
_NOTHING = {"pads": 0, "output_padding": 0, "strides": 1, "dilations": 1}
"""What these attributes hold where they might as well be absent; their schemas have no default, for want of a rank."""


def shortened(name: str, width: int = WIDTH) -> str:
    """A name in at most `width` characters: leading scopes go first, then the middle."""
    name = "".join(c if c.isprintable() else "�" for c in name)
    if len(name) <= width:
        return name
    for position, character in enumerate(name):
        # A short last part alone says little; then the middle of the whole goes instead.
        if character in "/." and width // 3 <= len(name) - position < width:
            return _ELLIPSIS + name[position:]
    return _without_middle(name, width)


def type_label(value: Value) -> str:
    """The type of a value in a few characters."""
    return _without_middle(type_text(value.type), WIDTH)


def attributes_text(node: Node) -> str:
    """The attributes that say how a node differs from others of its operation: ``axis=1, kernel_shape=3×3``."""
    texts = []
    for name, value in node.attrs.items():
        if name in _DTYPES and not node.op.domain and value:
            text: str | None = dtype_name(dtype_of_element(value))
        else:
            text = _attribute_text(value, "×" if name == "kernel_shape" or name in _NOTHING else ",")
        if text is not None and value != node.op.defaults.get(name) and not _means_nothing(name, value):
            texts.append(f"{name}={text}")
    return _fitting(texts)


def ports_text(node: Node) -> list[str]:
    """The constant operands of a node, one line each: ``operand 1 = {0,2}``."""
    lines = []
    for index, value in enumerate(node.inputs):
        if value is not None and value.constant is not None and not value.is_parameter:
            elements = array_text(value.constant, "short") if value.constant.size <= 8 else ""
            shown = elements if 0 < len(elements) <= 16 else type_label(value)
            lines.append(f"operand {index} = {shown}")
    return lines[:3] + ([f"+{len(lines) - 3} constants"] if len(lines) > 3 else [])


def operations_text(nodes: Iterable[Node], lines: int = 4) -> list[str]:
    """How many nodes of which operations there are, the most frequent first: ``3 Conv``, ``2 Relu``."""
    counts = sorted(Counter(node.op.name for node in nodes).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {shortened(name, 24)}" for name, count in counts]
    if len(shown) > lines + 1:
        shown = [*shown[:lines], f"{sum(count for _, count in counts[lines:])} others"]
    return shown


def elements_text(number: int) -> str:
    """A number of elements, rounded: ``25.6M``."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}" if number < 999.5 * size else f"{number / size:.0f}{letter}"
    return str(number)


def cut(text: str, length: int = 400) -> str:
    """A text of any origin as one printable line of at most that many characters."""
    return "".join(c if c.isprintable() else "�" for c in text[:length]) + _ELLIPSIS * (len(text) > length)


def _attribute_text(value: object, separator: str) -> str | None:
    if isinstance(value, (bool, int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, str):
        return shortened(value, 12)
    if isinstance(value, (tuple, list)) and value and len(value) <= 6 and all(isinstance(x, int) for x in value):
        joined = separator.join(map(str, value))
        return joined if separator == "×" and len(value) > 1 else f"[{joined}]"
    return None


def _means_nothing(name: str, value: object) -> bool:
    return name in _NOTHING and isinstance(value, (tuple, list)) and all(x == _NOTHING[name] for x in value)


def _fitting(texts: Sequence[str]) -> str:
    line = ""
    for text in texts:
        longer = f"{line}, {text}" if line else text
        if len(longer) > WIDTH:
            return f"{line}, {_ELLIPSIS}" if line else _without_middle(text, WIDTH)
        line = longer
    return line


def _without_middle(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}{_ELLIPSIS}{text[len(text) - (width - 1 - head) :]}"
