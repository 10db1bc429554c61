"""Writing files and folders whole or not at all, and reading text."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np

from irgrad.errors import UsageError

__all__ = ["filling", "read_text", "replacing", "save_arrays"]


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends; where the block fails, `path` is as it was.

    Raises:
        UsageError: the folder does not exist or cannot be written to.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise _not_written(target, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        _make_public(Path(name), 0o666)
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(target, error) from None
        raise


def _make_public(path: Path, mode: int) -> None:
    """What tempfile makes is private; a result has the mode that anything new would have."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)


@contextmanager
def filling(folder: str | Path) -> Iterator[Path]:
    """An empty folder whose files are in `folder` when the block ends, in place of those of the same names.

    Where the block fails, or a file cannot take its place, `folder` is as it was; where there was none, there is none.

    Raises:
        UsageError: `folder` is a file or cannot be written to, or the folder that it is to be in does not exist.
    """
    target = Path(folder)
    there = target.is_dir()
    try:
        if target.exists() and not there:
            raise NotADirectoryError(0, "it is a file")
        # Beside what it becomes, and so on the same disk.
        made = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target if there else target.parent)
    except OSError as error:
        raise _not_written(target, error) from None
    scratch = Path(made)
    try:
        files, replaced = scratch / "new", scratch / "old"
        files.mkdir()
        replaced.mkdir()
        yield files
        if there:
            _move_all(files, target, replaced)
        else:
            files.rename(target)
    except OSError as error:
        raise _not_written(target, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move_all(source: Path, target: Path, replaced: Path) -> None:
    """Move the files of a folder into another one; those that they replace go to a third one, until all is well."""
    names = sorted(path.name for path in source.iterdir())
    for name in names:
        if (target / name).is_dir():
            raise IsADirectoryError(0, f"{name!r} in it is a folder")
    moved: list[str] = []
    try:
        for name in names:
            moved.append(name)
            if (target / name).exists():
                (target / name).rename(replaced / name)
            (source / name).rename(target / name)
    except BaseException:
        for name in moved:
            if (replaced / name).exists():
                (replaced / name).replace(target / name)
            elif not (source / name).exists():
                (target / name).unlink()
        raise


def _not_written(target: Path, error: OSError) -> UsageError:
    return UsageError(f"{str(target)!r} cannot be written: {error.strerror or error}")


def save_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz archive; of a sequence, element k goes by its name with [k] behind.

    Written entry by entry, since np.savez takes names as keywords and cannot have one called "file". Elements of types that
    numpy has no files of (bfloat16) are written as float32, which holds all of them; text as numpy's own.

    Raises:
        UsageError: the file cannot be written.
    """
    with replacing(path) as file, ZipFile(file, "w") as archive:
        for name, array in _tensors(arrays):
            if array.dtype == object:
                array = array.astype(np.str_)
            elif array.dtype.isbuiltin != 1:
                array = array.astype(np.float32)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _tensors(arrays: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    found: list[tuple[str, np.ndarray]] = []
    for name, value in arrays.items():
        if isinstance(value, list):
            found += _tensors({f"{name}[{k}]": element for k, element in enumerate(value)})
        elif value is not None:
            found.append((name, np.asarray(value)))
    return found


def read_text(path: str | Path) -> str:
    """What stands in a UTF-8 file.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the file {str(path)!r} is no text in UTF-8") from None
    except OSError as error:
        raise UsageError(f"the file {str(path)!r} cannot be read: {error.strerror or error}") from None
