"""Operations that move elements: what used to be attributes becomes operands."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter

__all__: list[str] = []

_INT64 = np.dtype(np.int64)


@adapter("Reshape", since=5)
def reshape_5(b: Builder, node: OldNode) -> None:
    """`shape` becomes the second operand; `consumed_inputs` is gone."""
    node.attrs.pop("consumed_inputs", None)
    node.set_input(1, b.ints(node.take("shape")))


@adapter("Concat", since=4)
def concat_4(b: Builder, node: OldNode) -> None:
    """`axis` loses its default, which was 1."""
    node.attrs.setdefault("axis", 1)


@adapter("Slice", since=10)
def slice_10(b: Builder, node: OldNode) -> None:
    """`starts`, `ends` and `axes` become operands."""
    node.set_input(1, b.ints(node.take("starts")))
    node.set_input(2, b.ints(node.take("ends")))
    axes = node.attrs.pop("axes", ())
    if axes:
        node.set_input(3, b.ints(axes))


@adapter("Split", since=2)
def split_2(b: Builder, node: OldNode) -> None:
    """The optional second operand, the sizes as numbers of the data's dtype, is gone (until opset 13 brings it back)."""
    sizes = node.input(1)
    if sizes is not None:
        node.attrs.pop("split", None)
        known = sizes.constant
        node.set_input(1, b.cast(sizes, _INT64) if known is None else b.constant(known, _INT64))


@adapter("Split", since=13)
def split_13(b: Builder, node: OldNode) -> None:
    """`split` becomes the second operand."""
    sizes = node.attrs.pop("split", ())
    if sizes:
        node.set_input(1, b.ints(sizes))


@adapter("Split", since=18)
def split_18(b: Builder, node: OldNode) -> None:
    """Equal parts have to be asked for, by `num_outputs`."""
    if node.input(1) is None:
        node.attrs["num_outputs"] = node.n_outputs


@adapter("Pad", since=2)
def pad_2(b: Builder, node: OldNode) -> None:
    """`paddings` is called `pads`.

    The example in the old text interleaves begins and ends; the attribute's own description has all begins first, as
    `pads` does, and that is what was implemented.
    """
    node.attrs["pads"] = node.take("paddings")


@adapter("Pad", since=11)
def pad_11(b: Builder, node: OldNode) -> None:
    """`pads` and `value` become operands."""
    node.set_input(1, b.ints(node.take("pads")))
    fill = node.attrs.pop("value", 0.0)
    if fill:
        node.set_input(2, b.constant(np.array(fill, node.operand(0).dtype)))


@adapter("Tile", since=6)
def tile_6(b: Builder, node: OldNode) -> None:
    """`tiles` copies along one `axis`, both numbers of the data's dtype, become `repeats` with one number per axis."""
    tiles, axis, rank = node.operand(1), node.operand(2), node.rank(0)
    if tiles.constant is not None and axis.constant is not None:
        counts = np.ones(rank, np.int64)
        counts[int(axis.constant.item())] = int(tiles.constant.item())
        repeats = b.constant(counts)
    else:
        here = b.op("Equal", b.ints(range(rank)), b.cast(axis, _INT64))
        repeats = b.op("Where", here, b.cast(tiles, _INT64), b.ints([1]))
    node.inputs = [node.operand(0), repeats]
