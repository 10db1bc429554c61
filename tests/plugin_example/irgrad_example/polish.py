"""A frontend for formulas in reverse Polish notation: ``x 2 / tanh 2 *``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.errors import ModelParseError
from irgrad.graph import Graph, Value
from irgrad.types import TensorType

__all__ = ["PolishFrontend"]

_BINARY = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div"}
_UNARY = {"neg": "Neg", "tanh": "Tanh", "exp": "Exp"}


class PolishFrontend:
    """Reads files that end in ``.rpn``. Numbers are constants, other words inputs: float32 vectors of one length."""

    def accepts(self, source: Any) -> bool:
        return isinstance(source, (str, Path)) and Path(source).suffix == ".rpn"

    def load(self, source: Any) -> Graph:
        """Read a formula; its value is the output ``result``.

        Raises:
            ModelParseError: an operator lacks an operand, or something is left over.
        """
        graph = Graph(Path(source).stem)
        b = Builder(graph)
        stack: list[Value] = []
        for word in Path(source).read_text(encoding="utf-8").split():
            count = 2 if word in _BINARY else 1 if word in _UNARY else 0
            if len(stack) < count:
                raise ModelParseError(f"{word!r} in {source} needs {count} operands, there are {len(stack)}")
            operands = [stack.pop() for _ in range(count)][::-1]
            stack.append(b.op({**_BINARY, **_UNARY}[word], *operands) if count else _leaf(b, word))
        if len(stack) != 1:
            raise ModelParseError(f"{source} leaves {len(stack)} values on the stack; a formula leaves one")
        graph.set_outputs({"result": stack[0]})
        return graph


def _leaf(b: Builder, word: str) -> Value:
    try:
        return b.constant(np.float32(word))
    except ValueError:
        if b.graph.has_value(word):
            return b.graph.value(word)
        return b.graph.add_input(word, TensorType(np.dtype(np.float32), ("N",)))
