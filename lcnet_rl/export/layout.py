"""How feature maps lie in memory, and so which operators compute on them.

``Layout`` uses the operators of the ONNX standard and runs anywhere. ONNX Runtime's CPU kernels work on channels in
blocks of 16 or 8, though: they convert at the border of every branch, and lose the fusion of convolution, addition and
ReLU there. ``Blocked`` names those kernels' own operators, so features stay in blocks from the stem to the head; such a
file is for ONNX Runtime on CPUs with that block size only.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lcnet_rl.backbones import PaddedShortcut
from lcnet_rl.errors import UserError
from lcnet_rl.export.builder import Graph

BLOCKED_DOMAIN = "com.microsoft.nchwc"


class Layout:
    """Features are (1, C, H, W), as the ONNX standard has them.

    Every method adds nodes to a graph and returns the name of the result.
    """

    name = "standard"
    channel_axis = 1
    """Of what ``per_channel`` gives."""

    def padded(self, filters: int) -> int:
        """How many filters a convolution with ``filters`` of them really has; the further ones are 0."""
        return filters

    def stem(self, graph: Graph, images: str, weight: Tensor, bias: Tensor) -> str:
        """ReLU of a convolution on normalised images (1, 3, H, W)."""
        return self.conv(graph, images, weight, bias, 1, relu=True)

    def max_pool(self, graph: Graph, x: str, side: int) -> str:
        """Max-pooling over squares of ``side`` pixels that do not overlap."""
        return graph.op("MaxPool", x, **_window(side))

    def conv(self, graph: Graph, x: str, weight: Tensor, bias: Tensor, stride: int, relu: bool) -> str:
        """A convolution (O, I, k, k) with bias, padded so that it keeps the size, but for its stride."""
        y = graph.op("Conv", x, graph.constant(weight), graph.constant(bias), **_geometry(weight, stride))
        return graph.op("Relu", y) if relu else y

    def per_channel(self, graph: Graph, row: str, channels: int) -> str:
        """A row (1, channels), in the shape in which ``scale`` takes one factor a channel."""
        return graph.op("Reshape", row, graph.constant([1, channels, 1, 1]))

    def scale(self, graph: Graph, x: str, scales: str, channels: int) -> str:
        """Multiply ``channels`` channels by ``scales``, a factor each."""
        return graph.op("Mul", x, scales)

    def shift(self, graph: Graph, x: str, bias: Tensor, factor: str | None) -> str:
        """Add ``factor * bias`` to the channels; ``factor`` is one number, or None for 1."""
        shift = graph.constant(bias.reshape(1, -1, 1, 1))
        return graph.op("Add", x, shift if factor is None else graph.op("Mul", shift, factor))

    def add_conv(self, graph: Graph, x: str, hidden: str, weight: Tensor) -> str:
        """``x + conv(hidden)``, without bias."""
        return graph.op("Add", x, graph.op("Conv", hidden, graph.constant(weight), **_geometry(weight, 1)))

    def finish(
        self, graph: Graph, x: str, hidden: str, weight: Tensor, bias: Tensor, scales: str | None, factor: str | None
    ) -> str:
        """A block's end, ``ReLU(x + S_L * (conv2(S_C * hidden) + bias))``.

        Args:
            graph: gets the nodes.
            x: the shortcut's output.
            hidden: the first convolution's output, after ReLU.
            weight: of the second convolution, (O, filters, k, k).
            bias: of the second convolution, (O,).
            scales: S_C, a factor for each filter, padding included, or None for ones.
            factor: S_L, one number, or None for 1.
        """
        if scales is not None:
            hidden = self.scale(graph, hidden, scales, weight.shape[1])
        y = self.conv(graph, hidden, weight, bias, 1, relu=False)
        return graph.op("Relu", graph.op("Add", x, y if factor is None else graph.op("Mul", y, factor)))

    def shortcut(self, graph: Graph, x: str, shortcut: PaddedShortcut, channels: int) -> str:
        """The shortcut without parameters, from ``channels`` channels."""
        slices = ([0, 0], [2**31, 2**31], [2, 3], [shortcut.stride] * 2)
        x = graph.op("Slice", x, *map(graph.constant, slices))
        return graph.op("Pad", x, graph.constant([0, shortcut.padding, 0, 0] * 2), graph.constant(0.0))

    def pool(self, graph: Graph, x: str) -> str:
        """Global average, (1, C, H, W) to (1, C)."""
        return graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)


class Blocked(Layout):
    """Features are (1, C / size, H, W, size) in memory, and the operators ONNX Runtime's own.

    Scaling channels is a depthwise 1x1 convolution whose weights are the scales. L-Net's scale goes into them and into
    the second convolution's bias, so a block costs one pass over its features besides its two convolutions.
    """

    def __init__(self, size: int) -> None:
        """Channels in blocks of ``size``, which has to be the machine's: see ``session.blocked_size``."""
        self.size, self.channel_axis = size, 0
        self.name = f"blocked{size}"

    def padded(self, filters: int) -> int:
        return -(-filters // self.size) * self.size

    def stem(self, graph: Graph, images: str, weight: Tensor, bias: Tensor) -> str:
        self._check(weight.shape[0])
        packed = weight.unflatten(0, (-1, self.size)).permute(0, 2, 3, 4, 1).reshape(weight.shape)
        inputs = images, graph.constant(packed), graph.constant(bias)
        return self._op(graph, "Conv", *inputs, **_geometry(weight, 1), activation="Relu")

    def max_pool(self, graph: Graph, x: str, side: int) -> str:
        return self._op(graph, "MaxPool", x, **_window(side))

    def conv(self, graph: Graph, x: str, weight: Tensor, bias: Tensor, stride: int, relu: bool) -> str:
        missing = self.padded(len(weight)) - len(weight)
        weight, bias = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(bias, (0, missing))
        activation = {"activation": "Relu"} if relu else {}
        inputs = x, self._packed(graph, weight), graph.constant(bias)
        return self._op(graph, "Conv", *inputs, **_geometry(weight, stride), **activation)

    def per_channel(self, graph: Graph, row: str, channels: int) -> str:
        return graph.op("Reshape", row, graph.constant([channels, 1, 1, 1]))

    def scale(self, graph: Graph, x: str, scales: str, channels: int) -> str:
        return self._op(graph, "Conv", x, scales, kernel_shape=[1, 1], group=channels)

    def shift(self, graph: Graph, x: str, bias: Tensor, factor: str | None) -> str:
        inputs = x, graph.constant(bias.new_ones(len(bias), 1, 1, 1)), self._bias(graph, bias, factor)
        return self._op(graph, "Conv", *inputs, kernel_shape=[1, 1], group=len(bias))

    def add_conv(self, graph: Graph, x: str, hidden: str, weight: Tensor) -> str:
        weight = self._fill(weight)
        return self._op(graph, "Conv", hidden, self._packed(graph, weight), "", x, **_geometry(weight, 1))

    def finish(
        self, graph: Graph, x: str, hidden: str, weight: Tensor, bias: Tensor, scales: str | None, factor: str | None
    ) -> str:
        weight = self._fill(weight)
        if factor is not None:
            scales = graph.op("Mul", scales or graph.constant(weight.new_ones(weight.shape[1], 1, 1, 1)), factor)
        if scales is not None:
            hidden = self.scale(graph, hidden, scales, weight.shape[1])
        inputs = hidden, self._packed(graph, weight), self._bias(graph, bias, factor), x
        return self._op(graph, "Conv", *inputs, **_geometry(weight, 1), activation="Relu")

    def shortcut(self, graph: Graph, x: str, shortcut: PaddedShortcut, channels: int) -> str:
        plain = self._op(graph, "ReorderOutput", x, channels=channels)
        return self._op(graph, "ReorderInput", super().shortcut(graph, plain, shortcut, channels))

    def pool(self, graph: Graph, x: str) -> str:
        return graph.op("Flatten", self._op(graph, "GlobalAveragePool", x), axis=1)

    def _op(self, graph: Graph, kind: str, *inputs: str, **attributes: Any) -> str:
        return graph.op(kind, *inputs, domain=BLOCKED_DOMAIN, **attributes)

    def _bias(self, graph: Graph, bias: Tensor, factor: str | None) -> str:
        name = graph.constant(bias)
        return name if factor is None else graph.op("Mul", name, graph.op("Reshape", factor, graph.constant([1])))

    def _fill(self, weight: Tensor) -> Tensor:
        """Add inputs of 0 for the filters that padding added."""
        filters = weight.shape[1]
        return F.pad(weight, (0, 0, 0, 0, 0, self.padded(filters) - filters))

    def _packed(self, graph: Graph, weight: Tensor) -> str:
        """(O, I, k, k), laid out as (O / size, I / size, k, k, I's size, O's size)."""
        self._check(weight.shape[0])
        self._check(weight.shape[1])
        blocks = weight.unflatten(1, (-1, self.size)).unflatten(0, (-1, self.size))
        return graph.constant(blocks.permute(0, 2, 4, 5, 3, 1).reshape(weight.shape))

    def _check(self, channels: int) -> None:
        if channels % self.size:
            raise UserError(
                f"the blocked layout needs channels in multiples of {self.size}, and this network has {channels}; "
                "use --layout standard"
            )


def _window(side: int) -> dict[str, Any]:
    """The attributes of pooling over squares that do not overlap, which the size is a multiple of."""
    return {"kernel_shape": [side, side], "strides": [side, side]}


def _geometry(weight: Tensor, stride: int) -> dict[str, Any]:
    """The attributes of a convolution that keeps the size, but for its stride."""
    kernel = list(weight.shape[2:])
    return {"kernel_shape": kernel, "pads": [side // 2 for side in kernel] * 2, "strides": [stride] * 2}
