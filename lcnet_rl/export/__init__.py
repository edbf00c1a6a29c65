"""A trained network as one ONNX file that skips what it drops, and running such a file in ONNX Runtime.

Part of the library: imports models and engine, and is imported by the benchmark and by commands.
"""

from lcnet_rl.export.agreement import Agreement, compare
from lcnet_rl.export.network import dense_model, dynamic_model
from lcnet_rl.export.session import OnnxNetwork, blocked_size, layouts_here, open_session

__all__ = [
    "Agreement",
    "OnnxNetwork",
    "blocked_size",
    "compare",
    "dense_model",
    "dynamic_model",
    "layouts_here",
    "open_session",
]
