"""Initializers: every encoding, external data, and sizes that are not what they seem."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irgrad.errors import ExternalDataError, ModelSizeError, ModelTypeError
from irgrad.frontend import load
from irgrad.frontends.onnx.external import ExternalData
from irgrad.frontends.onnx.tensors import sparse_to_array, tensor_to_array
from tests.frontends.build import array, external, model, node, saved, value

ELEMENTS = [e for n, e in TensorProto.DataType.items() if n not in ("UNDEFINED", "STRING")]
PACKED = [TensorProto.INT2, TensorProto.UINT2, TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (5,), (2, 3), (2, 0, 3), (7, 1)]
NOWHERE = ExternalData(None)


def name_of(elem: int) -> str:
    return TensorProto.DataType.Name(elem)  # type: ignore[arg-type]


def sample(elem: int, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem))
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5
    if dtype.kind == "c":
        return (values - 1j * values).astype(dtype)
    return values.astype(np.float32).astype(dtype) if dtype.kind not in "iub" else values.astype(dtype)


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("elem", ELEMENTS, ids=name_of)
def test_raw_data(elem: int, shape: tuple[int, ...]) -> None:
    want = sample(elem, shape)
    tensor = numpy_helper.from_array(want, "t")
    assert tensor.data_type == elem
    same(tensor_to_array(tensor, NOWHERE), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("elem", ELEMENTS, ids=name_of)
def test_typed_fields(elem: int, shape: tuple[int, ...]) -> None:
    want = sample(elem, shape)
    tensor = helper.make_tensor("t", elem, shape, want.reshape(-1))
    assert not tensor.HasField("raw_data")
    same(tensor_to_array(tensor, NOWHERE), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("elem", ELEMENTS, ids=name_of)
def test_external_data(elem: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    want = sample(elem, shape)
    raw = numpy_helper.from_array(want).raw_data
    (tmp_path / "w.bin").write_bytes(b"abc" + raw + b"rest")
    tensor = external("t", "w.bin", shape, elem, offset=3, length=len(raw))
    got = tensor_to_array(tensor, ExternalData(tmp_path))
    same(got, want)
    if elem not in (*PACKED, TensorProto.FLOAT6E2M3, TensorProto.FLOAT6E3M2):
        assert not got.flags.writeable


def test_packed_elements_span_many_chunks() -> None:
    for elem in (TensorProto.INT4, TensorProto.UINT2, TensorProto.FLOAT6E2M3):
        bits = 6 if elem == TensorProto.FLOAT6E2M3 else 4 if elem == TensorProto.INT4 else 2
        count = 3 * 2**20 * 8 // bits + 5
        codes = np.random.default_rng(0).integers(0, 2**bits, count).astype(np.uint8)
        digits = np.unpackbits(codes, bitorder="little").reshape(-1, 8)[:, :bits]
        tensor = TensorProto(name="t", data_type=elem, dims=[count])
        tensor.raw_data = np.packbits(digits, bitorder="little").tobytes()
        got = tensor_to_array(tensor, NOWHERE)
        assert (got.view(np.uint8) == codes).all()


def test_strings() -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.STRING, dims=[2, 1], string_data=["ä".encode(), b"\xff"])
    got = tensor_to_array(tensor, NOWHERE)
    assert got.dtype == object
    assert got.tolist() == [["ä"], ["\udcff"]]


def test_bytes_other_than_1_are_true() -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.BOOL, dims=[3], raw_data=b"\x00\x02\xff")
    got = tensor_to_array(tensor, NOWHERE)
    assert got.view(np.uint8).tolist() == [0, 1, 1]
    tensor = TensorProto(name="t", data_type=TensorProto.BOOL, dims=[3], int32_data=[0, 7, 256])
    assert tensor_to_array(tensor, NOWHERE).tolist() == [False, True, True]


def test_bit_patterns_may_be_written_as_negative_numbers() -> None:
    half = TensorProto(name="t", data_type=TensorProto.FLOAT16, dims=[1], int32_data=[-16384])
    assert tensor_to_array(half, NOWHERE).tolist() == [-2.0]
    byte = TensorProto(name="t", data_type=TensorProto.UINT8, dims=[1], int32_data=[-1])
    assert tensor_to_array(byte, NOWHERE).tolist() == [255]


# --- what does not fit ------------------------------------------------------------------------------------------------


def tensor(**fields: Any) -> TensorProto:
    return TensorProto(name="w", **{"data_type": TensorProto.FLOAT, **fields})


SIZES = {
    "too little raw data": tensor(dims=[2, 3], raw_data=bytes(20)),
    "too much raw data": tensor(dims=[2, 3], raw_data=bytes(28)),
    "raw data for nothing": tensor(dims=[0], raw_data=bytes(4)),
    "packed data too long": tensor(dims=[3], data_type=TensorProto.INT4, raw_data=bytes(3)),
    "too few entries": tensor(dims=[3], float_data=[1.0, 2.0]),
    "too many entries": tensor(dims=[3], float_data=[1.0] * 4),
    "no data": tensor(dims=[3]),
    "no data for a scalar": tensor(dims=[]),
    "the field of another type": tensor(dims=[2], int64_data=[1, 2]),
    "packed entries": tensor(dims=[3], data_type=TensorProto.UINT4, int32_data=[1, 2, 3]),
    "half a complex number": tensor(dims=[1], data_type=TensorProto.COMPLEX64, float_data=[1.0]),
    "negative dimension": tensor(dims=[-1], raw_data=bytes(4)),
    "two negative dimensions": tensor(dims=[-2, -3], raw_data=bytes(24)),
    "giant dimensions": tensor(dims=[10**12], raw_data=bytes(4)),
    "giant dimensions, typed": tensor(dims=[10**6, 10**6], float_data=[1.0]),
    "dimensions beyond 64 bits": tensor(dims=[2**40, 2**40], raw_data=bytes(4)),
    "giant dimensions of nothing": tensor(dims=[0, 2**62, 2**62]),
    "too many axes": tensor(dims=[1] * 65, raw_data=bytes(4)),
    "a number of 9 bits": tensor(dims=[1], data_type=TensorProto.INT8, int32_data=[300]),
    "a negative 6-bit code": tensor(dims=[1], data_type=TensorProto.FLOAT6E2M3, int32_data=[-1]),
    "a number of 33 bits": tensor(dims=[1], data_type=TensorProto.UINT32, uint64_data=[2**32]),
}
TYPES = {
    "segments": tensor(dims=[1], raw_data=bytes(4), segment=TensorProto.Segment(begin=0, end=1)),
    "undefined element type": tensor(dims=[1], data_type=TensorProto.UNDEFINED, raw_data=bytes(4)),
    "unknown element type": tensor(dims=[1], data_type=999, raw_data=bytes(4)),
    "data twice": tensor(dims=[1], raw_data=bytes(4), float_data=[1.0]),
    "data in two fields": tensor(dims=[1], int64_data=[1], float_data=[1.0]),
    "raw strings": tensor(dims=[1], data_type=TensorProto.STRING, raw_data=b"abc"),
    "external strings": external("w", "w.bin", [1], TensorProto.STRING),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_do_not_fit(name: str) -> None:
    with pytest.raises(ModelSizeError, match="'w'"):
        tensor_to_array(SIZES[name], NOWHERE)


@pytest.mark.parametrize("name", TYPES)
def test_encodings_that_cannot_be(name: str) -> None:
    with pytest.raises(ModelTypeError, match="'w'"):
        tensor_to_array(TYPES[name], NOWHERE)


# --- sparse -----------------------------------------------------------------------------------------------------------


def sparse(values: Any, indices: Any, dims: list[int], dtype: Any = np.float32) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=dims)
    made.values.CopyFrom(array("w", values, dtype))
    made.indices.CopyFrom(array("i", indices, np.int64))
    return made


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]], ids=["linear", "coordinates"])
def test_sparse(indices: Any) -> None:
    got = sparse_to_array(sparse([3.0, 4.0], indices, [2, 3]), NOWHERE, "w")
    same(got, np.array([[0, 3, 0], [0, 0, 4]], np.float32))


def test_sparse_of_other_types() -> None:
    assert sparse_to_array(sparse([7], [2], [4], np.int8), NOWHERE, "w").tolist() == [0, 0, 7, 0]
    strings = sparse([1.0], [1], [2])
    strings.values.CopyFrom(TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"x"]))
    assert sparse_to_array(strings, NOWHERE, "w").tolist() == ["", "x"]
    empty = sparse(np.zeros(0), np.zeros(0), [2, 2])
    assert sparse_to_array(empty, NOWHERE, "w").tolist() == [[0, 0], [0, 0]]


def test_a_sparse_initializer_is_a_parameter() -> None:
    made = model([node("Mul", ["x", "w"], ["y"])], [value("x")], [value("y")])
    made.graph.sparse_initializer.append(sparse([3.0, 4.0], [1, 5], [2, 3]))
    graph = load(made)
    assert list(graph.parameters) == ["w"]
    assert graph.parameters["w"].sum() == 7


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (sparse([1.0], [6], [2, 3]), ModelSizeError),
        (sparse([1.0], [-1], [2, 3]), ModelSizeError),
        (sparse([1.0], [[0, 3]], [2, 3]), ModelSizeError),
        (sparse([1.0], [[0, 0, 0]], [2, 3]), ModelSizeError),
        (sparse([1.0, 2.0], [0], [2, 3]), ModelSizeError),
        (sparse([[1.0]], [0], [2, 3]), ModelSizeError),
        (sparse([1.0], [0], [2, -3]), ModelSizeError),
        (sparse([1.0], [0], [10**6, 10**6]), ModelSizeError),
        (sparse([1.0], [0], [2**62, 2**62]), ModelSizeError),
        (sparse([1.0, 2.0], [3, 3], [2, 3]), ModelTypeError),
        (sparse([1.0, 2.0], [[1, 1], [1, 1]], [2, 3]), ModelTypeError),
    ],
)
def test_sparse_that_does_not_fit(made: onnx.SparseTensorProto, error: type[Exception]) -> None:
    with pytest.raises(error, match="the initializer 'w'"):
        sparse_to_array(made, NOWHERE, "the initializer 'w'")


def test_sparse_indices_must_be_int64() -> None:
    made = sparse([1.0], [0], [2])
    made.indices.CopyFrom(array("i", [0], np.int32))
    with pytest.raises(ModelTypeError, match="int64"):
        sparse_to_array(made, NOWHERE, "w")


# --- external data ----------------------------------------------------------------------------------------------------


def with_external(*tensors: TensorProto, elem: int = TensorProto.FLOAT) -> onnx.ModelProto:
    nodes = [node("Identity", [t.name], [f"{t.name}_out"]) for t in tensors]
    outputs = [value(f"{t.name}_out", None, t.data_type) for t in tensors]
    return model(nodes, [], outputs, tensors)


def test_a_file_is_mapped_once_and_not_read(tmp_path: Path) -> None:
    weights = np.arange(64, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(weights.tobytes())
    made = with_external(
        external("a", "sub/w.bin", [4, 4], offset=0, length=64),
        external("b", "sub/w.bin", [4, 4], offset=64),  # no length: as much as the shape needs
        external("c", "sub/w.bin", [2, 4], offset=128, length=32),
    )
    graph = load(saved(made, tmp_path))
    arrays = list(graph.parameters.values())
    np.testing.assert_array_equal(np.concatenate([a.reshape(-1) for a in arrays]), weights[:40])
    roots = set()
    for a in arrays:
        assert not a.flags.writeable
        while isinstance(a.base, np.ndarray):
            a = a.base
        roots.add(id(a))
    assert len(roots) == 1


def test_many_tensors_do_not_use_up_file_handles(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4 * 3000))
    made = with_external(*(external(f"w{k}", "w.bin", [1], offset=4 * k, length=4) for k in range(3000)))
    assert len(load(saved(made, tmp_path)).parameters) == 3000


def test_offsets_need_not_be_aligned(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"x" + weights.tobytes())
    graph = load(saved(with_external(external("a", "w.bin", [6], offset=1, length=24)), tmp_path))
    np.testing.assert_array_equal(graph.parameters["a"] + 0, weights)


def test_a_folder_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(2, np.float32).tobytes())
    made = with_external(external("a", "w.bin", [2]))
    for source in (made, made.SerializeToString()):
        assert load(source, folder=tmp_path).parameters["a"].tolist() == [1, 1]
        with pytest.raises(ExternalDataError, match=r"'a' lies in the file 'w.bin'.*folder="):
            load(source)


def test_a_model_that_is_a_link_finds_its_data_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "w.bin").write_bytes(np.ones(2, np.float32).tobytes())
    path = saved(with_external(external("a", "w.bin", [2])), tmp_path / "store")
    (tmp_path / "link.onnx").symlink_to(path)
    assert load(tmp_path / "link.onnx").parameters["a"].tolist() == [1, 1]


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "v1.bin").write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / "w.bin").symlink_to("v1.bin")
    (tmp_path / "sub").mkdir()
    for location in ("w.bin", "sub/../w.bin"):
        graph = load(saved(with_external(external("a", location, [2])), tmp_path))
        assert graph.parameters["a"].tolist() == [1, 1]


def escaping(kind: str, folder: Path) -> TensorProto:
    """A tensor whose file must not be read, with whatever it takes for it to be there."""
    inside, outside = folder / "model", folder / "secret.bin"
    inside.mkdir()
    outside.write_bytes(bytes(8))
    if kind == "link":
        (inside / "w.bin").symlink_to(outside)
    elif kind == "link through a folder":
        (inside / "sub").symlink_to(folder)
        return external("w", "sub/secret.bin", [2])
    elif kind == "circle of links":
        (inside / "w.bin").symlink_to(inside / "w.bin")
    elif kind == "pipe":
        os.mkfifo(inside / "w.bin")
    elif kind == "folder":
        (inside / "w.bin").mkdir()
    elif kind == "device":
        (inside / "w.bin").symlink_to("/dev/zero")
    elif kind == "short":
        (inside / "w.bin").write_bytes(bytes(7))
    elif kind == "empty":
        (inside / "w.bin").write_bytes(b"")
    elif kind == "offset beyond the end":
        (inside / "w.bin").write_bytes(bytes(8))
        return external("w", "w.bin", [2], offset=10**18, length=8)
    locations = {
        "absolute": str(outside),
        "absolute of Windows": "C:\\secret.bin",
        "drive of Windows": "C:secret.bin",
        "share of Windows": "\\\\host\\share\\secret.bin",
        "parent": "../secret.bin",
        "parent of a folder": "sub/../../secret.bin",
        "no location": "",
        "zero byte": "w.bin\0",
        "long name": "w" * 5000,
    }
    return external("w", locations.get(kind, "w.bin"), [2])


ESCAPES = [
    "link",
    "link through a folder",
    "circle of links",
    "pipe",
    "folder",
    "device",
    "short",
    "empty",
    "missing",
    "offset beyond the end",
    "absolute",
    "absolute of Windows",
    "drive of Windows",
    "share of Windows",
    "parent",
    "parent of a folder",
    "no location",
    "zero byte",
    "long name",
]


@pytest.mark.parametrize("kind", ESCAPES)
def test_files_that_must_not_or_cannot_be_read(kind: str, tmp_path: Path) -> None:
    made = with_external(escaping(kind, tmp_path))
    with pytest.raises(ExternalDataError, match="the initializer 'w'") as caught:
        load(saved(made, tmp_path / "model"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["offset", "length"])
@pytest.mark.parametrize("text", ["-1", "four", "", "1e3", "0x10", "9" * 30, "٣"])
def test_malformed_numbers(entry: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(8))
    made = external("w", "w.bin", [2])
    made.external_data.add(key=entry, value=text)
    with pytest.raises(ExternalDataError, match=entry):
        load(saved(with_external(made), tmp_path))


def test_a_length_that_does_not_fit_the_shape(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    with pytest.raises(ModelSizeError, match="'w' declares 12 bytes"):
        load(saved(with_external(external("w", "w.bin", [2], length=12)), tmp_path))


def test_more_than_2_gigabytes(tmp_path: Path) -> None:
    size = 3 * 2**30
    path = tmp_path / "w.bin"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 8)
        file.write(np.array([5, 6], np.float32).tobytes())
    if path.stat().st_blocks * 512 > size // 2:
        pytest.skip("the file system has no sparse files")
    made = with_external(external("w", "w.bin", [size // 4], length=size), external("v", "w.bin", [2], offset=size - 8))
    graph = load(saved(made, tmp_path))
    assert graph.parameters["w"].nbytes == size
    assert graph.parameters["w"][-2:].tolist() == graph.parameters["v"].tolist() == [5, 6]
