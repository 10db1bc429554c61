"""Make the exports of this folder: tiny transformers models as ONNX files, and what PyTorch computes for them.

Run by hand, never by the tests, in an environment of its own (the files here were made with torch 2.13.0,
transformers 5.23.0, onnx 1.23.2, onnxscript 0.7.2)::

    pip install torch transformers onnx onnxscript
    python tests/data/exports/make.py

Every model has a public architecture, a tiny configuration and random weights from a fixed seed; nothing is downloaded.
For each, `<model>-<kind>.onnx` is the export and `<model>-<kind>.npz` holds, in float32 (token ids in int64):

- `input:<name>`: what each input of the file is fed with; its sizes differ from those of the exported sample;
- `output:logits`: the logits of PyTorch for these inputs;
- `cotangent`: c of the loss sum(logits * c);
- `grad:<name>`: the gradient of that loss by an initializer or an input of the file, under its name there.

The kinds are `traced` (the TorchScript exporter without constant folding: opset 17, shape arithmetic and unfolded weights
as traced), `train` (the same in training mode: batch normalization over the batch's own statistics) and `optimised`
(torch.export with the optimiser of onnxscript, which folds the transposes of the weights and renames these).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers

HERE = Path(__file__).parent
VOCABULARY = 48
LOGITS = "logits"

Tensors = Mapping[str, torch.Tensor]


class TextLogits(torch.nn.Module):
    """A language model as a function of tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask (batch, seq) to logits (batch, seq, vocabulary)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


class ImageLogits(torch.nn.Module):
    """An image classifier as a function of tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (batch, channels, height, width) to logits (batch, classes)."""
        return self.model(pixel_values=pixel_values).logits


def tokens(generator: torch.Generator, batch: int, length: int) -> Tensors:
    """Random token ids; the last row ends in two masked positions."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, -2:] = 0
    return {"input_ids": torch.randint(VOCABULARY, (batch, length), generator=generator), "attention_mask": mask}


def images(generator: torch.Generator, batch: int, _: int) -> Tensors:
    """Random images of 16 by 16 pixels."""
    return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=generator)}


@dataclass(frozen=True)
class Export:
    """One file to make.

    Attributes:
        model: makes the model.
        kind: see the module's docstring.
        inputs: (generator, batch, sequence length) to the inputs of the model.
        axes: input or output name → axis → name of its symbolic size.
    """

    model: Callable[[], torch.nn.Module]
    kind: str
    inputs: Callable[[torch.Generator, int, int], Tensors]
    axes: Mapping[str, dict[int, str]]


def llama() -> torch.nn.Module:
    """RMS norm, rotary positions, grouped queries and a gated feed-forward layer."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    return TextLogits(transformers.LlamaForCausalLM(config))


def vit() -> torch.nn.Module:
    """Patches by convolution, a class token, layer norm and GELU."""
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=5,
        attn_implementation="eager",
    )
    return ImageLogits(transformers.ViTForImageClassification(config))


def resnet() -> torch.nn.Module:
    """Strided convolutions, batch norm, max pooling and shortcuts."""
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return ImageLogits(transformers.ResNetForImageClassification(config))


TEXT_AXES = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "attention_mask", LOGITS)}
IMAGE_AXES = {name: {0: "batch"} for name in ("pixel_values", LOGITS)}
EXPORTS = {
    "llama": Export(llama, "traced", tokens, TEXT_AXES),
    "vit": Export(vit, "optimised", images, IMAGE_AXES),
    "resnet": Export(resnet, "train", images, IMAGE_AXES),
}


def build(export: Export) -> torch.nn.Module:
    """The model with weights from a fixed seed, all of them different, so that they can be found again by their values."""
    torch.manual_seed(0)
    model = export.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model.train(export.kind == "train")


def to_onnx(model: torch.nn.Module, export: Export, sample: Tensors) -> onnx.ModelProto:
    """Export a model."""
    names: dict[str, Any] = {"input_names": list(sample), "output_names": [LOGITS]}
    operands = tuple(sample.values())
    if export.kind == "optimised":
        shapes = {name: dict.fromkeys(export.axes[name], torch.export.Dim.DYNAMIC) for name in sample}
        program = torch.onnx.export(
            model, operands, dynamo=True, optimize=True, dynamic_shapes=shapes, verbose=False, **names
        )
        return program.model_proto
    mode = torch.onnx.TrainingMode.TRAINING if export.kind == "train" else torch.onnx.TrainingMode.EVAL
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        operands,
        buffer,
        dynamo=False,
        opset_version=17,
        do_constant_folding=False,
        training=mode,
        dynamic_axes=export.axes,
        **names,
    )
    return onnx.load_from_string(buffer.getvalue())


def strip(proto: onnx.ModelProto) -> None:
    """Drop what only tells where a node came from in the Python source, which is most of a small file."""
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer)
    for item in (proto.graph, *proto.graph.node, *values):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def reference(model: torch.nn.Module, inputs: Tensors, cotangent: torch.Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits, and the gradient of sum(logits * cotangent) by each parameter and each floating-point input."""
    inputs = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}
    logits = model(**inputs)
    (logits * cotangent).sum().backward()
    leaves = {**dict(model.named_parameters()), **{n: v for n, v in inputs.items() if v.requires_grad}}
    return logits.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def name_in_file(
    proto: onnx.ModelProto, parameters: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The gradients under the names that the file has: an exporter may rename a weight and transpose it.

    Raises:
        ValueError: a parameter is not in the file, neither as it is nor transposed.
    """
    initializers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    named = {}
    for parameter, value in parameters.items():
        matches = [name for name, array in initializers.items() if np.array_equal(array, value)]
        transposed = [name for name, array in initializers.items() if np.array_equal(array, value.T)]
        if not matches and not transposed:
            raise ValueError(f"the parameter {parameter} is not in the file")
        if matches:
            named[matches[0]] = gradients[parameter]
        else:
            named[transposed[0]] = gradients[parameter].T
    return named


def make(name: str, export: Export) -> None:
    """Write the two files of one export."""
    model = build(export)
    generator = torch.Generator().manual_seed(1)
    proto = to_onnx(model, export, export.inputs(generator, 2, 6))
    strip(proto)
    inputs = export.inputs(generator, 3, 7)
    # The buffers of batch norm change in training mode; their values do not reach the logits there.
    cotangent = torch.randn(model(**inputs).shape, generator=generator)
    logits, gradients = reference(model, inputs, cotangent)
    parameters = {n: p.detach().numpy() for n, p in model.named_parameters()}
    wanted = name_in_file(proto, parameters, gradients) | {n: gradients[n] for n in inputs if n in gradients}
    stem = f"{name}-{export.kind}"
    onnx.save(proto, HERE / f"{stem}.onnx")
    arrays = {f"input:{n}": v.numpy() for n, v in inputs.items()} | {f"grad:{n}": v for n, v in wanted.items()}
    np.savez_compressed(HERE / f"{stem}.npz", cotangent=cotangent.numpy(), **{f"output:{LOGITS}": logits}, **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, export in EXPORTS.items():
        make(name, export)
