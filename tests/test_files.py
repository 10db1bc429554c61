"""Folders that are filled as a whole or not at all, and archives of arrays."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from irgrad.errors import UsageError
from irgrad.files import filling, save_arrays


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_is_made_or_filled(tmp_path: Path) -> None:
    for number in range(2):
        with filling(tmp_path / "a") as files:
            (files / "one").write_text(f"1 {number}")
            (files / f"two {number}").write_text("2")
            assert not (tmp_path / "a" / f"two {number}").exists()
    assert contents(tmp_path) == {"a/one": "1 1", "a/two 0": "2", "a/two 1": "2"}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "one", "two 0", "two 1"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails(error: type[BaseException], there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "one").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(error), filling(tmp_path / "a") as files:
        (files / "one").write_text("new")
        raise error
    assert contents(tmp_path) == before
    assert (tmp_path / "a").exists() == there
    assert len([*tmp_path.rglob("*")]) == 2 * there


@pytest.mark.parametrize("number", range(5))
def test_a_file_that_cannot_take_its_place(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth renaming is the last one: of three files two are there before."""
    for name in ("one", "three"):
        (tmp_path / name).write_text("old")
    rename, calls = Path.rename, iter(range(5))

    def failing(self: Path, target: Path) -> Path:
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UsageError, match="No space left on device"), filling(tmp_path) as files:
        for name in ("one", "two", "three"):
            (files / name).write_text("new")
    assert contents(tmp_path) == {"one": "old", "three": "old"}
    assert len([*tmp_path.iterdir()]) == 2


def test_what_cannot_be_filled(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "one").mkdir()
    for folder, message in (("file", "it is a file"), ("no/such", "No such file or directory")):
        with pytest.raises(UsageError, match=f"cannot be written: {message}"), filling(tmp_path / folder):
            pass
    with pytest.raises(UsageError, match="cannot be written: 'one' in it is a folder"), filling(tmp_path) as files:
        (files / "one").write_text("")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "one"]


def test_arrays_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    bfloat = np.array([1.5, 2], ml_dtypes.bfloat16)
    arrays = {"file": np.arange(3), "/a/b": 2.0, "text": np.array(["x"], object), "wide": bfloat, "none": None, "s": [1, 2]}
    save_arrays(path, arrays)
    found = dict(np.load(path))
    assert list(found) == ["file", "/a/b", "text", "wide", "s[0]", "s[1]"]
    assert (found["wide"].dtype, found["text"].dtype.kind, found["/a/b"].shape) == (np.float32, "U", ())
