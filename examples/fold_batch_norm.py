"""Fold inference-time BatchNormalization into the Conv before it: a pass made of one rule, on a ResNet-50.

With f = scale / sqrt(variance + epsilon), (conv(x, w) + b − mean) · f + shift = conv(x, w · f) + (b − mean) · f + shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.pattern import OpPattern, Var, maybe, op, rule
from irgrad.plausible import plausible_parameters
from irgrad.rewrite import rewrite
from irgrad.testing import assert_same_results


@rule(exclusive=True)  # the result of the Conv must have no other use
def conv_then_norm(x: Var, w: Var, bias: Var, scale: Var, shift: Var, mean: Var, variance: Var, conv: Var) -> OpPattern:
    """A BatchNormalization that reads what a Conv makes, and its own statistics."""
    convolved = op("Conv", x, w, maybe(bias)).bind(conv)
    return op("BatchNormalization", convolved, scale, shift, mean, variance, training_mode=0)


@conv_then_norm.check
def _(w: ig.Value, bias: ig.Value | None, match: dict[str, ig.Value]) -> str | None:
    """What the file does not hold cannot be multiplied now."""
    for value in (w, bias, *(match[name] for name in ("scale", "shift", "mean", "variance"))):
        if value is not None and value.constant is None:
            return f"{value!r} is computed or fed"
    return None


@conv_then_norm.replace
def _(b: ig.Builder, x: ig.Value, w: ig.Value, bias: ig.Value | None, conv: ig.Node, root: ig.Node) -> ig.Value:
    scale, shift, mean, variance = (root.operand(k).constant.astype(np.float64) for k in range(1, 5))
    factor = scale / np.sqrt(variance + root.attr("epsilon"))
    before = 0.0 if bias is None else bias.constant.astype(np.float64)
    weight = w.constant * factor.reshape(-1, *[1] * (w.rank - 1))
    folded = {f"{w.name}_folded": weight, f"{root.name}_folded": (before - mean) * factor + shift}
    constants = [
        b.graph.add_constant(array.astype(w.dtype), b.graph.fresh_name(name), parameter=True)
        for name, array in folded.items()
    ]
    return b.op("Conv", x, *constants, **conv.attrs)


@dataclass(frozen=True)
class FoldBatchNorm(ig.Pass):
    """For inference only: afterwards there are no statistics that training could move."""

    name: ClassVar[str] = "fold_batch_norm"

    def run(self, graph: ig.Graph) -> bool:
        changed = rewrite(graph, [conv_then_norm]).changed
        if changed:
            for value in [v for v in graph.constants if not v.users and not v.is_output]:
                graph.erase(value)
        return changed


graph = ig.load(bundled_model("resnet50"))
image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
feeds = dict.fromkeys(graph.inputs, image)
for name, array in plausible_parameters(graph, feeds).items():  # the bundled file ships without its weights
    graph.set_constant(graph.value(name), array)

folded = ig.apply(graph, [FoldBatchNorm()])
ig.verify(folded, types=True)
assert_same_results(graph, folded, feeds, rtol=1e-3)
assert not any(node.op.name == "BatchNormalization" for node in folded.nodes())

diff = ig.diff_graphs(graph, folded)
print(f"{len(graph)} nodes before, {len(folded)} after, {len(diff.removed)} of them gone, {diff.same} untouched")
print(f"{len(graph.parameters)} parameters before, {len(folded.parameters)} after; results are the same")
