"""Defective models: each is refused by the right error, in one sentence that says where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from irgrad.errors import DanglingNameError, ModelError, ModelParseError, UsageError
from irgrad.frontend import load
from tests.frontends import malformed_type_cases  # noqa: F401 - adds its cases to CASES
from tests.frontends.build import array, external, function, model, node, saved, value
from tests.frontends.malformed_cases import CASES, one, valid


def test_the_model_that_the_defects_are_made_from_is_valid() -> None:
    assert list(load(valid()).outputs) == ["y"]


@pytest.mark.parametrize("name", CASES)
def test_defect(name: str) -> None:
    error, where, make = CASES[name]
    assert issubclass(error, ModelError)
    made = make()
    before = made.SerializeToString(deterministic=True)
    with pytest.raises(error) as caught:
        load(made)
    message = str(caught.value)
    assert type(caught.value) is error
    assert where in message
    assert "\n" not in message
    assert not message.endswith((".", "\n"))
    assert len(message) < 1000
    assert made.SerializeToString(deterministic=True) == before


def test_names_are_shown_on_one_line() -> None:
    made = one(node("Add", ["x", "no\nwhere"], ["y"], name="a\nb'c"))
    with pytest.raises(DanglingNameError) as caught:
        load(made)
    assert "\n" not in str(caught.value)


# --- files that are no models -----------------------------------------------------------------------------------------


def other_protobufs() -> dict[str, bytes]:
    tensor = array("w", np.arange(300.0))
    return {
        "tensor": tensor.SerializeToString(),
        "graph": valid().graph.SerializeToString(),
        "node": valid().graph.node[0].SerializeToString(),
        "function": function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])]).SerializeToString(),
        "model without a graph": ModelProto(ir_version=8, producer_name="p").SerializeToString(),
        "model without a version": ModelProto(graph=valid().graph).SerializeToString(),
        # Field 7 as a number instead of a message.
        "wrong wire type": b"\x08\x08\x38\x05",
    }


BAD_BYTES = {
    "empty": b"",
    "text": b"This is not a model, but a text of some length.\n" * 20,
    "json": b'{"graph": {"node": []}}',
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "random": np.random.default_rng(0).bytes(5000),
    "zip": b"PK\x03\x04" + bytes(100),
    **other_protobufs(),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_are_no_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BAD_BYTES[name])
    for source, shown in ((BAD_BYTES[name], "the bytes"), (path, "model.onnx")):
        with pytest.raises(ModelParseError) as caught:
            load(source)
        assert shown in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_truncation_is_refused() -> None:
    whole = valid().SerializeToString()
    for size in range(len(whole)):
        with pytest.raises(ModelError):
            load(whole[:size])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(np.frombuffer(b, np.uint8)[::1])])
def test_bytes_of_every_kind_are_read(kind: Any) -> None:
    assert list(load(kind(valid().SerializeToString())).outputs) == ["y"]
    strided = np.repeat(np.frombuffer(valid().SerializeToString(), np.uint8), 2)[::2]
    assert list(load(memoryview(strided)).outputs) == ["y"]


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "pipe").symlink_to("/dev/zero")
    saved(valid(), tmp_path, "locked.onnx")
    for path, shown in (
        (tmp_path / "missing.onnx", "there is no file"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "locked.onnx" / "inner.onnx", "cannot be read"),
        ("zero\0byte.onnx", "cannot be read"),
        ("l" * 5000 + ".onnx", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=shown):
            load(path)
        with pytest.raises(UsageError, match=shown):
            load(str(path))


def test_the_folder_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        load(valid(), folder=tmp_path / "missing")


def test_a_file_larger_than_protobuf_allows(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelParseError, match="2 GiB"):
        load(path)


# --- memory -----------------------------------------------------------------------------------------------------------


def giants() -> dict[str, ModelProto]:
    """Small files that would take a lot of memory if a reader believed them, valid ones among them."""
    shape = array("shape", [10**6, 10**6], np.int64)
    small = array("small", [[1.0]])
    flat = [value("y", None)]
    external_one = one(node("Add", ["x", "w"], ["y"]), initializers=[external("w", "w.bin", [10**12])])
    weights = [node("ConstantOfShape", ["dims"], [f"w{k}"]) for k in range(50)]
    many = [*weights, node("Sum", [f"w{k}" for k in range(50)], ["y"])]
    return {
        "ConstantOfShape": model([node("ConstantOfShape", ["shape"], ["y"])], [], flat, [shape]),
        "Expand": model([node("Expand", ["small", "shape"], ["y"])], [], flat, [shape, small]),
        "Tile": model([node("Tile", ["small", "shape"], ["y"])], [], flat, [shape, small]),
        "Range": model(
            [node("Range", ["a", "b", "c"], ["y"])],
            [],
            [value("y", None, TensorProto.INT64)],
            [array(n, v, np.int64) for n, v in (("a", 0), ("b", 10**12), ("c", 1))],
        ),
        "Pad": model([node("Pad", ["small", "pads"], ["y"])], [], flat, [small, array("pads", [10**6] * 4, np.int64)]),
        "many weights": model(many, [], flat, [array("dims", [20_000, 20_000], np.int64)]),
        "external": external_one,
        "sparse file": one(node("Add", ["x", "w"], ["y"]), initializers=[external("w", "hole.bin", [3 * 2**28])]),
        **{name: make() for name, (_, _, make) in CASES.items() if "giant" in name or "explode" in name},
    }


MEASURE = """
import resource, sys
from pathlib import Path
from irgrad.errors import IrgradError
from irgrad.frontend import load

load(sys.argv[1])  # what is imported lazily is imported now
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30 - 2**26
if sys.argv[2] == "hole":
    limit += 3 * 2**30  # mapping takes addresses, though no memory
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[3:]:
    try:
        load(name)
    except IrgradError as error:
        print(name, type(error).__name__)
    else:
        print(name, "loaded")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits addresses in the way of Linux")
def test_memory_stays_small(tmp_path: Path) -> None:
    with (tmp_path / "hole.bin").open("wb") as file:
        file.truncate(3 * 2**30)
    paths = {name: str(saved(made, tmp_path, f"{name}.onnx")) for name, made in giants().items()}
    for name, data in BAD_BYTES.items():
        (tmp_path / f"{name}.bad").write_bytes(data)
        paths[name] = str(tmp_path / f"{name}.bad")
    good = str(saved(valid(), tmp_path, "good.onnx"))
    hole = paths.pop("sparse file")
    for mode, names in (("plain", list(paths.values())), ("hole", [hole])):
        run = [sys.executable, "-c", MEASURE, good, mode, *names]
        result = subprocess.run(run, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
        assert result.returncode == 0, result.stderr
        *outcomes, grown = result.stdout.splitlines()
        assert len(outcomes) == len(names)
        assert not any("Parse" in line for line in outcomes if line.split(" ")[0].endswith(".onnx"))
        assert int(grown) < 200, result.stdout
