"""The layout: the package list against the tree, the links, and the layers."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
LINKED = {"passes": "irgrad.passes", "frontends": "irgrad.frontends"}


def packages_in_the_tree() -> set[str]:
    found = set()
    for folder, package in {"irgrad": "irgrad", **LINKED}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder)
            if folder == "irgrad" and inside.parts[:1] and inside.parts[0] in LINKED:
                continue  # seen through the link: it is listed as the real folder
            found.add(".".join([package, *inside.parts]))
    return found


def test_package_list_is_the_tree() -> None:
    assert set(SETTINGS["packages"]) == packages_in_the_tree()


def test_every_linked_package_has_its_folder() -> None:
    mapped = SETTINGS["package-dir"]
    linked = {p for p in SETTINGS["packages"] if p.split(".")[1:2] and p.split(".")[1] in LINKED}
    assert set(mapped) == linked
    for package, folder in mapped.items():
        assert package == "irgrad." + folder.replace("/", ".")


def test_the_links_point_to_the_folders() -> None:
    for folder in LINKED:
        assert (ROOT / "irgrad" / folder).resolve() == (ROOT / folder).resolve()


# --- layers -----------------------------------------------------------------------------------------------------------

LAYERS = [
    ["errors"],
    ["types", "files", "bundled"],
    ["scaffold"],
    ["literals"],
    ["plugin", "proto", "options", "text_lexer"],
    ["node"],
    ["graph"],
    ["op", "compare"],
    ["contents", "frontend", "activity", "influence", "transplant"],
    ["infer"],
    ["builder"],
    ["pattern", "text_parser", "parameters"],
    ["text", "rewrite"],
    ["verify", "diff", "drawing"],
    ["runtime", "pipeline"],
    ["codegen"],
    ["kernels"],
    ["instruments", "unpacked", "tracing", "cost"],
    ["ops", "frontends"],
    ["passes", "executors"],
    ["builtin", "gradcheck", "coverage", "plausible", "training", "artifacts", "report", "profiling"],
    ["api"],
    ["backend", "conformance", "testing"],
    ["cli"],
    ["__main__"],
]
"""Lowest first. A module may import what stands below it and, in a package, its own neighbours; not upward."""

HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in [*(ROOT / "irgrad").rglob("*.py"), *(ROOT / "passes").rglob("*.py"), *(ROOT / "frontends").rglob("*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[1:] if parts[0] == "irgrad" else parts
        if parts[-1] != "__init__" or len(parts) > 1:
            found.append((".".join(parts), path))
    return sorted(set(found))


MODULES = {f"irgrad.{name.removesuffix('.__init__')}" for name, _ in modules()}


def imports(path: Path) -> list[str]:
    """The irgrad modules that a file imports when it is imported or run; imports for type checking only do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "irgrad":
            for alias in node.names:
                # "from package import module" imports the module, not what the package's __init__ holds.
                inner = f"{node.module}.{alias.name}"
                found.append(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "irgrad"]
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_no_import_runs_upward(name: str, path: Path) -> None:
    own = name.split(".")[0]
    assert own in HEIGHT, f"{own} has no layer: put it into LAYERS"
    for module in imports(path):
        other = module.split(".")[1]
        assert other == own or HEIGHT[other] < HEIGHT[own], f"{name} imports {module}, which stands above or beside it"


def test_there_are_no_circles() -> None:
    graph = {f"irgrad.{name.removesuffix('.__init__')}": set(imports(path)) for name, path in modules()}
    done: set[str] = set()
    for start in graph:
        stack, open_now = [(start, iter(graph.get(start, ())))], [start]
        while stack:
            rest = stack[-1][1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                done.add(open_now.pop())
            elif following in open_now:
                raise AssertionError(" → ".join([*open_now[open_now.index(following) :], following]))
            elif following not in done:
                stack.append((following, iter(graph.get(following, ()))))
                open_now.append(following)
