"""ONNX graphs, written node by node, with branches as Python functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

FLOAT, DOUBLE, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL
Type = tuple[int, Sequence[int] | None]
"""An ONNX element type and a shape."""


class Graph:
    """An ONNX graph under construction; values are known by their names, which are unique in the whole model.

    Constants stay in the graph whose node uses them, for ONNX Runtime lays out a convolution's weights only there.
    """

    def __init__(self, name: str, numbers: Iterator[int] | None = None, written: onnx.GraphProto | None = None) -> None:
        """Begin a graph; a branch shares its model's ``numbers``, and is ``written`` right into its node: a copy at
        every level of branches would take longer than all else, as weights lie in the innermost ones."""
        self._written = onnx.GraphProto() if written is None else written
        self._written.name = name
        self._numbers = itertools.count() if numbers is None else numbers

    def constant(self, value: Tensor | np.ndarray | Sequence[int] | float, name: str | None = None) -> str:
        """A constant; tensors and arrays keep their type, integers become int64 and numbers float32."""
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous().numpy()
        elif isinstance(value, float):
            array = np.array(value, np.float32)
        else:
            array = np.asarray(value)
        name = name or f"constant_{next(self._numbers)}"
        stored = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self._written.initializer.append(stored)
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", name: str | None = None, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        return self.ops(kind, *inputs, domain=domain, outputs=1, name=name, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", name: str | None = None, **attributes: Any
    ) -> list[str]:
        """A node with several outputs, whose names are returned."""
        number = next(self._numbers)
        names = [name or f"{kind.lower()}_{number}_{index}" for index in range(outputs)]
        node = helper.make_node(kind, inputs, names, f"{kind}_{number}", domain=domain, **attributes)
        self._written.node.append(node)
        return names

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """``x`` in parts of these sizes along an axis."""
        return self.ops("Split", x, self.constant(list(sizes)), outputs=len(sizes), axis=axis) if sizes[1:] else [x]

    def branch(
        self,
        condition: str,
        then: Callable[[Graph], Sequence[str]],
        otherwise: Callable[[Graph], Sequence[str]],
        types: Sequence[Type],
    ) -> list[str]:
        """ONNX's ``If``: only one of two functions runs.

        Args:
            condition: a boolean with one element.
            then: adds its nodes to the graph that it is given, and returns its results; it may use outer values.
            otherwise: the same, if the condition is false.
            types: of the results.
        """
        names = self.ops("If", condition, outputs=len(types))
        node = self._written.node[-1]
        for name, body in (("then_branch", then), ("else_branch", otherwise)):
            attribute = node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            graph = Graph(f"branch_{next(self._numbers)}", self._numbers, attribute.g)
            graph.build([], list(zip(body(graph), types, strict=True)))
        return names

    def build(
        self, inputs: Sequence[tuple[str, Type]], outputs: Sequence[tuple[str, Type]], doc: str = ""
    ) -> onnx.GraphProto:
        """The finished graph."""
        for side, infos in ((inputs, self._written.input), (outputs, self._written.output)):
            infos.extend(helper.make_tensor_value_info(name, *kind) for name, kind in side)
        if doc:
            self._written.doc_string = doc
        return self._written
