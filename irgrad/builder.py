"""Emitting nodes: operations by name, types inferred, numbers turned into constants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from onnx import helper

from irgrad.contents import follows_contents, infer_contents
from irgrad.errors import TypeInferenceError
from irgrad.graph import Expansion, Graph, Node, Operand, Role, Value, active_emitter
from irgrad.infer import infer_types
from irgrad.op import Call, Op, find_op
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["AdjointBuilder", "Builder", "call_of", "typed_call"]

PullBack: TypeAlias = "Callable[..., list[Value | None]]"
"""``accumulate(graph, seeds, wrt, stop)``: the adjoint pass's engine, which stands above the operations."""

_POOLED = 64  # constants of at most this many elements are shared between the nodes that use equal ones


def call_of(
    op: Op, attrs: Mapping[str, Any], inputs: Sequence[Value | None], n_outputs: int, outputs: Sequence[Type] = ()
) -> Call:
    """The `Call` that an operation on these operands makes."""
    present = [(k, v) for k, v in enumerate(inputs) if v is not None]
    return Call(
        op=op,
        attrs={**op.defaults, **attrs},
        inputs=tuple(None if v is None else v.type for v in inputs),
        outputs=tuple(outputs),
        constants={k: v.constant for k, v in present if v.constant is not None},
        contents={k: v.contents for k, v in present if v.contents is not None},
        n_outputs=n_outputs,
    )


def typed_call(node: Node) -> Call:
    """The `Call` that a node of a graph makes, its output types included: what a kernel is bound to."""
    return call_of(node.op, node.attrs, node.inputs, len(node.outputs), [value.type for value in node.outputs])


class Builder:
    """Adds nodes to a graph, all with the same role, origin and place.

    Inside a ``with`` block of the builder the operators of values (``a * b + 1``) go through it too.

    Args:
        graph: where nodes are added.
        role: their role.
        origin: the name of the forward node that they are made for.
        near: place them at this node's position in the program order, see `Graph.add_node`.

    Attributes:
        rule, expansion: what is noted of the nodes, see `Node`.
    """

    def __init__(
        self, graph: Graph, *, role: Role = Role.FORWARD, origin: str | None = None, near: Node | None = None
    ) -> None:
        self.graph = graph
        self.role = role
        self.origin = origin
        self.near = near
        self.rule: str | None = None
        self.expansion: Expansion | None = None
        self._pool: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    # --- nodes --------------------------------------------------------------------------------------------------------

    def op(self, name: str, *inputs: Operand, **attrs: Any) -> Value:
        """Emit an operation with one output (or of whose outputs only the first matters) and return that.

        Args:
            name: qualified name: "Tanh", "irgrad.SumTo".
            inputs: values, None for an absent operand, or arrays and numbers; a bare number takes the dtype of the first
                operand that is a value (int64 where there is none and it is an int).
            attrs: attributes; None is as good as not given.
        """
        return self.multi(name, *inputs, outputs=1, **attrs)[0]

    def multi(self, name: str, *inputs: Operand, outputs: int, **attrs: Any) -> tuple[Value, ...]:
        """Emit an operation and return its `outputs` results."""
        domain, _, short = name.rpartition(".")
        return self.node(find_op(short, domain), inputs, attrs, outputs=outputs).outputs

    def node(
        self,
        op: Op,
        inputs: Sequence[Operand],
        attrs: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        name: str | None = None,
        output_names: Sequence[str | None] | None = None,
    ) -> Node:
        """Emit an operation and return its node.

        Raises:
            TypeInferenceError: the operands do not fit; nothing was added then.
        """
        operands = self._operands(inputs)
        given = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in (attrs or {}).items()
            if value is not None
        }
        call = call_of(op, given, operands, outputs)
        try:
            types = infer_types(call)
        except TypeInferenceError as error:
            raise TypeInferenceError(f"at the node {name!r}: {error}" if name else str(error)) from None
        node = self.graph.add_node(
            op,
            operands,
            types,
            given,
            name=name,
            output_names=output_names,
            role=self.role,
            origin=self.origin,
            near=self.near,
            rule=self.rule,
            expansion=self.expansion,
        )
        if follows_contents(op):
            contents = infer_contents(call_of(op, given, operands, outputs, types))
            for value, known in zip(node.outputs, contents, strict=True):
                value.contents = known
        return node

    def take_after(self, node: Node, *, expanded: bool = False) -> None:
        """From here on, emit what takes the place of a node: where it is, with its role and what is noted of it.

        Args:
            node: a node of the graph.
            expanded: it is what the node means, so that this is noted (unless it is a part of an expansion already).
        """
        self.role, self.origin, self.near = node.role, node.origin, node
        self.rule, self.expansion = node.rule, node.expansion
        if expanded and node.expansion is None:
            self.expansion = Expansion(node.op.qualified_name, node.name)

    @contextmanager
    def at(
        self,
        *,
        role: Role | None = None,
        origin: str | None = None,
        near: Node | None = None,
        rule: str | None = None,
        expansion: Expansion | None = None,
    ) -> Iterator[Builder]:
        """Within the block, emit with this role, origin, place, rule or expansion; operators of values work in it."""
        saved = self.role, self.origin, self.near, self.rule, self.expansion
        self.role, self.origin, self.near = role or self.role, origin or self.origin, near or self.near
        self.rule, self.expansion = rule or self.rule, expansion or self.expansion
        try:
            with self:
                yield self
        finally:
            self.role, self.origin, self.near, self.rule, self.expansion = saved

    def __enter__(self) -> Builder:
        self._tokens = [*getattr(self, "_tokens", []), active_emitter.set(self)]
        return self

    def __exit__(self, *exc: object) -> None:
        active_emitter.reset(self._tokens.pop())

    # --- constants ----------------------------------------------------------------------------------------------------

    def constant(self, array: Any, dtype: np.dtype | type | None = None, name: str | None = None) -> Value:
        """A constant; small ones of equal content are the same value."""
        array = np.asarray(array, dtype)
        if array.size > _POOLED or array.dtype == object or name is not None:
            return self.graph.add_constant(array, name)
        key = (array.dtype.name, array.shape, array.tobytes())
        value = self._pool.get(key)
        if value is None or value not in self.graph.constants:
            value = self._pool[key] = self.graph.add_constant(array)
        return value

    def ints(self, values: Sequence[int]) -> Value:
        """A one-dimensional int64 constant: axes, a shape, starts."""
        return self.constant(np.array(list(values), np.int64))

    def scalar(self, number: float, like: Value) -> Value:
        """A 0-d constant of the dtype of `like`."""
        return self.constant(np.array(number, like.dtype))

    # --- shapes, static where they can be, computed where they cannot --------------------------------------------------

    def shape_of(self, value: Value) -> Value:
        """The shape of a tensor as a one-dimensional int64 value: a constant where it is static, else a Shape node."""
        static = value.tensor_type.static_shape
        return self.ints(static) if static is not None else self.op("Shape", value)

    def reshape_like(self, value: Value, like: Value) -> Value:
        """`value` with the shape of `like`, which has as many elements."""
        static = like.tensor_type.static_shape
        # A size of 0 is meant literally here; Reshape would read it as "whatever the operand has there".
        literal = static is None or 0 in static
        return self.op("Reshape", value, self.shape_of(like), allowzero=1 if literal else None)

    def zeros_like(self, value: Value) -> Value:
        """Zeros of a tensor's shape and dtype; of a sequence's length and shapes; of what an optional holds, if anything."""
        if isinstance(value.type, SequenceType):
            return self.op("irgrad.SequenceZeros", value)
        if isinstance(value.type, OptionalType):
            return self.op("irgrad.OptionalZeros", value)
        return self.op("ConstantOfShape", self.shape_of(value), value=np.zeros(1, value.dtype))

    def total(self, values: Sequence[Value]) -> Value:
        """The sum of values of one structure: tensors, sequences of one length, optionals that all hold something or not."""
        if len(values) == 1:
            return values[0]
        if isinstance(values[0].type, SequenceType):
            return self.op("irgrad.SequenceSum", *values)
        if isinstance(values[0].type, OptionalType):
            return self.op("irgrad.OptionalSum", *values)
        return self.op("Add" if len(values) == 2 else "Sum", *values)

    def reduce_sum(self, value: Value, axes: Sequence[int] | None, *, keepdims: bool = False) -> Value:
        """The sum over `axes` (all of them for None; none of them for an empty list)."""
        if axes is not None and not axes:
            return value
        return self.op("ReduceSum", value, None if axes is None else self.ints(axes), keepdims=int(keepdims))

    def cast(self, value: Value, dtype: np.dtype) -> Value:
        """`value` in another dtype; itself where it has that already."""
        if value.dtype == dtype:
            return value
        return self.op("Cast", value, to=int(helper.np_dtype_to_tensor_dtype(dtype)))

    # --- internals ----------------------------------------------------------------------------------------------------

    def _operands(self, inputs: Sequence[Operand]) -> list[Value | None]:
        like = next((v for v in inputs if isinstance(v, Value) and isinstance(v.type, TensorType)), None)
        operands: list[Value | None] = []
        for item in inputs:
            if item is None or isinstance(item, Value):
                operands.append(item)
            elif isinstance(item, np.ndarray):
                operands.append(self.constant(item))
            else:
                dtype = like.dtype if like is not None else np.dtype(np.int64 if isinstance(item, int) else np.float32)
                operands.append(self.constant(np.array(item, dtype)))
        return operands


class AdjointBuilder(Builder):
    """The builder that adjoint rules get: it also knows which operands want a cotangent."""

    def __init__(self, graph: Graph, active: set[Value], accumulate: PullBack) -> None:
        super().__init__(graph, role=Role.BACKWARD)
        self._active = active
        self._accumulate = accumulate

    def pull_back(
        self, graph: Graph, seeds: Sequence[tuple[Value, Value]], wrt: Sequence[Value], stop: Collection[Value] = ()
    ) -> list[Value | None]:
        """Add backward nodes to another graph: what a rule for an operation with subgraphs asks for.

        Args:
            graph: a graph of the rule's own, which is changed in place.
            seeds: pairs of a differentiated value and its cotangent; a value may come several times.
            wrt: floating-point values of it.
            stop: values that count as constants.

        Returns:
            The cotangent of each value of `wrt`, None for zero.

        Raises:
            UnsupportedOpError: nodes inside cannot be differentiated; all of them are named.
        """
        return self._accumulate(graph, seeds, wrt, stop)

    def needs(self, value: Value | None) -> bool:
        """Whether the cotangent of an operand will be used; a rule may return None for one that is not needed."""
        return value is not None and value in self._active

    def zeros_if_none(self, cotangent: Value | None, like: Value) -> Value:
        """A cotangent, with the symbolic zero made an array of zeros of the shape of `like`."""
        return self.zeros_like(like) if cotangent is None else cotangent

    def further_output(self, node: Node, index: int) -> Value:
        """The output `index` of a forward node, which is added to it where nobody had asked for it yet."""
        return self.augment(node, index + 1)[index]

    def augment(
        self,
        node: Node,
        outputs: int,
        op: Op | None = None,
        attrs: Mapping[str, Any] | None = None,
        *,
        operands: Sequence[Value | None] | None = None,
        at: int | None = None,
    ) -> tuple[Value, ...]:
        """Let a forward node also return what its adjoint needs (the augmented primal of the literature).

        The outputs that it has keep their meaning and their values; further ones are added.

        Args:
            node: a node of the graph.
            outputs: how many outputs it has to have; one that has as many, and nothing else given, stays as it is.
            op: the operation that computes them; the node's own by default.
            attrs: its attributes; the node's own by default.
            operands: its operands; the node's own by default.
            at: where the new outputs come among the others; behind them by default.

        Returns:
            All outputs of the node.

        Reference: Moses and Churavy, Instead of Rewriting Foreign Code for Machine Learning, Automatically Synthesize Fast
        Gradients, NeurIPS 2020, section 3 (the augmented forward pass).
        """
        if len(node.outputs) >= outputs and op is None and attrs is None and operands is None:
            return node.outputs
        op, attrs = op or node.op, dict(node.attrs if attrs is None else attrs)
        operands = node.inputs if operands is None else operands
        types = infer_types(call_of(op, attrs, operands, outputs))
        self.graph.set_op(node, op, attrs)
        self.graph.set_operands(node, operands)
        first = len(node.outputs) if at is None else at
        for position in range(first, first + outputs - len(node.outputs)):
            self.graph.add_output(node, types[position], at=position)
        return node.outputs
