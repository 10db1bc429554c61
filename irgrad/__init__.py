"""irgrad: an autodiff compiler for ONNX models. See the README for a tour."""

from __future__ import annotations

from irgrad.builtin import plugin as _plugin
from irgrad.plugin import registry as _registry

_registry.register(_plugin)
