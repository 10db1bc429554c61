"""Cases of irgrad/ops/ml.py."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import Case, rng

X = rng(0).standard_normal((3, 4))
TREE = {
    "n_targets": 2,
    "aggregate_function": 1,
    "post_transform": 0,
    "tree_roots": (0,),
    "nodes_featureids": (0, 0, 0),
    "nodes_splits": np.array([0.5, -0.2, 1.2]),
    "nodes_modes": np.array([0, 0, 0], np.uint8),
    "nodes_truenodeids": (1, 0, 1),
    "nodes_trueleafs": (0, 1, 1),
    "nodes_falsenodeids": (2, 2, 3),
    "nodes_falseleafs": (0, 1, 1),
    "leaf_targetids": (0, 1, 0, 1),
    "leaf_weights": np.array([5.23, 12.12, -12.23, 7.21]),
}
KEYS = {"keys_tensor": np.array([1, 2, 3]), "values_tensor": np.array([0.5, 1.5, 2.5]), "default_tensor": np.array([-1.0])}

CASES = [
    Case("ai.onnx.ml.Binarizer", [X], order=1),
    Case("ai.onnx.ml.Binarizer", [X], {"threshold": 0.3}, order=1, id="threshold"),
    Case("ai.onnx.ml.Binarizer", [np.array([3, -1, 0])], order=0, id="integers"),
    Case("ai.onnx.ml.TreeEnsemble", [X[:, :2]], TREE, order=1),
    Case("ai.onnx.ml.LabelEncoder", [np.array([[1, 3], [2, 9]])], KEYS, order=0),
    Case("ai.onnx.ml.ArrayFeatureExtractor", [X, np.array([[2, 0, 2]])]),
    Case("ai.onnx.ml.ArrayFeatureExtractor", [X[0], np.array([1, 3])], id="vector"),
    Case("ai.onnx.ml.ArrayFeatureExtractor", [X.reshape(1, 3, 4), np.array([1])], id="rank-3"),
]
