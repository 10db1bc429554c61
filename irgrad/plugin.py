"""Plugins: operations, frontends, passes and executors, from this package and from anybody's.

A distribution offers plugins through the entry-point group ``irgrad.plugins``; each entry point's value is a `Plugin`.
Nothing is looked up at import: discovery happens at the first look-up, in the order of the entry points' names. A plugin
that fails to import is skipped with a warning; two plugins that provide the same name are an error that names both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias

from irgrad.errors import PluginError

__all__ = ["ENTRY_POINT_GROUP", "KINDS", "Plugin", "Registry", "registry"]

ENTRY_POINT_GROUP = "irgrad.plugins"
KINDS = ("operations", "frontends", "passes", "executors")

Factories: TypeAlias = "Mapping[str, Callable[[], Any]]"


@dataclass(frozen=True)
class Plugin:
    """What one distribution adds: for each kind, names and the zero-argument factories that make the things.

    Attributes:
        name: how messages refer to the plugin, normally the distribution's name.
        operations: qualified name ("Tanh", "mydomain.MyOp") → factory of an `irgrad.op.Op`.
        frontends: name → factory of an `irgrad.frontend.Frontend`.
        passes: name → factory of a pass class (a frozen dataclass deriving from `irgrad.pipeline.Pass`).
        executors: name → factory of a function ``(graph, **options) -> Executable``.
    """

    name: str
    operations: Factories = field(default_factory=dict)
    frontends: Factories = field(default_factory=dict)
    passes: Factories = field(default_factory=dict)
    executors: Factories = field(default_factory=dict)


class Registry:
    """All plugins, and the things that they made so far (each factory is called at most once).

    Args:
        discover: returns the entry points to load at the first look-up.
    """

    def __init__(self, discover: Callable[[], Iterable[EntryPoint]] | None = None) -> None:
        self._discover = discover or (lambda: entry_points(group=ENTRY_POINT_GROUP))
        self._discovered = False
        self._plugins: list[Plugin] = []
        self._made: dict[tuple[str, str], Any] = {}

    def register(self, plugin: Plugin) -> None:
        """Add a plugin.

        Raises:
            PluginError: another plugin provides one of its names already; nothing is added then.
        """
        # The first plugin is compared with nothing, hence not iterated over: irgrad's own would import all its operations.
        for other in self._plugins:
            for kind in KINDS:
                for name in getattr(plugin, kind):
                    if name in getattr(other, kind):
                        raise PluginError(
                            f"the plugins {other.name!r} and {plugin.name!r} both provide {name!r} under {kind}; "
                            "uninstall one of them or rename what it provides"
                        )
        self._plugins.append(plugin)

    def unregister(self, plugin: Plugin) -> None:
        """Take a plugin out again (for tests and notebooks)."""
        self._plugins.remove(plugin)
        for kind in KINDS:
            for name in getattr(plugin, kind):
                self._made.pop((kind, name), None)

    def names(self, kind: str) -> list[str]:
        """All names of one kind, sorted."""
        self._load()
        return sorted(name for plugin in self._plugins for name in getattr(plugin, kind))

    def provider(self, kind: str, name: str) -> str | None:
        """The name of the plugin that provides a thing, or None."""
        self._load()
        return next((p.name for p in self._plugins if name in getattr(p, kind)), None)

    def find(self, kind: str, name: str) -> Any | None:
        """The thing of that name, made now if it was not yet, or None where no plugin provides it."""
        made = self._made.get((kind, name))
        if made is not None:
            return made
        self._load()
        for plugin in self._plugins:
            factory = getattr(plugin, kind).get(name)
            if factory is not None:
                return self._made.setdefault((kind, name), factory())
        return None

    def get(self, kind: str, name: str) -> Any:
        """Like `find`.

        Raises:
            PluginError: no plugin provides the name; the message lists those that exist.
        """
        made = self.find(kind, name)
        if made is None:
            raise PluginError(f"there is no {name!r} among the {kind}; known are: {', '.join(self.names(kind))}")
        return made

    def _load(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # before the loading, in which a plugin may look things up itself
        before = list(self._plugins)
        try:
            self._load_all()
        except PluginError:
            # The collision is there at the next look-up as well.
            self._plugins, self._discovered = before, False
            raise

    def _load_all(self) -> None:
        for point in sorted(self._discover(), key=lambda p: (p.name, p.value)):
            try:
                plugin = point.load()
            except Exception as error:
                # Somebody else's broken package must not take every model down with it.
                warnings.warn(f"the irgrad plugin {point.name!r} ({point.value}) was skipped: {error}", stacklevel=2)
                continue
            if not isinstance(plugin, Plugin):
                warnings.warn(
                    f"the irgrad plugin {point.name!r} ({point.value}) was skipped: it is no irgrad.Plugin",
                    stacklevel=2,
                )
                continue
            self.register(plugin)


registry = Registry()
"""The registry that irgrad itself uses."""
