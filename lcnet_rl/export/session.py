"""Running exported files in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, NotImplemented
from torch import Tensor

from lcnet_rl.backbones import Backbone, check_images
from lcnet_rl.errors import UserError
from lcnet_rl.export.layout import BLOCKED_DOMAIN, Blocked, Layout
from lcnet_rl.export.network import FORMAT
from lcnet_rl.rewards.price import check_price
from lcnet_rl.state import Outcome

THRESHOLDS = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg
"""The smallest and the largest one that float32 tells from 0 and 1."""


def open_session(model: onnx.ModelProto | bytes | Path) -> ort.InferenceSession:
    """A CPU session of ONNX Runtime for a model, its bytes or its file, with as many threads as PyTorch uses."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait busily for the next image would slow whatever else runs meanwhile.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def blocked_size() -> int:
    """How many channels a block of ONNX Runtime's kernels has on this machine: 16, 8, or 1 without blocks."""
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED_DOMAIN)
    # With two pixels, the second pixel's first channel comes right after the first pixel's block.
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64, 1, 2]) for name in "xy"]
    graph = helper.make_graph([node], "probe", infos[:1], infos[1:])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
    try:
        session = open_session(helper.make_model(graph, opset_imports=domains, ir_version=10))
    except (NotImplemented, Fail):
        return 1
    x = np.zeros((1, 64, 1, 2), np.float32)
    x[0, 0, 0, 1] = 1
    return int(session.run(None, {"x": x})[0].argmax())


def layouts_here(backbone: Backbone) -> list[Layout]:
    """The layouts in which this machine can run ``backbone``: the standard one, and that of its kernels if it fits."""
    size = blocked_size()
    fits = all(channels % size == 0 for network in backbone.networks for channels in network.feature_channels())
    return [Layout(), Blocked(size)] if size > 1 and fits else [Layout()]


class OnnxNetwork:
    """An exported network, one image at a time."""

    def __init__(self, path: Path | str) -> None:
        """Load a file of ``lcnet-rl export``.

        Raises:
            UserError: when it is no such file, of another version, or not for this machine.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no file at {path}")
        try:
            model = onnx.load(path, format="protobuf", load_external_data=False)  # by its name it might be text
            metadata = {entry.key: entry.value for entry in model.metadata_props}
        except DecodeError as error:
            raise UserError(f"{path} is damaged (cut short?) or no ONNX file") from error
        self.decides = "model" in metadata
        if not (self.decides or "backbone" in metadata) or "layout" not in metadata:
            raise UserError(f"{path} was not written by lcnet-rl export")
        if metadata.get("format") != FORMAT:
            raise UserError(f"{path} has format {metadata.get('format')}, this version reads {FORMAT}: export it again")
        self.layout, self.dense_macs = metadata["layout"], int(metadata["dense_macs"])
        if self.layout != Layout.name and self.layout != f"blocked{blocked_size()}":
            raise UserError(f"{path} is laid out for another processor ({self.layout}): export it here, or as standard")
        try:
            self.session = open_session(path)
        except Exception as error:  # ONNX Runtime raises a different type for each way in which a file can be wrong
            reason = str(error).splitlines()[0]
            here = f"ONNX Runtime {ort.__version__}"
            raise UserError(f"{path} does not run in {here} (is it damaged, or of a newer ONNX?): {reason}") from error

    def run(self, images: Tensor, threshold: float | None = None, price: float | None = None) -> Outcome:
        """Classify images, one after the other; of a network that decides nothing, there are no rows of decisions.

        Args:
            images: uint8, (B, 3, 32, 32), at least one.
            threshold: in (0, 1), that a keep probability must exceed; None is 0.5. The file takes it as float32, so
                above 1 - 2^-24 (a keep logit of 16.6) it is that.
            price: that the gates read; None is the one stored in the file.

        Raises:
            UserError: for images that are no tensor of that type and shape, a threshold outside (0, 1), what is no
                price, or either for a network that decides nothing.
        """
        check_images(images, least=1)
        if not self.decides and (threshold, price) != (None, None):
            raise UserError("this file's network decides nothing: leave threshold and price out")
        if threshold is not None and not 0 < threshold < 1:
            raise UserError(f"a threshold is in (0, 1), got {threshold}")
        if price is not None:
            check_price(price)
        given = {"threshold": threshold and float(np.clip(threshold, *THRESHOLDS)), "price": price}
        feeds = {name: np.full((1, 1), value, np.float32) for name, value in given.items() if value is not None}
        parts = [self.session.run(None, {"image": image[None], **feeds}) for image in images.cpu().numpy()]
        outputs = [torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True)]
        if not self.decides:
            return undecided(outputs[0][:, 0], self.dense_macs)
        logits, macs, decisions = outputs
        return Outcome(logits[:, 0], decisions.float().transpose(0, 1), macs[:, 0, 0])


def undecided(logits: Tensor, macs: int) -> Outcome:
    """What a network without gates makes of images: logits (B, classes), each at so many MACs."""
    return Outcome(logits, torch.zeros(0, len(logits), 0), torch.full((len(logits),), macs, dtype=torch.float64))
