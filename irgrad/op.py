"""Operations: what one is, and how a family of them is told.

One operation is told in one place: its schema (from `onnx.defs` for the standard ones), numpy kernel, type inference
(where onnx's own does not serve), adjoint rule, and, for irgrad's own operations, its meaning in standard operations.

    ops = OpTable()

    tanh = ops.define("Tanh", kernel=np.tanh)

    @tanh.adjoint
    def _(b, node, dy):
        (y,) = node.outputs
        return dy * (1 - y * y)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnx
from onnx import defs

from irgrad.errors import PluginError
from irgrad.graph import OPSET, Graph, Node, Value
from irgrad.plugin import registry
from irgrad.proto import attribute_from_proto
from irgrad.types import Dim, TensorType, Type

if TYPE_CHECKING:
    from irgrad.builder import Builder

__all__ = [
    "IRGRAD_DOMAIN",
    "ZERO",
    "AdjointRule",
    "Call",
    "Cost",
    "CostRule",
    "Kernel",
    "Op",
    "OpTable",
    "WorkspaceKernel",
    "Zero",
    "bytes_of",
    "elements_of",
    "find_op",
    "qualified_name",
]

IRGRAD_DOMAIN = "irgrad"

Kernel: TypeAlias = "Callable[..., Any]"
"""``kernel(*arrays, out=None, **attrs)`` → one array, or a tuple of one per output.

Operands are concrete numpy arrays (lists for sequences, None for an absent operand) that must not be written to. Attributes
come with the schema's defaults filled in. `out` is None or what the result may be written to: an array of the result's
shape and dtype (for several outputs a tuple of those). A kernel may return `out`, a new array, or a view of an operand.
"""


@dataclass(frozen=True)
class WorkspaceKernel:
    """A kernel that needs memory of its own while it runs, which whoever plans the memory can provide.

    Attributes:
        function: ``function(*arrays, out=None, work=...)``, where `work` is a one-dimensional array of at least `workspace`
            bytes (uint8), aligned to 64 bytes, of any contents, that nothing else uses meanwhile.
        workspace: how many bytes it needs.
    """

    function: Callable[..., Any]
    workspace: int

    def __call__(self, *operands: Any, out: Any = None) -> Any:
        """Run it in memory that is allocated for this call."""
        return self.function(*operands, out=out, work=np.empty(self.workspace, np.uint8))


AdjointRule: TypeAlias = "Callable[..., Value | Sequence[Value | Zero | None] | None]"
"""``rule(b, node, *cotangents)`` → one cotangent per operand (a bare Value where there is one operand).

There is one cotangent per output of the node, None where it is zero. The rule emits nodes through the builder `b` or the
operators of values, never computes arrays. It does not undo broadcasting and does not sum over uses.

An operand that the results do not depend on (or by steps only) gets `ZERO`. None is for what is not asked for
(`b.needs`), and for what is zero because the cotangents are; where none of these is, None is refused, so that an operand
that a rule does not handle cannot pass for one without influence.
"""

F = TypeVar("F", bound=Callable[..., Any])


class Zero(Enum):
    """A declaration in place of a rule: no operand of the operation ever gets a gradient."""

    ZERO = "zero"


ZERO = Zero.ZERO

_RANDOM = frozenset(
    ["Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
"""The standard operations that draw random numbers, known as such also where no family defines them."""


@dataclass(frozen=True)
class Call:
    """One application of an operation, with what is known of it before it runs.

    Attributes:
        op: the operation.
        attrs: attributes with the schema's defaults filled in.
        inputs: the types of the operands, None for an absent one.
        outputs: the types of the outputs; during type inference the tuple is empty.
        constants: operand → its array, where that is a constant.
        contents: operand → the known elements of a small integer operand, see `Value.contents`.
        n_outputs: how many outputs the node has.
    """

    op: Op
    attrs: Mapping[str, Any]
    inputs: tuple[Type | None, ...]
    outputs: tuple[Type, ...] = ()
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)
    contents: Mapping[int, tuple[Dim, ...]] = field(default_factory=dict)
    n_outputs: int = 1

    def tensor(self, index: int) -> TensorType:
        """The type of an operand that must be there and be a tensor."""
        type = self.inputs[index]
        assert isinstance(type, TensorType), f"operand {index} of {self.op.qualified_name} is {type}"
        return type

    def has(self, index: int) -> bool:
        """Whether the operand at a position is present."""
        return index < len(self.inputs) and self.inputs[index] is not None


def elements_of(type: Type) -> int:
    """The number of elements of a tensor whose shape is static."""
    shape = type.static_shape if isinstance(type, TensorType) else None
    assert shape is not None, f"{type} has no static shape"
    return prod(shape)


def bytes_of(type: Type) -> int | None:
    """How many bytes a value takes in numpy; None where its type does not tell (unknown shapes, sequences, optionals)."""
    return type.nbytes if isinstance(type, TensorType) else None


class Cost(NamedTuple):
    """What running a node once takes.

    Attributes:
        flops: arithmetic operations; a multiplication and an addition count as two, a function of one element as one.
        read: bytes of operands.
        written: bytes of results.
    """

    flops: int
    read: int
    written: int

    @classmethod
    def of(cls, call: Call, flops: int, operands: Iterable[int] | None = None) -> Cost:
        """So many operations, on all operands (or those at some positions); every tensor has a static shape."""
        chosen = range(len(call.inputs)) if operands is None else operands
        read = [type for k in chosen if (type := call.inputs[k]) is not None]
        return cls(flops, sum(bytes_of(t) or 0 for t in read), sum(bytes_of(t) or 0 for t in call.outputs))


CostRule: TypeAlias = "Callable[[Call], Cost | None]"
"""``rule(call)`` → what the node takes, of a call whose operands and results are tensors of static shapes.

None where that depends on data: a loop of which nobody knows how often it runs.
"""


class Op:
    """An operation. Two nodes do the same thing exactly when their `op` is the same object and their attributes agree.

    Attributes:
        name: its name in its domain.
        domain: "" for the standard operations, "irgrad" for our own, anything for a custom one.
        gradient: an `AdjointRule`, `ZERO`, or None where there is neither (then an expansion may serve).
        broadcasts: True if every operand may be broadcast to the output's shape, or the positions of those that may; the
            adjoint pass sums their cotangents back.
        random: it draws random numbers, so that it is neither folded nor merged with its like.
        settings: positions of floating-point operands that say how to compute, as attributes do (the scales of a Resize): a
            constant that is nothing else is no parameter to learn.
        view: its kernel returns a view of the first operand where numpy can make one, which costs nothing.
        in_place: its kernel may be given the memory of an operand as `out`, where that has the type of the result: it never
            reads an element of an operand after it has written to its place. True for all operands, or the positions of
            those that may be written over. An operand that a node has twice is not. A ufunc of numpy as kernel makes it True
            by itself.
    """

    def __init__(
        self,
        name: str,
        *,
        domain: str = "",
        kernel: Kernel | None = None,
        gradient: AdjointRule | Zero | None = None,
        broadcasts: bool | Sequence[int] = False,
        random: bool = False,
        settings: Sequence[int] = (),
        view: bool = False,
        in_place: bool | Sequence[int] = False,
        cost: CostRule | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.domain = domain
        self.gradient = gradient
        self.broadcasts = broadcasts
        self.random = random or (domain == "" and name in _RANDOM)
        self.settings = settings
        self.view = view
        self.in_place = in_place or isinstance(kernel, np.ufunc)
        self._cost = cost
        self._kernel = kernel
        self._prepare: Callable[[Call], Kernel] | None = None
        self._infer: Callable[[Call], Sequence[Type]] | None = None
        self._lowering: Callable[..., Any] | None = None
        self._defaults = dict(defaults or {})

    # --- telling it (each is a decorator) -----------------------------------------------------------------------------

    def kernel(self, function: F) -> F:
        """Decorator: the numpy kernel, see `Kernel`."""
        self._kernel = function
        return function

    def prepare(self, function: F) -> F:
        """Decorator: ``prepare(call) -> kernel``, for a kernel that resolves attributes or shapes before it runs.

        The types in `call` are static whenever the graph's shapes do not depend on data; the kernel that is returned
        takes arrays and `out=` only.
        """
        self._prepare = function
        return function

    def infer(self, function: F) -> F:
        """Decorator: ``infer(call) -> [type, ...]``, for an operation that `onnx.defs` does not know (well)."""
        self._infer = function
        return function

    def adjoint(self, function: F) -> F:
        """Decorator: the adjoint rule, see `AdjointRule`."""
        self.gradient = function
        return function

    def lower(self, function: F) -> F:
        """Decorator: ``lower(b, node) -> Value | tuple``, the same meaning as a subgraph of standard operations.

        The operands are ``node.inputs``; nodes are emitted through `b`.
        """
        self._lowering = function
        return function

    def cost(self, function: CostRule) -> CostRule:
        """Decorator: what a node takes, see `CostRule`; without one, an operation for each element of the first result."""
        self._cost = function
        return function

    # --- asking it ----------------------------------------------------------------------------------------------------

    @property
    def qualified_name(self) -> str:
        """The name "Tanh" in the standard domain, otherwise "domain.Name"."""
        return qualified_name(self.domain, self.name)

    @cached_property
    def schema(self) -> defs.OpSchema | None:
        """The newest schema that onnx has for it, or None."""
        if self.domain == IRGRAD_DOMAIN:
            return None
        try:
            if self.domain == "":
                return defs.get_schema(self.name, OPSET, "")
            return defs.get_schema(self.name, self.domain)
        except defs.SchemaError:
            return None

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Attribute → default value, from the schema or from the definition."""
        if self.schema is None:
            return self._defaults
        found = {}
        for name, attribute in self.schema.attributes.items():
            if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                found[name] = attribute_from_proto(attribute.default_value)
        return {**found, **self._defaults}

    @property
    def has_kernel(self) -> bool:
        """Whether a numpy kernel of our own runs it."""
        return self._kernel is not None or self._prepare is not None

    @property
    def has_lowering(self) -> bool:
        return self._lowering is not None

    @property
    def infer_rule(self) -> Callable[[Call], Sequence[Type]] | None:
        return self._infer

    def bind(self, call: Call) -> Kernel | None:
        """The kernel for one node, its attributes resolved; None where the operation has no kernel."""
        if self._prepare is not None:
            return self._prepare(call)
        if self._kernel is None:
            return None
        return partial(self._kernel, **call.attrs) if call.attrs else self._kernel

    def cost_of(self, call: Call) -> Cost | None:
        """What a node takes, its subgraphs included; None where that is not known before it runs (shapes depend on data)."""
        if self.view or not call.outputs:
            return Cost(0, 0, 0)
        if any(bytes_of(type) is None for type in (*call.inputs, *call.outputs) if type is not None):
            return None
        if self._cost is not None:
            return self._cost(call)
        inside = any(isinstance(value, Graph) for value in call.attrs.values())
        return None if inside else Cost.of(call, elements_of(call.outputs[0]))

    def lowered(self, b: Builder, node: Node) -> tuple[Value, ...]:
        """Emit the subgraph of standard operations that means the same as `node`; its results, one per output.

        Raises:
            PluginError: the operation has none.
        """
        if self._lowering is None:
            raise PluginError(f"{self.qualified_name} has no lowering to standard operations")
        results = self._lowering(b, node)
        return (results,) if isinstance(results, Value) else tuple(results)

    def __repr__(self) -> str:
        return f"<Op {self.qualified_name}>"


class OpTable(Mapping[str, Op]):
    """The operations of one family: qualified name → operation. A plugin's `operations` are made of such tables."""

    def __init__(self) -> None:
        self._ops: dict[str, Op] = {}

    def define(self, name: str, **options: Any) -> Op:
        """Add an operation; the options are those of `Op`."""
        op = Op(name, **options)
        if op.qualified_name in self._ops:
            raise PluginError(f"the operation {op.qualified_name} is defined twice in one table")
        self._ops[op.qualified_name] = op
        return op

    def __getitem__(self, name: str) -> Op:
        return self._ops[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ops)

    def __len__(self) -> int:
        return len(self._ops)


def qualified_name(domain: str, name: str) -> str:
    """The name "Tanh" in the standard domain, otherwise "domain.Name"."""
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


_unregistered: dict[str, Op] = {}


def find_op(name: str, domain: str = "") -> Op:
    """The operation of that name: a plugin's, else one that only has onnx's schema, else an opaque one.

    An opaque operation prints, copies and round-trips; it runs and has types once a plugin tells how.
    """
    key = qualified_name(domain, name)
    op = registry.find("operations", key)
    if op is not None:
        assert isinstance(op, Op)
        return op
    return _unregistered.setdefault(key, Op(name, domain="" if domain == "ai.onnx" else domain))
