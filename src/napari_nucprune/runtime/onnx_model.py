"""A branch as an ONNX model, written from its plain layers (wants the package onnx)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoint.architecture import HEAD, widths_of
from ..checkpoint.format import Weights

#: Of the operators; old enough for every runtime that is asked for.
OPSET, IR = 17, 8


def onnx_model(weights: Weights) -> bytes:
    """Return the model: input ``x`` (1, 3, H, W) float32 in 0..255, output ``y`` (1, 1, H, W).

    H and W are any multiples of the pooling grid; no activation follows the head.

    Raises
    ------
    ImportError
        Where onnx is not installed.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    depth = len(widths_of(weights))
    nodes: list[Any] = []
    constants = [numpy_helper.from_array(np.array(255, np.float32), "scale")]
    constants += [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()]

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}.{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(x: str, layer: str, kind: str = "Conv", **attributes: Any) -> str:
        return node(kind, x, f"{layer}.weight", f"{layer}.bias", **attributes)

    def double(x: str, block: str) -> str:
        for number in (1, 2):
            layer = f"{block}.conv{number}"
            pad = weights[f"{layer}.weight"].shape[-1] // 2
            x = node("Relu", conv(x, layer, pads=4 * [pad]))
        return x

    x = node("Div", "x", "scale")
    skips = []
    for level in range(depth):
        x = double(x, f"encoder.{level}")
        if level < depth - 1:
            skips.append(x)
            x = node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    for i in range(depth - 1):
        up = conv(x, f"up.{i}", "ConvTranspose", strides=[2, 2])
        x = double(node("Concat", up, skips.pop(), axis=1), f"decoder.{i}")
    last = conv(x, HEAD)
    nodes[-1].output[0] = "y"
    assert last != "y"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "H", "W"])
        for name, channels in (("x", 3), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "branch", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR)
    checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found
