"""Random damage: whatever happens to a model, it is read or refused, by an error of irgrad."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, ModelProto, TensorProto, helper

from irgrad.errors import IrgradError, ModelError
from irgrad.frontend import load
from tests.frontends.build import array, call, function, graph, model, node, reference, scalar, value

TEXTS = ["", "x", "y", "h", "w", "\n'\"", "N", "ai.onnx", "Relu", "Conv", "If", "Constant", "axis", "bij,bjk->bik", "é"]
NUMBERS = [0, 1, -1, 2, 3, 29, 10**6, 10**12, 2**31 - 1, 2**31, -(2**31), 2**62, -(2**63)]


def layers() -> ModelProto:
    """Convolution, pooling and a head: attributes of many kinds, initializers in raw and typed form."""
    return model(
        [
            node("Conv", ["x", "k"], ["c"], strides=[1, 1], pads=[1, 1, 1, 1], group=1, auto_pad="NOTSET"),
            node("LeakyRelu", ["c"], ["r"], alpha=0.1),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
            node("Constant", [], ["shape"], value=array("", [0, -1], np.int64)),
            node("Reshape", ["p", "shape"], ["flat"]),
            node("Gemm", ["flat", "w", "b"], ["g"], transB=1),
            node("Cast", ["g"], ["d"], to=TensorProto.DOUBLE),
            node("Softmax", ["d"], ["y"], axis=-1),
        ],
        [value("x", ("N", 1, 4, 4))],
        [value("y", ("N", 3), TensorProto.DOUBLE)],
        [
            array("k", np.ones((2, 1, 3, 3))),
            array("w", np.ones((3, 18))),
            helper.make_tensor("b", TensorProto.FLOAT, [3], [0.0, 1.0, 2.0]),
        ],
        value_info=[value("p", ("N", 2, 3, 3))],
    )


def control() -> ModelProto:
    """Functions, a branch and a loop, each of which captures something."""
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(reference("alpha", "slope", AttributeProto.FLOAT))
    f = function("f", ["a"], ["b"], [leaky], attribute_protos=[helper.make_attribute("slope", 0.5)])
    body = graph(
        [node("Add", ["s", "h"], ["t"]), node("Identity", ["c"], ["d"]), node("Mul", ["t", "w"], ["o"])],
        [scalar("i", TensorProto.INT64), scalar("c", TensorProto.BOOL), value("s")],
        [scalar("d", TensorProto.BOOL), value("t"), value("o")],
        [array("w", [1.0, 2.0, 3.0])],
    )
    branches = {name: graph([node(op, ["h"], ["r"])], [], [value("r")]) for name, op in (("then", "Relu"), ("else", "Tanh"))}
    return model(
        [
            call("f", ["x"], ["h"], slope=0.25),
            node("If", ["flag"], ["q"], then_branch=branches["then"], else_branch=branches["else"]),
            node("Loop", ["m", "", "q"], ["z", "zs"], body=body),
            node("ReduceSum", ["zs"], ["y"], keepdims=0),
        ],
        [value("x"), scalar("flag", TensorProto.BOOL)],
        [value("z"), scalar("y")],
        [array("m", 3, np.int64)],
        functions=[f],
        opsets={"": 21, "local": 1},
    )


MODELS = {"layers": layers, "control": control}


def outcome(source: Any) -> str:
    try:
        load(source)
    except IrgradError as error:
        assert isinstance(error, ModelError), repr(error)
        assert "\n" not in str(error), repr(error)
        return type(error).__name__
    return "read"


@pytest.mark.parametrize("name", MODELS)
def test_damaged_bytes(name: str) -> None:
    whole = MODELS[name]().SerializeToString()
    assert outcome(whole) == "read"
    rng = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        damaged = bytearray(whole)
        kind, place = rng.randrange(4), rng.randrange(len(whole))
        if kind == 0:
            del damaged[place:]
        elif kind == 1:
            del damaged[place : place + rng.randrange(1, 9)]
        elif kind == 2:
            damaged[place] = rng.randrange(256)
        else:
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        outcomes[outcome(bytes(damaged))] += 1
    assert len(outcomes) >= 5, outcomes


# --- damage that leaves the file well-formed, so that it gets further -------------------------------------------------


def messages(message: Message) -> list[Message]:
    """A message and all those inside of it."""
    found = [message]
    for field, content in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in content if field.is_repeated else [content]:
                found += messages(inner)
    return found


def something(field: FieldDescriptor, rng: random.Random) -> Any:
    """Some value of a field that holds no message."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice([b"", b"a", b"\xff", bytes(8), b"SAME_UPPER"])
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, 1e30, float("nan")])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    lowest, highest = {
        FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    }[field.type]
    return rng.choice([n for n in NUMBERS if lowest <= n <= highest])


def damage(whole: Message, rng: random.Random) -> None:
    """Change one field somewhere: drop it, double it, or put something else there."""
    target = rng.choice(messages(whole))
    used = [field for field, _ in target.ListFields()]
    field = rng.choice(used if used and rng.random() < 0.7 else list(target.DESCRIPTOR.fields))
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if not field.is_repeated:
        if rng.random() < 0.3 or is_message:
            target.ClearField(field.name)
        else:
            setattr(target, field.name, something(field, rng))
        return
    content = getattr(target, field.name)
    kind = rng.randrange(3)
    if kind == 0 and len(content):
        del content[rng.randrange(len(content))]
    elif is_message:
        content.add().CopyFrom(rng.choice(list(content))) if len(content) else content.add()
    elif kind == 1 and len(content):
        content[rng.randrange(len(content))] = something(field, rng)
    else:
        content.append(something(field, rng))


@pytest.mark.parametrize("name", MODELS)
def test_damaged_structure(name: str) -> None:
    rng = random.Random(1)
    outcomes: Counter[str] = Counter()
    for _ in range(600):
        made = MODELS[name]()
        for _ in range(rng.randrange(1, 4)):
            damage(made, rng)
        outcomes[outcome(made)] += 1
    assert len(outcomes) >= 5, outcomes
    assert outcomes["read"] < 400
