"""Generated source as a module, kept on disk with what numba makes of it.

The folder is that of the environment variable IRGRAD_CACHE, else the platform's for caches. What lies there is used only
where it is, byte for byte, the source that this process has generated itself, and where nobody else may write to the folder
(numba's files beside the source hold machine code). Where that is not so, or nothing can be written, the source is compiled
anew in this process.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import stat
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import RLock
from types import ModuleType

__all__ = ["cache_folder", "load"]


def cache_folder() -> Path:
    """Where generated modules are kept."""
    given = os.environ.get("IRGRAD_CACHE")
    if given:
        return Path(given) / "codegen"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "irgrad" / "cache" / "codegen"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "irgrad" / "codegen"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irgrad" / "codegen"


def load(text: str) -> ModuleType:
    """The module of a source, which is executed; numba has compiled its functions then, or read them from disk."""
    name = f"irgrad_generated_{hashlib.sha256((text + _surroundings()).encode()).hexdigest()[:32]}"
    with _lock:
        if name not in _loaded:
            try:
                path = _on_disk(text, name)
            except OSError:
                path = None
            _loaded[name] = _executed(text, name, path)
        return _loaded[name]


_lock = RLock()
_loaded: dict[str, ModuleType] = {}


def _executed(text: str, name: str, path: Path | None) -> ModuleType:
    """A new module; not by Python's import, which would believe a file of bytecode beside the source."""
    module = ModuleType(name)
    module.__file__ = filename = str(path) if path else f"<{name}>"
    module.__dict__["CACHE"] = path is not None
    if path is None:
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    sys.modules[name] = module  # where numba looks for what a function of its cache belongs to
    try:
        exec(compile(text, filename, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _on_disk(text: str, name: str) -> Path | None:
    """A file that holds the text; None where others might write to it."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _is_private(folder):
        return None
    path = folder / f"{name}.py"
    if not _holds(path, text):
        handle, part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # Of two processes that come at the same time, the second one finds the file of the first and leaves it: numba goes
        # by its date.
        if _holds(path, text):
            Path(part).unlink()
        else:
            Path(part).replace(path)
    return path if os.access(folder, os.W_OK) else None


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True  # Windows: folders of a user's profile are
    found = folder.stat()
    inside = folder / "__pycache__"
    others = stat.S_IWGRP | stat.S_IWOTH
    if inside.exists() and (inside.stat().st_uid != os.getuid() or inside.stat().st_mode & others):
        return False
    return found.st_uid == os.getuid() and not found.st_mode & others


@cache
def _surroundings() -> str:
    """What the machine code of a source depends on beside it."""
    parts = [sys.version]
    for package in ("irgrad", "numba", "numpy", "llvmlite"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # irgrad from a folder
            parts.append(package)
    here = Path(__file__).parent
    parts += [(here / name).read_text(encoding="utf-8") for name in ("device.py", "functions.py")]
    return "\n".join(parts)
