"""Tokens of the text form, one of lookahead, and errors that say where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from irgrad.errors import IrgradError, TextError
from irgrad.literals import unquote

__all__ = ["Lexer"]

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*)*
    (?: (?P<value>%(?:[^\s"%@(){}\[\],=:#]+|"(?:[^"\\\n]|\\.)*"))
      | (?P<word>[^\s"%@(){}\[\],=:#]+)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<mark>[@(){}\[\],=:])
      | (?P<end>\Z)
      | (?P<bad>.) )""",
    re.VERBOSE,
)
_NESTED = 50  # subgraphs and lists inside each other; Python's own stack ends somewhat later


class Lexer:
    """The tokens of a text, of which it looks at one.

    Attributes:
        kind: of the current token: "value" (``%name``), "word", "string", "mark", "end" or "bad" (what is none of these).
        token: the current token as it is written.
        start: where it begins.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = ""
        self.token = ""
        self.start = 0
        self._next = 0
        self._depth = 0
        self.advance()

    def advance(self) -> str:
        """Step to the next token and return the one that was current."""
        token = self.token
        match = _TOKEN.match(self.text, self._next)
        assert match is not None and match.lastgroup is not None
        self.kind = match.lastgroup
        self.token = match[self.kind]
        self.start = match.start(self.kind)
        self._next = match.end()
        return token

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        where = self.start if at is None else at
        line = self.text.count("\n", 0, where) + 1
        column = where - self.text.rfind("\n", 0, where)
        found = ""
        if at is None:
            shown = self.token if len(self.token) <= 40 else self.token[:40] + "..."
            found = ", but the text ends here" if self.kind == "end" else f", not {shown}"
            if self.kind == "bad" and self.token == '"':
                found = ", not a string without an end"
        raise TextError(f"line {line}, column {column}: {message}{found}")

    @contextmanager
    def errors_at(self, start: int) -> Iterator[None]:
        """Errors of the block, in which nothing is parsed, become errors at a position of the text."""
        try:
            yield
        except IrgradError as error:
            self.fail(str(error), start)

    @contextmanager
    def nested(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _NESTED:
            self.fail(f"lists and subgraphs inside each other are read to a depth of {_NESTED}", self.start)
        yield
        self._depth -= 1

    def at(self, mark: str) -> bool:
        return self.token == mark and self.kind == "mark"

    def at_word(self, word: str) -> bool:
        return self.token == word and self.kind == "word"

    def accept(self, mark: str) -> bool:
        if self.at(mark):
            self.advance()
            return True
        return False

    def accept_word(self, word: str) -> bool:
        if self.at_word(word):
            self.advance()
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            self.fail(f"{mark!r} was expected")

    def word(self, word: str) -> None:
        if not self.at_word(word):
            self.fail(f"{word!r} was expected")
        self.advance()

    def string(self) -> str:
        if self.kind != "string":
            self.fail("a string was expected")
        with self.errors_at(self.start):
            text = unquote(self.token)
        self.advance()
        return text

    def name(self, what: str) -> str:
        if self.kind == "word":
            return self.advance()
        if self.kind != "string":
            self.fail(f"the name of {what} was expected")
        return self.string()

    def value_name(self) -> str:
        if self.kind != "value":
            self.fail("a value (%name) was expected")
        token = self.token[1:]
        with self.errors_at(self.start):
            name = unquote(token) if token[0] == '"' else token
        self.advance()
        return name
