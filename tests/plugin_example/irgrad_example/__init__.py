"""An example of a plugin for irgrad. What it offers is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irgrad.plugin import Plugin

__all__ = ["plugin"]


def _soft_clip() -> Any:
    return import_module("irgrad_example.operation").soft_clip


def _fuse_soft_clip() -> Any:
    return import_module("irgrad_example.fuse").FuseSoftClip


def _polish() -> Any:
    return import_module("irgrad_example.polish").PolishFrontend()


plugin = Plugin(
    name="irgrad-example",
    operations={"example.SoftClip": _soft_clip},
    passes={"fuse_soft_clip": _fuse_soft_clip},
    frontends={"polish": _polish},
)
