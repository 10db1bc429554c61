"""Which pixels matter: the gradient of one class score by the image, on a real network that ships with onnx."""

import numpy as np

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.plausible import plausible_parameters

graph = ig.load(bundled_model("squeezenet"))
(image_name,) = graph.inputs
(score_name,) = graph.outputs

# The bundled file has every weight at 0.02; random ones make the network tell pixels apart.
image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
weights = plausible_parameters(graph, {image_name: image}, seed=1)

joint = ig.vjp(graph, wrt=[image_name])
run = ig.compile(joint)

scores = ig.compile(graph)({image_name: image, **weights})[score_name]
best = int(scores.reshape(-1).argmax())
one_class = np.zeros_like(scores)
one_class.reshape(-1)[best] = 1

gradient = run({image_name: image, **weights, f"{score_name}_cotangent": one_class})[f"{image_name}_grad"]
saliency = np.abs(gradient).max(axis=1)[0]
row, column = np.unravel_index(saliency.argmax(), saliency.shape)
print(f"class {best}: {len(graph)} forward nodes, {len(joint)} in the joint graph")
print(f"the pixel that matters most is at row {row}, column {column}; |gradient| {saliency.max():.3g}")
