"""Swap the loss in a finished joint graph: the head goes, forward and backward, and all other backward nodes stay.

The seam is the cotangent of the prediction. Whatever the loss, the rest of the backward pass is a function of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.errors import PassError
from irgrad.plausible import plausible_feeds, plausible_parameters
from irgrad.testing import assert_same_results


@dataclass(frozen=True)
class ReplaceLoss(ig.Pass):
    """Put another loss in the place of the one that a joint graph was made with.

    Attributes:
        prediction: what the losses are of; its gradient must be one of the graph's.
        kind: the new loss, by the name that the pass `loss` knows it by.
    """

    name: ClassVar[str] = "replace_loss"
    prediction: str
    kind: str

    def requires(self, graph: ig.Graph) -> None:
        if self.prediction not in graph.gradients:
            raise PassError(f"the graph has no gradient of {self.prediction!r}; add it to wrt when you differentiate")

    def run(self, graph: ig.Graph) -> bool:
        gradient = graph.gradients[self.prediction]
        outputs, gradients, target = graph.outputs, graph.gradients, graph.inputs["target"]
        seam = outputs[gradient]
        graph.rename(seam, graph.fresh_name("old_seam"))
        graph.rename(target, graph.fresh_name("old_target"))
        graph.rename(outputs["loss"], graph.fresh_name("old_loss"))
        graph.set_outputs({name: value for name, value in outputs.items() if name not in (gradient, "loss")})

        head = f'loss{{kind={self.kind},output="{self.prediction}"}},grad{{wrt=["{self.prediction}"],output=loss}}'
        ig.Pipeline(head).run(graph)
        graph.replace_all_uses(seam, graph.outputs[gradient])
        new = graph.outputs
        graph.set_outputs({name: new[name] for name in outputs})  # in the order in which they were
        graph.gradients.update(gradients)
        ig.Pipeline("dce").run(graph)
        graph.erase(target)
        return True


graph = ig.load(bundled_model("squeezenet"))
(softmax,) = (node for node in graph.nodes() if node.op.name == "Softmax")
logits = softmax.operand(0).name


def joint_graph(kind: str) -> ig.Graph:
    """The model with a loss on its logits, and the gradients by all parameters and by the logits."""
    with_loss = ig.apply(graph, f'loss{{kind={kind},output="{logits}"}}')
    return ig.grad(with_loss, [*graph.parameters, logits], output="loss")


joint = joint_graph("cross_entropy")
swapped = ig.apply(joint, [ReplaceLoss(logits, "mse")])
ig.verify(swapped, types=True)

diff = ig.diff_graphs(joint, swapped)
print(f"{len(joint)} nodes before: {diff.same} stay as they are, {len(diff.removed)} go")
print("new:", *(f"  {node}" for node in diff.added), sep="\n")

feeds = plausible_feeds(swapped)
feeds |= plausible_parameters(graph, {name: feeds[name] for name in graph.inputs})
assert_same_results(joint_graph("mse"), swapped, feeds, rtol=1e-4, atol=1e-9)
print("the results are those of a joint graph that was made with the new loss")
