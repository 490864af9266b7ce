"""A foreign file's convolutions, and which of ours they are where their order says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .architecture import Layer, layers

Tensors = Mapping[str, NDArray[np.float32]]
#: Kernel sizes of convolutions, up-convolutions and the head.
KINDS = {(3, 3): "3x3 convolutions", (2, 2): "2x2 up-convolutions", (1, 1): "1x1 heads"}


@dataclass(frozen=True)
class Kernel:
    """A foreign convolution.

    Attributes
    ----------
    key
        Its kernel's name in the file.
    weight, bias
        In torch's layout (`architecture.Layer`); a missing bias is zeros.
    """

    key: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def kernels(tensors: Tensors, file: str) -> list[Kernel]:
    """Pair each kernel with its bias.

    Raises
    ------
    InputError
        Where an array belongs to no convolution.
    """
    found = []
    left = dict(tensors)
    for key, weight in tensors.items():
        if weight.ndim != 4:
            continue
        del left[key]
        module = stem(key)
        bias = next((k for k in left if stem(k) == module and left[k].ndim == 1), None)
        outputs = weight.shape[1] if weight.shape[2:] == (2, 2) else weight.shape[0]
        values = left.pop(bias) if module and bias else np.zeros(outputs, np.float32)
        found.append(Kernel(key, weight, values))
    if left:
        name, array = next(iter(left.items()))
        raise InputError(
            f"{file} holds {name!r} of shape {array.shape}, which belongs to no convolution (batch "
            "normalisation?); only the published U-Net without normalisation can be run."
        )
    return found


def matched(found: list[Kernel], file: str) -> dict[str, NDArray[np.float32]]:
    """Map a file's convolutions to one branch, where their order fits exactly.

    Returns
    -------
    dict
        Our tensor names to float32 arrays.

    Raises
    ------
    InputError
        Says what does not fit, and that a map file can tell.
    """
    by_kind: dict[Any, list[Kernel]] = {kind: [] for kind in KINDS}
    for kernel in found:
        if kernel.weight.shape[2:] not in by_kind:
            raise unmapped(file, f"{kernel.key} is {kernel.weight.shape}")
        by_kind[kernel.weight.shape[2:]].append(kernel)
    count = len(by_kind[(2, 2)]) + 1
    numbers = tuple(len(found) for found in by_kind.values())
    if not 2 <= count <= 8 or numbers != (4 * count - 2, count - 1, 1):
        text = ", ".join(f"{n} {name}" for n, name in zip(numbers, KINDS.values(), strict=True))
        raise unmapped(file, f"it has {text}; the published branch has 18, 4 and 1")
    widths = [k.weight.shape[0] for k in by_kind[(3, 3)][: 2 * count : 2]]
    weights: dict[str, NDArray[np.float32]] = {}
    for layer in layers(widths):
        kernel = by_kind[layer.shape[2:]].pop(0)
        put(weights, layer, kernel, file)
    return weights


def put(weights: dict[str, NDArray[np.float32]], layer: Layer, kernel: Kernel, file: str) -> None:
    """Take a kernel as a layer of ours.

    Raises
    ------
    InputError
        Where its shape is another.
    """
    if kernel.weight.shape != layer.shape or kernel.bias.shape != (layer.outputs,):
        raise unmapped(
            file,
            f"{kernel.key} is {kernel.weight.shape} where {layer.name} is {layer.shape}",
        )
    weights[f"{layer.name}.weight"] = np.ascontiguousarray(kernel.weight, np.float32)
    weights[f"{layer.name}.bias"] = np.ascontiguousarray(kernel.bias, np.float32)


def unmapped(file: str, why: str) -> InputError:
    """Return the sentence for a file whose order is not ours."""
    return InputError(
        f"{file} is not in the order of the published U-Net ({why}); if it is that network, say "
        "which is which with --map FILE of nucprune convert (--keys lists its names)."
    )


def stem(key: str) -> str:
    """Return the module's part of an array's name: ``down.0.`` of ``down.0.weight``."""
    return key[: len(key) - len(key.replace("/", ".").rsplit(".", 1)[-1])]
