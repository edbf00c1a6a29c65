"""Skipping, timed against what a user would run instead: the dense network in PyTorch and in ONNX Runtime."""
