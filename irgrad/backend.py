"""irgrad behind ONNX's own backend interface (`onnx.backend.base`), for the tools that run models through that:
``(y,) = IrgradBackend.prepare(model).run([x])``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

from irgrad.api import load
from irgrad.errors import FeedError
from irgrad.runtime import Executable, compile

__all__ = ["IrgradBackend", "PreparedModel"]


class PreparedModel(BackendRep):
    """A model that is ready to run.

    Args:
        executable: the compiled graph.
    """

    def __init__(self, executable: Executable) -> None:
        self._executable = executable

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run once.

        Args:
            inputs: arrays in the order of the model's inputs, or a mapping from names to arrays. Those of optional
                operands may be None.
            kwargs: ignored, as the interface has it.

        Returns:
            The outputs in order.

        Raises:
            FeedError: there are more arrays than inputs, or one does not fit its input.
            ExecutionError: a node failed.
        """
        names = list(self._executable.graph.inputs)
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            arrays: Sequence[Any] = list(inputs)
            if len(arrays) > len(names):
                raise FeedError(f"the model has {len(names)} inputs, but {len(arrays)} arrays were given")
            feeds = dict(zip(names, arrays, strict=False))
        return tuple(self._executable(feeds).values())


class IrgradBackend(Backend):
    """The backend: CPU only."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        """Read and compile a model.

        Args:
            model: of any opset.
            device: "CPU".
            kwargs: ignored, as the interface has it.

        Raises:
            ModelError: the model is defective; the subclass says how.
        """
        return PreparedModel(compile(load(model)))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device's name, such as "CPU", is one that models can be prepared for."""
        return device.split(":")[0] == "CPU"
