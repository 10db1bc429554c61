"""The skeleton of a plugin: an installable distribution with an operation, a pass, and tests that pass."""

from __future__ import annotations

import keyword
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

from irgrad.errors import UsageError

__all__ = ["KINDS", "Kind", "new_plugin"]

Kind: TypeAlias = Literal["all", "op", "pass"]
KINDS: tuple[Kind, ...] = ("all", "op", "pass")

_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")

_FILES: dict[str, tuple[Kind, ...]] = {
    "pyproject.toml": KINDS,
    "README.md": KINDS,
    "$package/__init__.py": KINDS,
    "$package/soft_clip.py": ("all", "op"),
    "$package/merge_factors.py": ("all", "pass"),
    "tests/test_plugin.py": KINDS,
    "tests/test_soft_clip.py": ("all", "op"),
    "tests/test_merge_factors.py": ("all", "pass"),
}
"""Path of a file → the kinds of skeletons that have it. The template of a file is named after its last part."""


def new_plugin(name: str, kind: Kind = "all", folder: str | Path = ".") -> Path:
    """Make the skeleton of a plugin.

    Args:
        name: of the distribution, and of the folder. The package, which is also the domain of its operations, is called the
            same, in lower case and with underscores.
        kind: "op" for an operation, "pass" for a pass, "all" for both.
        folder: where the new folder goes.

    Returns:
        The new folder; it is there as a whole or not at all.

    Raises:
        UsageError: the name does not do for a package, or the folder is there already or cannot be made.
    """
    package = _package(name)
    target = Path(folder) / name
    if target.exists():
        raise UsageError(f"{str(target)!r} is there already; choose another name or folder")
    words = {"name": name, "package": package, "factories": _factories(package, kind), "entries": _entries(package, kind)}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as scratch:
            made = Path(scratch) / name
            for path, kinds in _FILES.items():
                if kind in kinds:
                    file = made / Template(path).substitute(words)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(_template(Path(path)).substitute(words), encoding="utf-8")
            made.rename(target)
    except OSError as error:
        raise UsageError(f"{str(target)!r} cannot be made: {error.strerror or error}") from None
    return target


def _package(name: str) -> str:
    package = re.sub(r"[-_.]+", "_", name).lower()
    reason = None
    if not _DISTRIBUTION.match(name) or not package.isidentifier():
        reason = "it has to be letters, digits and dashes, and begin with a letter"
    elif keyword.iskeyword(package):
        reason = "it is a word of Python's own"
    elif package in sys.stdlib_module_names or package in ("irgrad", "tests"):
        reason = "there is a module of that name"
    if reason is not None:
        raise UsageError(f"{name!r} does not do as the name of a plugin: {reason}")
    return package


def _template(path: Path) -> Template:
    # The package's own __init__.py must not be taken for one of this folder.
    name = "package.py" if path.name == "__init__.py" else path.name
    return Template(files(__name__).joinpath("plugin-template", f"{name}.txt").read_text(encoding="utf-8"))


def _factories(package: str, kind: Kind) -> str:
    """The functions that import a thing when it is first asked for."""
    factories = []
    if kind != "pass":
        factories.append(f'def _soft_clip() -> Any:\n    return import_module("{package}.soft_clip").soft_clip\n')
    if kind != "op":
        factories.append(f'def _merge_factors() -> Any:\n    return import_module("{package}.merge_factors").MergeFactors\n')
    return "\n\n".join(factories)


def _entries(package: str, kind: Kind) -> str:
    entries = []
    if kind != "pass":
        entries.append(f'    operations={{"{package}.SoftClip": _soft_clip}},\n')
    if kind != "op":
        entries.append(f'    passes={{"{package}_merge_factors": _merge_factors}},\n')
    return "".join(entries)
