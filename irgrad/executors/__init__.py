"""Executors that run a graph elsewhere, by way of the ONNX model that it is written as."""
