"""The models in PyTorch: each takes its inputs and targets and returns the loss of a training step."""
