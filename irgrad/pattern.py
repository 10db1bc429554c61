"""Patterns and rules: what to look for in a graph, why it may not fit, and what to put in its place.

A rule is three functions. The first one returns the pattern; its parameters are variables, for operands and attributes
alike. The others ask for variables by name, besides ``b`` (the builder), ``root`` (the node that is replaced) and ``match``.

    @rule
    def transpose_of_transpose(x, inner, outer):
        return op("Transpose", op("Transpose", x, perm=inner), perm=outer)

    @transpose_of_transpose.check
    def _(inner, outer):
        return None if inner and outer else "a permutation is left to its default"

    @transpose_of_transpose.replace
    def _(b, x, inner, outer):
        return b.op("Transpose", x, perm=tuple(inner[axis] for axis in outer))

`irgrad.rewrite.rewrite` applies rules to a graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, TypeAlias, TypeVar, overload

from irgrad.builder import Builder
from irgrad.compare import attribute_key
from irgrad.errors import PassError
from irgrad.graph import Node, Value

__all__ = [
    "COMMUTATIVE",
    "Match",
    "OpPattern",
    "Pattern",
    "Rule",
    "Var",
    "anything",
    "constant",
    "either",
    "maybe",
    "op",
    "rule",
]

COMMUTATIVE = frozenset({"Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Mul", "Or", "Xor"})
"""Operations of two operands whose order does not matter, down to the last bit. Max and Min are not among them: which of
-0 and +0 they return depends on it."""

Bindings: TypeAlias = "Mapping[str, Any]"
Reasons: TypeAlias = "list[str] | None"
F = TypeVar("F", bound=Callable[..., Any])


# --- patterns ---------------------------------------------------------------------------------------------------------


class Pattern:
    """Something that a value may match."""

    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        """All ways in which a value (None for an absent operand) matches, as what is bound then.

        Args:
            value: the operand in question.
            bound: what is bound already; it is not changed.
            reasons: why it did not match is appended here, unless it is None.
        """
        raise NotImplementedError

    @property
    def inner(self) -> tuple[Pattern, ...]:
        """The patterns that this one is made of."""
        return ()

    @property
    def depth(self) -> int:
        """How many nodes lie on the longest way through the pattern."""
        return max((pattern.depth for pattern in self.inner), default=0)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that a match binds."""
        return tuple(dict.fromkeys(name for pattern in self.inner for name in pattern.variables))


@dataclass(frozen=True)
class Var(Pattern):
    """A variable: any value that is there, the same one at each place where it stands. As an attribute: any attribute."""

    name: str

    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        if value is None:
            _note(reasons, f"there is no operand for {self.name}")
        elif bound.get(self.name, value) is not value:
            _note(reasons, f"{self.name} would have to be %{bound[self.name].name} and %{value.name}")
        else:
            yield {**bound, self.name: value}

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True)
class _Anything(Pattern):
    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        yield bound


anything = _Anything()
"""Matches every operand, also an absent one, and binds nothing."""


@dataclass(frozen=True)
class _Constant(Pattern):
    variable: Var

    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        if value is not None and (value.constant is None or value.is_parameter):
            _note(reasons, f"%{value.name} is no constant" + (" but a parameter" if value.is_parameter else ""))
        else:
            yield from self.variable.match(value, bound, reasons)

    @property
    def inner(self) -> tuple[Pattern, ...]:
        return (self.variable,)


@dataclass(frozen=True)
class _Either(Pattern):
    choices: tuple[Pattern, ...]
    absent: bool = False

    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        everything = dict.fromkeys(self.variables)
        if value is None and self.absent:
            yield {**everything, **bound}
            return
        for choice in self.choices:
            for found in choice.match(value, bound, reasons):
                yield {**everything, **found}

    @property
    def inner(self) -> tuple[Pattern, ...]:
        return self.choices


@dataclass(frozen=True)
class OpPattern(Pattern):
    """A value that a node of certain operations makes; see `op`."""

    names: frozenset[str]
    operands: tuple[Pattern, ...]
    open: bool
    attrs: Mapping[str, Any]
    commutes: bool | None
    result: int = 0
    variable: Var | None = None

    def bind(self, variable: Var) -> OpPattern:
        """The same pattern, which gives the node that matched a name."""
        return OpPattern(self.names, self.operands, self.open, self.attrs, self.commutes, self.result, variable)

    def output(self, index: int) -> OpPattern:
        """The same pattern for another than the first output of the node."""
        return OpPattern(self.names, self.operands, self.open, self.attrs, self.commutes, index, self.variable)

    @property
    def inner(self) -> tuple[Pattern, ...]:
        attributes = [value for value in self.attrs.values() if isinstance(value, Var)]
        return (*self.operands, *attributes, *([] if self.variable is None else [self.variable]))

    @property
    def depth(self) -> int:
        return 1 + super().depth

    def match(self, value: Value | None, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        node = None if value is None else value.producer
        if node is None or node.op.qualified_name not in self.names:
            if reasons is not None:
                made = "no node" if node is None else f"{node.op.qualified_name}"
                shown = "an absent operand" if value is None else f"%{value.name}"
                reasons.append(f"{shown} is made by {made}, not by {' or '.join(sorted(self.names))}")
        elif self.result >= len(node.outputs) or node.outputs[self.result] is not value:
            _note(reasons, f"{value!r} is not output {self.result} of its node")
        else:
            yield from self.match_node(node, bound, reasons)

    def match_node(self, node: Node, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        """All ways in which a node of one of the operations matches; see `match`."""
        inputs = list(node.inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        count = len(self.operands)
        if len(inputs) > count and not self.open:
            _note(reasons, f"{node.name!r} has {len(inputs)} operands, the pattern {count}")
            return
        for start in self._attributes(node, bound, reasons):
            yield from self._operands([*inputs, *[None] * (count - len(inputs))], start, reasons)
            if self._commutes(node) and len(inputs) == count == 2 and inputs[0] is not inputs[1]:
                yield from self._operands(inputs[::-1], start, reasons)

    def _commutes(self, node: Node) -> bool:
        return node.op.qualified_name in COMMUTATIVE if self.commutes is None else self.commutes

    def _attributes(self, node: Node, bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        found = dict(bound)
        found[_NODES] = (*bound[_NODES], node)
        if self.variable is not None:
            found[self.variable.name] = node
        for key, wanted in self.attrs.items():
            actual = node.attr(key)
            if isinstance(wanted, Var):
                wanted = found.setdefault(wanted.name, actual)
            if attribute_key(actual) != attribute_key(wanted):
                _note(reasons, f"the attribute {key!r} of {node.name!r} is {actual!r}, not {wanted!r}")
                return
        yield found

    def _operands(self, inputs: Sequence[Value | None], bound: Bindings, reasons: Reasons) -> Iterator[Bindings]:
        # Depth first over the operands; the recursion is as deep as the pattern is long.
        def further(position: int, sofar: Bindings) -> Iterator[Bindings]:
            if position == len(self.operands):
                yield sofar
                return
            for after in self.operands[position].match(inputs[position], sofar, reasons):
                yield from further(position + 1, after)

        return further(0, bound)


_NODES = "\0nodes"  # the key under which bindings keep the matched nodes; no variable has such a name


def _note(reasons: Reasons, reason: str) -> None:
    if reasons is not None:
        reasons.append(reason)


def op(
    names: str | Sequence[str], *operands: Pattern | EllipsisType, commutes: bool | None = None, **attrs: Any
) -> OpPattern:
    """A node of one operation, or of one of several.

    Args:
        names: qualified names: "Tanh", "irgrad.SumTo".
        operands: a pattern for each operand; an operand beyond them must be absent, unless ``...`` stands at the end.
        commutes: whether two operands may match in either order; by default where the operation is commutative.
        attrs: attributes: a variable (bound to the attribute, its default, or None) or what the attribute must be.
            Attributes that are not mentioned may be anything.
    """
    patterns = tuple(operand for operand in operands if isinstance(operand, Pattern))
    open_ = bool(operands) and operands[-1] is ...
    if len(patterns) + open_ != len(operands):
        raise PassError(f"the operands of a pattern are patterns, and ... at their end; these are not: {operands!r}")
    return OpPattern(frozenset([names] if isinstance(names, str) else names), patterns, open_, attrs, commutes)


def constant(variable: Var) -> Pattern:
    """A constant that is no parameter (a parameter may change from run to run)."""
    return _Constant(variable)


def maybe(pattern: Pattern) -> Pattern:
    """An operand that matches `pattern` or is absent; its variables are None then."""
    return _Either((pattern,), absent=True)


def either(*choices: Pattern) -> Pattern:
    """An operand that matches one of several patterns, tried in order; the variables of the others are None."""
    return _Either(choices)


# --- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """One place where a rule's pattern and condition hold.

    Attributes:
        root: the node that is to be replaced.
        nodes: all nodes that the pattern covers, the root first.
        bound: name of a variable → operand, attribute or node.
    """

    root: Node
    nodes: tuple[Node, ...]
    bound: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]


class Rule:
    """A pattern, a condition and a replacement; made by the decorator `rule`.

    Attributes:
        name: the name of the function that returns the pattern.
        pattern: the pattern; the node at its root is what is replaced.
        exclusive: the values inside the pattern must have no use outside of it, so that their nodes go away.
    """

    def __init__(self, function: Callable[..., OpPattern], *, exclusive: bool = False) -> None:
        self.name = function.__name__
        self.exclusive = exclusive
        variables = list(inspect.signature(function).parameters)
        self.pattern = function(**{name: Var(name) for name in variables})
        self.__doc__ = function.__doc__
        unbound = [name for name in variables if name not in self.pattern.variables]
        if unbound:
            raise PassError(f"the variable {unbound[0]!r} of the rule {self.name!r} does not stand in its pattern")
        self._known = {*variables, "root", "match"}
        self._check: _Asking | None = None
        self._replace: _Asking | None = None

    def check(self, function: F) -> F:
        """Decorator: the condition; it returns None where the rule may be applied, else the reason why not."""
        self._check = _Asking(self.name, function, self._known)
        return function

    def replace(self, function: F) -> F:
        """Decorator: the replacement; it returns the value that takes the root's place.

        For a root of several outputs it returns one value for each, None for one that the condition has found to be unused.
        """
        self._replace = _Asking(self.name, function, {*self._known, "b"})
        return function

    def match(self, node: Node, reasons: Reasons = None) -> Match | None:
        """Where and how the rule applies to a node as its root, or None.

        Args:
            node: any node.
            reasons: why the rule does not apply is appended here, unless it is None.
        """
        if node.op.qualified_name not in self.pattern.names:
            _note(reasons, f"{node.name!r} is {node.op.qualified_name}")
            return None
        for bound in self.pattern.match_node(node, {_NODES: ()}, reasons):
            match = Match(node, bound[_NODES], bound)
            reason = _used_outside(match) if self.exclusive else None
            if reason is None and self._check is not None:
                reason = self._check(match)
            if reason is None:
                return match
            _note(reasons, reason)
        return None

    def emit(self, b: Builder, match: Match) -> tuple[Value | None, ...]:
        """Emit the replacement; its results, one for each output of the root."""
        if self._replace is None:
            raise PassError(f"the rule {self.name!r} has no replacement")
        with b:
            results = self._replace(match, b=b)
        return tuple(results) if isinstance(results, (tuple, list)) else (results,)

    def __repr__(self) -> str:
        return f"<Rule {self.name}>"


class _Asking:
    """A function that gets those variables that its parameters name."""

    def __init__(self, rule: str, function: Callable[..., Any], known: set[str]) -> None:
        self._function = function
        self._names = list(inspect.signature(function).parameters)
        unknown = [name for name in self._names if name not in known]
        if unknown:
            raise PassError(
                f"a function of the rule {rule!r} asks for {unknown[0]!r}, which is no variable of its pattern; "
                f"there are: {', '.join(sorted(known))}"
            )

    def __call__(self, match: Match, **more: Any) -> Any:
        offered = {**match.bound, **more, "root": match.root, "match": match}
        return self._function(**{name: offered[name] for name in self._names})


def _used_outside(match: Match) -> str | None:
    inside = set(match.nodes)
    for node in match.nodes[1:]:
        for value in node.outputs:
            if value.is_output:
                return f"{value!r} inside the pattern is an output of the graph"
            if value.name in value.graph.gradients:
                return f"{value!r} inside the pattern has a gradient"
            other = next((user for user in value.users if user not in inside), None)
            if other is not None:
                return f"{value!r} inside the pattern is also used by {other.name!r}"
    return None


@overload
def rule(function: Callable[..., OpPattern]) -> Rule: ...
@overload
def rule(*, exclusive: bool = False) -> Callable[[Callable[..., OpPattern]], Rule]: ...
def rule(
    function: Callable[..., OpPattern] | None = None, *, exclusive: bool = False
) -> Rule | Callable[[Callable[..., OpPattern]], Rule]:
    """Decorator: makes a `Rule` of a function whose parameters are variables and which returns a pattern.

    Args:
        function: returns what `op` makes.
        exclusive: see `Rule`.
    """
    if function is None:
        return lambda later: Rule(later, exclusive=exclusive)
    return Rule(function, exclusive=exclusive)
