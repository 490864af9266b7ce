"""The published U-Net's layers as plain data: shapes, levels, forward order (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

HEAD = "head"


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes
    ----------
    name
        Module name; its tensors are ``name.weight`` and ``name.bias``.
    shape
        Of the weight: (out, in, k, k), or (in, out, 2, 2) for transposed convolutions.
    outputs
        Number of output channels, the length of the bias.
    positions
        How often each weight is used, a pixel of the input image.
    """

    name: str
    shape: tuple[int, int, int, int]
    outputs: int
    positions: float

    @property
    def size(self) -> int:
        """Number of weights, biases not counted."""
        return prod(self.shape)


def layers(widths: Sequence[int]) -> list[Layer]:
    """Return the convolutions of a branch in forward order."""
    found = []

    def conv(name: str, inputs: int, outputs: int, kernel: int, level: int) -> None:
        shape = (outputs, inputs, kernel, kernel)
        found.append(Layer(name, shape, outputs, 0.25**level))

    inputs = 3
    for level, width in enumerate(widths):
        conv(f"encoder.{level}.conv1", inputs, width, 3, level)
        conv(f"encoder.{level}.conv2", width, width, 3, level)
        inputs = width
    for i, level in enumerate(reversed(range(len(widths) - 1))):
        width, below = widths[level], widths[level + 1]
        found.append(Layer(f"up.{i}", (below, width, 2, 2), width, 0.25 ** (level + 1)))
        conv(f"decoder.{i}.conv1", 2 * width, width, 3, level)
        conv(f"decoder.{i}.conv2", width, width, 3, level)
    conv(HEAD, widths[0], 1, 1, 0)
    return found


def widths_of(weights: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the channels of each level from the shapes of a branch's tensors."""
    widths: list[int] = []
    while (name := f"encoder.{len(widths)}.conv1.weight") in weights:
        shape = weights[name].shape
        if len(shape) != 4:
            return ()
        widths.append(int(shape[0]))
    return tuple(widths)


def expected_shapes(widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a branch by name, in forward order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(widths):
        shapes[f"{layer.name}.weight"] = layer.shape
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
    return shapes
