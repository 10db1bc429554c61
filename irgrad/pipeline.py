"""Passes and pipelines of them.

A pipeline is a list of passes, or a text: names separated by commas, options in braces, pipelines inside it in parentheses.

    Pipeline("grad{wrt=inputs},simplify,checkpoint{budget=64MB}").apply(graph)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from irgrad.compare import graphs_equal
from irgrad.errors import IrgradError, PassError, did_you_mean
from irgrad.graph import Graph, active_pass
from irgrad.literals import unquote
from irgrad.options import Nested, Quoted, Words, convert, defaults_of, option_text, option_types
from irgrad.plugin import registry
from irgrad.verify import verify as verify_graph

__all__ = ["Instrument", "Pass", "Pipeline", "run_pass"]


@dataclass(frozen=True)
class Pass:
    """A transformation of a graph. Derive a frozen dataclass whose fields are the options of the pass.

    Attributes:
        name: what pipelines call it.
    """

    name: ClassVar[str] = ""

    def requires(self, graph: Graph) -> None:
        """Raise PassError where the graph does not meet what this pass takes for granted."""

    def run(self, graph: Graph) -> bool:
        """Change the graph in place; True exactly if anything changed."""
        raise NotImplementedError

    def ensures(self, graph: Graph) -> None:
        """Raise PassError where the graph lacks what this pass promises."""


def run_pass(pass_: Pass, graph: Graph) -> bool:
    """`pass_.run(graph)`, noted on the nodes that it adds or changes: what a pass calls that is made of others."""
    token = active_pass.set(pass_.name or type(pass_).__name__)
    try:
        return pass_.run(graph)
    finally:
        active_pass.reset(token)


class Instrument:
    """Watches a pipeline; the methods do nothing here. Ready-made ones are in `irgrad.instruments`."""

    def before(self, pass_: Pass, graph: Graph) -> None:
        """A pass is about to run."""

    def after(self, pass_: Pass, graph: Graph, changed: bool) -> None:
        """A pass has run, and the graph has been verified."""

    def failed(self, pass_: Pass, graph: Graph, error: BaseException) -> None:
        """A pass, or the verification after it, has failed; the error is raised next."""


class Pipeline:
    """Passes that run one after the other.

    Args:
        passes: passes and pipelines, or a text: ``name{option=value,...}`` separated by commas, pipelines inside it in
            parentheses. What options may look like is told at `irgrad.options.convert`.
        verify: verify the graph before the first pass and after each (structure, not types).
        truthful: also compare the graph before and after each pass with what its `run` returned. This copies the graph for
            every pass; it is for tests.
        instruments: what watches; told of each pass before it, in order, and after it, in reverse order.

    Raises:
        PassError: the text is misspelt, or something in the list is no pass.
    """

    def __init__(
        self,
        passes: str | Pass | Pipeline | Iterable[Pass | Pipeline],
        *,
        verify: bool = True,
        truthful: bool = False,
        instruments: Sequence[Instrument] = (),
    ) -> None:
        if isinstance(passes, str):
            passes = _Parser(passes).pipeline()
        elif isinstance(passes, (Pass, Pipeline)):
            passes = [passes]
        self.passes = tuple(passes)
        self._verify = verify
        self._truthful = truthful
        self._instruments = tuple(instruments)
        for item in self.passes:
            if not isinstance(item, (Pass, Pipeline)):
                raise PassError(f"a pipeline is made of passes; {item!r} is none")

    def apply(self, graph: Graph) -> Graph:
        """A copy of a graph with the passes run over it.

        Raises:
            IrgradError: see `run`; the graph itself is as it was in any case.
        """
        copy = graph.copy()
        self.run(copy)
        return copy

    def run(self, graph: Graph) -> bool:
        """Run the passes over a graph in place; True if any of them changed anything.

        Raises:
            IrgradError: a pass failed, or its own conditions or the graph's invariants did not hold. The message names the
                pass; the graph may be half changed.
        """
        if self._verify:
            verify_graph(graph)
        changed = False
        for pass_ in self._flat():
            changed |= self._run_one(pass_, graph)
        return changed

    def _flat(self) -> Iterator[Pass]:
        for item in self.passes:
            yield from item._flat() if isinstance(item, Pipeline) else (item,)

    def _run_one(self, pass_: Pass, graph: Graph) -> bool:
        for instrument in self._instruments:
            instrument.before(pass_, graph)
        try:
            with _errors_of(pass_):
                before = graph.copy() if self._truthful else None
                pass_.requires(graph)
                changed = run_pass(pass_, graph)
                if before is not None:
                    _check_truth(before, graph, changed)
                if self._verify:
                    verify_graph(graph)
                pass_.ensures(graph)
        except BaseException as error:
            for instrument in reversed(self._instruments):
                instrument.failed(pass_, graph, error)
            raise
        for instrument in reversed(self._instruments):
            instrument.after(pass_, graph, changed)
        return changed

    def __eq__(self, other: object) -> bool:
        return self.passes == other.passes if isinstance(other, Pipeline) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.passes)

    def __str__(self) -> str:
        """The text that makes this pipeline."""
        return ",".join(f"({item})" if isinstance(item, Pipeline) else _pass_text(item) for item in self.passes)

    def __repr__(self) -> str:
        return f"Pipeline({str(self)!r})"


@contextmanager
def _errors_of(pass_: Pass) -> Iterator[None]:
    """Errors of the block name the pass; those of irgrad keep their class."""
    where = f"in the pass {pass_.name or type(pass_).__name__!r}"
    try:
        yield
    except IrgradError as error:
        error.args = (f"{where}: {error}", *error.args[1:])
        raise
    except Exception as error:
        text = str(error) or "no message"
        raise PassError(f"{where}: it failed with {type(error).__name__} ({text}), a defect of the pass") from error


def _check_truth(before: Graph, after: Graph, changed: bool) -> None:
    difference = graphs_equal(before, after)
    if changed and difference is None:
        raise PassError("run said that it changed the graph, but it did not")
    if not changed and difference is not None:
        raise PassError(f"run said that it changed nothing, but {difference}")


# --- pipelines as text ------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*") | (?P<mark>[,{}()\[\]=]) | (?P<word>[^\s,{}()\[\]="]+)
             | (?P<end>\Z) | (?P<bad>.) )""",
    re.VERBOSE,
)


class _Parser:
    """Recursive descent; a pipeline is nested a few levels deep at most."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self._advance()

    def pipeline(self) -> tuple[Pass | Pipeline, ...]:
        """The whole text."""
        passes = self._items("end")
        if self._kind != "end":
            self._fail("a comma or the end was expected")
        return passes

    def _advance(self) -> str:
        token = getattr(self, "_token", "")
        match = _TOKEN.match(self._text, self._next)
        assert match is not None and match.lastgroup is not None
        self._kind, self._token = match.lastgroup, match[match.lastgroup]
        self._start, self._next = match.start(match.lastgroup), match.end()
        return token

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        column = (self._start if at is None else at) + 1
        found = "" if at is not None else ", but the text ends here" if self._kind == "end" else f", not {self._token!r}"
        raise PassError(f"column {column} of the pipeline {self._text!r}: {message}{found}")

    def _accept(self, mark: str) -> bool:
        if self._kind == "mark" and self._token == mark:
            self._advance()
            return True
        return False

    def _items(self, end: str) -> tuple[Pass | Pipeline, ...]:
        items: list[Pass | Pipeline] = []
        if self._kind == end or self._token == end:
            return ()
        while True:
            if self._accept("("):
                items.append(Pipeline(self._items(")")))
                if not self._accept(")"):
                    self._fail("')' was expected")
            elif self._kind == "word":
                items.append(self._pass())
            else:
                self._fail("the name of a pass was expected")
            if not self._accept(","):
                return tuple(items)

    def _pass(self) -> Pass:
        start = self._start
        name = self._advance()
        cls = registry.find("passes", name)
        if cls is None:
            self._fail(f"there is no pass {name!r}{_suggest(name, registry.names('passes'))}", start)
        options = self._options(cls) if self._accept("{") else {}
        missing = [key for key in option_types(cls) if key not in options and key not in defaults_of(cls)]
        if missing:
            self._fail(f"the pass {name!r} needs the option {missing[0]!r}", start)
        try:
            made = cls(**options)
        except IrgradError as error:
            self._fail(str(error), start)
        assert isinstance(made, Pass)
        return made

    def _options(self, cls: type[Pass]) -> dict[str, Any]:
        known = option_types(cls)
        options: dict[str, Any] = {}
        while not self._accept("}"):
            start = self._start
            if self._kind != "word":
                self._fail("the name of an option was expected")
            key = self._advance()
            if key not in known:
                self._fail(f"the pass {cls.name!r} has no option {key!r}{_suggest(key, known)}", start)
            if key in options:
                self._fail(f"the option {key!r} is given twice", start)
            if not self._accept("="):
                self._fail("'=' was expected")
            start = self._start
            given = self._value()
            try:
                options[key] = convert(given, known[key])
            except ValueError as error:
                end = self._text[start : self._start].rstrip(" ,}")
                self._fail(f"the option {key!r} of the pass {cls.name!r} takes {error}, not {end}", start)
            if self._token != "}" and not self._accept(","):
                self._fail("a comma or '}' was expected")
        return options

    def _value(self) -> Any:
        if self._accept("("):
            passes = Nested(self._items(")"))
            if not self._accept(")"):
                self._fail("')' was expected")
            return passes
        if self._accept("["):
            words = []
            while not self._accept("]"):
                words.append(self._value())
                if self._token != "]" and not self._accept(","):
                    self._fail("a comma or ']' was expected")
            return Words(words)
        if self._kind == "string":
            return Quoted(unquote(self._advance()))
        if self._kind != "word":
            self._fail("a value was expected")
        return self._advance()


def _suggest(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known) + f" (known: {', '.join(known) or 'none'})"


def _pass_text(pass_: Pass) -> str:
    defaults = defaults_of(type(pass_))
    given = {key: getattr(pass_, key) for key in option_types(type(pass_))}
    texts = [f"{key}={_value_text(v)}" for key, v in given.items() if key not in defaults or defaults[key] != v]
    name = pass_.name or type(pass_).__name__
    return f"{name}{{{','.join(texts)}}}" if texts else name


def _value_text(value: Any) -> str:
    if isinstance(value, (Pass, Pipeline)):
        return f"({Pipeline([value])})"
    if isinstance(value, (tuple, list)) and value and all(isinstance(item, (Pass, Pipeline)) for item in value):
        return f"({Pipeline(value)})"
    return option_text(value)
