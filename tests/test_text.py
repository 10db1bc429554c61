"""The text form: what it looks like, that it reads back as the same graph, and that mistakes in it are located."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import SparseTensorProto, TensorProto, TypeProto, helper

from irgrad.compare import array_key, attribute_key, graphs_equal
from irgrad.errors import TextError
from irgrad.graph import Expansion, Graph, Role, Value
from irgrad.literals import float_from_text, float_text, quote, same_bits, unquote
from irgrad.op import find_op
from irgrad.text import line_of, parse_text, to_text
from irgrad.types import OptionalType, SequenceType, TensorType, dtype_from_name

F32 = TensorType(np.dtype(np.float32), (2,))


def round_trip(graph: Graph) -> Graph:
    text = to_text(graph, "full")
    again = parse_text(text)
    assert graphs_equal(graph, again) is None
    assert to_text(again, "full") == text
    return again


# --- what it looks like -----------------------------------------------------------------------------------------------

EXAMPLE = """\
graph mlp opset 28 {
  meta producer = "pytorch 2.1"
  input %x: f32[N,3]
  input %"a b:0": seq(f32[?])
  param %w: f32[3,4]{0.5}
  param %v: f32[8,8]{...}
  const %shape: i64[2]{-1,2}
  const %top: f32[]{6.0}
  const %flag: bool[]{true}
  %h: f32[N,4] = MatMul(%x, %w) @"fc 1"
  %size: i64[2]{N,4} = Shape(%h)
  %c: f32[N,4] = Clip(%h, _, %top)
  %r: f32[2*N,2] = Reshape(%c, %shape)
  %g: f32[N,4] = LeakyRelu(%h, alpha=0.1f) backward of "fc 1"
  %p, %q = Split(%g, num_outputs=2, axis=1) @split recompute
  %i: f32[] = If(%flag, %p, captured=1, else_branch=graph no opset 28 {
    input %p: f32[N,2]
    %s: f32[] = ReduceSum(%p, keepdims=0)
    output s
  }, then_branch=graph yes opset 28 {
    input %p: f32[N,2]
    const %zero: f32[]{0.0}
    output result = %zero
  })
  output y = %r
  output g
  gradient h = g
}
"""


def test_example() -> None:
    v = np.arange(64, dtype=np.float32).reshape(8, 8)
    graph = parse_text(EXAMPLE, {"v": v})
    assert graph.parameters["v"] is v
    assert graph.value("w").constant is not None
    assert graph.node("split").role is Role.RECOMPUTE
    assert graph.node("g").origin == "fc 1"
    assert graph.value("size").contents == ("N", 4)
    assert graph.value("p").type == TensorType(np.dtype(np.float32), ("N", 2))
    assert list(graph.outputs) == ["y", "g"]
    assert graph.gradients == {"h": "g"}
    printed = EXAMPLE.replace("%p, %q =", "%p: f32[N,2], %q: f32[N,2] =")
    assert to_text(graph) == str(graph) == printed
    assert parse_text(to_text(graph, "full")).parameters["v"].tobytes() == v.tobytes()
    round_trip(graph)


def test_line_of() -> None:
    graph = parse_text(EXAMPLE, {"v": np.ones((8, 8), np.float32)})
    assert line_of(graph.value("x")) == "input %x: f32[N,3]"
    assert line_of(graph.value("w")) == "param %w: f32[3,4]{0.5}"
    assert line_of(graph.value("c")) == line_of(graph.node("c")) == "%c: f32[N,4] = Clip(%h, _, %top)"
    assert "graph no {...}" in line_of(graph.node("i"))


def test_layout_is_free_and_comments_are_skipped() -> None:
    graph = parse_text(
        """# before
        graph g{# after a brace
        input %x:f32 [ 2 , N ]   # a % and a "
        %y = Tanh ( %x )output y}
        # the end"""
    )
    assert to_text(graph) == "graph g opset 28 {\n  input %x: f32[2,N]\n  %y: f32[2,N] = Tanh(%x)\n  output y\n}\n"


def test_inferred_types_are_those_of_a_builder() -> None:
    graph = parse_text(
        """graph g {
          input %x: f32[N,6]
          const %first: i64[1]{0}
          const %rest: i64[2]{2,3}
          %s = Shape(%x)
          %n = Gather(%s, %first)
          %t = Concat(%n, %rest, axis=0)
          %y = Reshape(%x, %t)
          output y
        }"""
    )
    assert graph.value("t").contents == ("N", 2, 3)
    assert graph.value("y").shape == ("N", 2, 3)


# --- constants --------------------------------------------------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.5, -1e-30, float("inf"), float("-inf"), float("nan")]
ARRAYS = [
    np.array(SPECIAL, np.float64),
    np.array(SPECIAL, np.float32),
    np.array(SPECIAL, np.float16),
    np.array(SPECIAL, ml_dtypes.bfloat16),
    np.array([0.5, -2, 448], ml_dtypes.float8_e4m3fn),
    np.array([0.5, np.nan, -np.inf], ml_dtypes.float8_e5m2),
    np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32),  # a nan with a payload, a negative one
    np.array([1 + 2j, complex(np.nan, -0.0), -1j], np.complex64),
    np.array([1e300 + 2j], np.complex128),
    np.array([0.1, 1 / 3, 5e-324, 1.7976931348623157e308]),
    np.array([2**63 - 1, -(2**63)]),
    np.array([2**64 - 1], np.uint64),
    np.array([[1, -8], [7, 0]], ml_dtypes.int4),
    np.array([15, 0], ml_dtypes.uint4),
    np.array([True, False]),
    np.array(["", "a\nb", 'say "hi" \\', "ünïcode ☃ 🎉", "\x00\x7f\u2028", "\udcff"], object),
    np.array(3.5, np.float32),
    np.array("scalar", object),
    np.zeros((0, 3), np.float32),
    np.zeros((2, 0), object),
    np.full((100, 3), 0.25, np.float32),
    np.full(100, -0.0, np.float32),
    np.array([0.0, -0.0] * 40, np.float32),
    np.arange(100, dtype=np.int16),
    np.arange(100).astype(ml_dtypes.bfloat16),
    np.array([f"s{k}" for k in range(50)], object),
    np.arange(12, dtype=np.float32).reshape(3, 4).T,
    np.arange(200, dtype=np.float32)[::2],
]


@pytest.mark.parametrize("array", ARRAYS, ids=[f"{k}-{a.dtype.name}" for k, a in enumerate(ARRAYS)])
def test_arrays_come_back_bit_by_bit(array: np.ndarray) -> None:
    graph = Graph()
    graph.add_constant(array, "c")
    graph.add_node(find_op("Opaque"), [], [F32], {"value": array})
    again = round_trip(graph)
    (back,) = again.constants.values()
    assert array_key(back) == array_key(array)
    assert back.shape == array.shape


def test_large_constants_are_left_out() -> None:
    graph = Graph()
    large, small = np.arange(33.0), np.arange(32.0)
    graph.add_constant(large, "large")
    graph.add_constant(small, "small")
    graph.add_constant(np.full(1000, 7), "filled")
    short = to_text(graph)
    assert "const %large: f64[33]{...}" in short
    assert "const %filled: i64[1000]{7}" in short
    assert "31.0}" in short
    assert "{" not in to_text(graph, "none").split("{", 1)[1]
    with pytest.raises(TextError, match=r"line 2, column 9: .* constants\['large'\]"):
        parse_text(short)
    again = parse_text(short, {"large": large, "ignored": small})
    assert graphs_equal(graph, again) is None
    everything = {value.name: array for value, array in graph.constants.items()}
    assert graphs_equal(graph, parse_text(to_text(graph, "none"), everything)) is None
    with pytest.raises(TextError, match=r"constants\['large'\] is f64\[32\], not f64\[33\]"):
        parse_text(short, {"large": small})


def test_constants_of_subgraphs_have_a_path() -> None:
    inner, outer = Graph("inner"), Graph("outer")
    inner.set_outputs([inner.add_constant(np.arange(50), "c")])
    outer.set_outputs(outer.add_node(find_op("Loop"), [], [F32], {"body": inner}, output_names=["y"]).outputs)
    again = parse_text(to_text(outer), {"y.body/c": np.arange(50)})
    assert graphs_equal(outer, again) is None


def test_other_objects_are_never_written() -> None:
    graph = Graph()
    graph.add_constant(np.array([b"bytes", None], object), "odd")
    assert "const %odd: str[2]{...}" in to_text(graph, "full")


def test_left_out_attributes_cannot_be_read() -> None:
    graph = Graph()
    graph.add_node(find_op("Opaque"), [], [F32], {"value": np.arange(50)})
    with pytest.raises(TextError, match="constants='full'"):
        parse_text(to_text(graph))
    round_trip(graph)


# --- attributes and names ---------------------------------------------------------------------------------------------

ATTRIBUTES: list[Any] = [
    0,
    -(2**63),
    True,
    0.5,
    0.1,
    float(np.float32(0.1)),
    1e22,
    -0.0,
    float("nan"),
    float("-inf"),
    1.0000000001,
    "",
    "text",
    'a "quoted" \\ text\n',
    b"\x00\xff",
    (),
    (1, 2),
    (0.1, float("inf")),
    ("a", "b"),
    (np.ones(2), np.zeros(0)),
    F32,
    TensorType(np.dtype(object), None),
    TensorType(np.dtype(ml_dtypes.bfloat16), ("N", None, "12*N", "odd name", "3", "?", 4)),
    SequenceType(OptionalType(F32)),
    helper.make_tensor("t", TensorProto.FLOAT, [2], [1, 2]),
    (TypeProto(), TypeProto()),
    SparseTensorProto(),
    None,
]


@pytest.mark.parametrize("value", ATTRIBUTES, ids=str)
def test_attributes_come_back(value: Any) -> None:
    graph = Graph()
    graph.add_node(find_op("Op", "some.domain"), [], [F32], {"value": value, "_": 1, "odd key": 2})
    (node,) = round_trip(graph).nodes()
    assert attribute_key(node.attrs["value"]) == attribute_key(value)
    assert type(node.attrs["value"]) is (int if value is True else type(value))


def test_float32_attributes_are_short() -> None:
    assert float_text(float(np.float32(0.1))) == "0.1f"
    assert float_text(0.1) == "0.1"
    assert float_text(float(np.float32(1e-5))) == "1e-05f"
    assert float_text(0.25) == "0.25"


NAMES = [
    "x",
    "x:0",
    "a b",
    "/model/layers.0/MatMul_output_0",
    "%",
    "",
    "graph",
    "_",
    "of",
    "é",
    '"',
    "\\",
    "\n",
    "#",
    "a,b",
    "1",
]


def test_names_of_every_kind_come_back() -> None:
    graph = Graph("odd {name}")
    for name in NAMES:
        x = graph.add_input(name, F32)
        graph.metadata[f"key {name}"] = name
        graph.add_node(find_op("Tanh"), [x], [F32], name=name, output_names=[name + "!"], role=Role.BACKWARD, origin=name)
        graph.add_node(find_op("Tanh"), [x], [F32], output_names=[name + "?"], origin=name)
    graph.set_outputs({name: graph.value(name + "!") for name in NAMES})
    graph.gradients = {name: name for name in NAMES}
    round_trip(graph)


def test_a_node_without_outputs() -> None:
    graph = Graph()
    graph.add_node(find_op("Opaque"), [graph.add_input("x", F32)], [], name="sink")
    assert "() = Opaque(%x) @sink" in to_text(graph)
    round_trip(graph)


# --- random graphs ----------------------------------------------------------------------------------------------------

dims = st.one_of(
    st.integers(0, 9), st.none(), st.sampled_from(["N", "batch size", "2*N", "?", "*", "7"]), st.text(min_size=1)
)
dtypes = st.sampled_from(["f32", "f64", "bf16", "i64", "i8", "bool", "u8", "str"]).map(dtype_from_name)
tensors = st.builds(TensorType, dtypes, st.one_of(st.none(), st.lists(dims, max_size=4).map(tuple)))
all_types = st.one_of(tensors, tensors.map(SequenceType), tensors.map(SequenceType).map(OptionalType))
number = st.one_of(st.integers(), st.floats(), st.floats(width=32))
attributes = st.one_of(number, st.text(), st.lists(number, max_size=3).map(tuple), st.binary(max_size=4), all_types)
names = st.text(max_size=6)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype, shape = draw(dtypes), draw(st.lists(st.integers(0, 5), max_size=3))
    size = int(np.prod(shape, dtype=int))
    if dtype.kind == "O":
        flat = np.empty(size, object)
        flat[:] = draw(st.lists(st.text(max_size=3), min_size=size, max_size=size))
    elif dtype == np.bool_:
        flat = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.bool_)
    else:
        raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
        flat = np.frombuffer(raw, dtype)
    return flat.reshape(shape)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 1) -> Graph:
    graph = Graph(draw(names), draw(st.integers(1, 30)))
    values: list[Value | None] = [None]
    for name in draw(st.lists(names, max_size=3)):
        values.append(graph.add_input(graph.fresh_name(name), draw(all_types)))
    for array in draw(st.lists(arrays(), max_size=3)):
        values.append(graph.add_constant(array, graph.fresh_name(draw(names)) or None, parameter=draw(st.booleans())))
    for _ in range(draw(st.integers(0, 6))):
        attrs = draw(st.dictionaries(names, attributes, max_size=3))
        if depth and draw(st.booleans()):
            attrs["body"] = draw(graphs(depth - 1))
        types = draw(st.lists(all_types, max_size=3))
        node = graph.add_node(
            find_op(draw(st.sampled_from(["Add", "Split", "Any"])), draw(st.sampled_from(["", "irgrad", "a.b"]))),
            draw(st.lists(st.sampled_from(values), max_size=4)),
            types,
            attrs,
            name=graph.fresh_name(draw(names), node=True),
            output_names=[graph.fresh_name(draw(names) + str(k)) for k, _ in enumerate(types)],
            role=draw(st.sampled_from(Role)),
            origin=draw(st.none() | names),
            rule=draw(st.none() | names),
            expansion=draw(st.none() | st.builds(Expansion, names, names)),
        )
        for value in node.outputs:
            value.contents = draw(st.none() | st.lists(st.integers(-3, 3) | st.none() | st.just("N"), max_size=3).map(tuple))
        values += node.outputs
    present = [value for value in values if value is not None]
    if present:
        graph.set_outputs(draw(st.dictionaries(names, st.sampled_from(present), max_size=3)))
        graph.gradients = {name: name for name in graph.outputs}
    graph.metadata = draw(st.dictionaries(names, st.text(), max_size=2))
    return graph


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_random_graphs_come_back(graph: Graph) -> None:
    again = round_trip(graph)
    assert graphs_equal(graph.copy(), again) is None


@given(st.text())
def test_strings_come_back(text: str) -> None:
    literal = quote(text)
    assert unquote(literal) == text
    assert len(literal.splitlines()) == 1


@given(st.floats())
def test_floats_come_back(number: float) -> None:
    back = float_from_text(float_text(number))
    assert same_bits(np.array(back), np.array(number)) or (back != back and number != number)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_texts_are_refused_or_read(data: st.DataObject) -> None:
    """Whatever happens to a text, the parser answers with a graph or a TextError."""
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 3))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.text(alphabet='%@(){}[],=:"#_ \nab1f*?.-', max_size=5)) + text[at + length :]
    try:
        parse_text(text, {"v": np.ones((8, 8), np.float32)})
    except TextError as error:
        assert str(error).startswith("line ")


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("", "line 1, column 1: 'graph' was expected, but the text ends here"),
    ("grpah g {}", "line 1, column 1: 'graph' was expected, not grpah"),
    ("graph g {", "line 1, column 10: a statement or '}' was expected, but the text ends here"),
    ("graph g {} {}", "line 1, column 12: the end of the text was expected, not {"),
    ("graph g opset x {}", "line 1, column 15: an opset was expected, not x"),
    (
        "graph g { inputs %x: f32[2] }",
        "line 1, column 11: input, param, const, output, gradient, meta or a node was expected",
    ),
    ("graph g {\n  input x: f32[2] }", "line 2, column 9: a value (%name) was expected, not x"),
    ("graph g {\n input %x f32[2] }", "line 2, column 11: ':' was expected, not f32"),
    ("graph g {\n input %x: f23[2] }", "line 2, column 12: 'f23' is not a dtype"),
    ("graph g {\n input %x: f32[-2] }", "line 2, column 12: the shape [-2] has a negative dimension"),
    ("graph g {\n input %x: f32[2\n}", "line 3, column 1: ',' was expected, not }"),
    ("graph g {\n input %x: f32[2] input %x: f32[2] }", "line 2, column 19: there is already a value 'x'"),
    ("graph g {\n input %x: f32[2] %y = Tanh(%z) }", "line 2, column 29: there is no value 'z' in the graph"),
    ("graph g {\n input %x: f32[2] %y = Tanh(%x, %x) }", "line 2, column 19: Tanh(f32[2], f32[2]) does not type-check"),
    ("graph g {\n input %x: f32[2] %y = Tanh(%x }", "line 2, column 32: ',' was expected, not }"),
    (
        "graph g {\n input %x: f32[2] %x = Tanh(%x) }",
        "line 2, column 19: the output names ['x'] of the node 'x' are not new",
    ),
    ("graph g {\n %x: i64[] = A(a=1, a=2) }", "line 2, column 21: the attribute 'a' is given twice"),
    ("graph g {\n %x: i64[] = A(a=1.2.3) }", "line 2, column 18: '1.2.3' is no number"),
    ("graph g {\n %x: i64[] = A(a=) }", "line 2, column 18: the value of an attribute was expected, not )"),
    ('graph g {\n %x: i64[] = A(a="b) }', "line 2, column 18: the value of an attribute was expected, not a string without"),
    ('graph g {\n %x: i64[] = A(a="\\x") }', "line 2, column 18: an escape is one of"),
    ('graph g {\n %x: i64[] = A(a=bytes "?") }', "line 2, column 24: this is not base64"),
    ('graph g {\n %x: i64[] = A(a=proto Foo "") }', "line 2, column 24: 'Foo' is none of GraphProto"),
    ('graph g {\n %x: i64[] = A(a=proto TensorProto "/w==") }', "line 2, column 24: these bytes are no TensorProto"),
    ("graph g {\n %x: i64[] = A(a=f32[N]{1}) }", "line 2, column 18: an array needs a tensor type with a static shape"),
    ("graph g {\n %x: i64[] = A(a=" + "[" * 60 + ") }", "inside each other are read to a depth of 50"),
    ("graph g {\n const %c: f32[N]{1} }", "line 2, column 8: a constant needs a tensor type with a static shape"),
    ("graph g {\n const %c: f32[2]{1,2,3} }", "line 2, column 18: an array of shape [2] has 2 elements, not 3"),
    ("graph g {\n const %c: f32[0]{1} }", "line 2, column 18: an array of shape [0] has 0 elements, not 1"),
    ("graph g {\n const %c: i8[2]{1,300} }", "line 2, column 17: an element is no i8"),
    ("graph g {\n const %c: i8[2]{1,0.5} }", "line 2, column 17: an element is no i8: '0.5' is no integer"),
    ("graph g {\n const %c: bool[1]{1} }", "line 2, column 19: an element is no bool: '1'"),
    ("graph g {\n const %c: str[1]{a} }", "line 2, column 19: an element of the array was expected, not a"),
    ('graph g {\n const %c: f32[2]{base64 "AA=="} }', "line 2, column 18: a f32 array of shape [2] is not made of 1 bytes"),
    ('graph g {\n const %c: f32[2]{base64 "A"} }', "line 2, column 18: this is not base64"),
    ("graph g {\n output y }", "line 2, column 2: there is no value 'y' in the graph"),
    ("graph g {\n input %x: f32[2] output x output x }", "line 2, column 28: the output 'x' is listed twice"),
    ("graph g {\n gradient w = y }", "line 2, column 2: the gradient 'y' is none of the outputs above"),
    ("graph g {\n meta k = v }", "line 2, column 11: a string was expected, not v"),
    ("graph g { $ }", "line 1, column 11: input, param"),
    ("graph g { , }", "line 1, column 11: a statement or '}' was expected, not ,"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_located(text: str, message: str) -> None:
    with pytest.raises(TextError) as caught:
        parse_text(text)
    assert message in str(caught.value)
