"""Skipping, timed against what a user would run instead: the dense network in PyTorch and in ONNX Runtime.

Imports models, engine and export; only commands import it.
"""
