"""What a network's layers see and say at sampled places of the calibration crops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checkpoint.architecture import HEAD
from ..checkpoint.unet import UNet

Conv = nn.Conv2d | nn.ConvTranspose2d
#: Part of the places that is drawn without regard to importance.
EVEN = 0.2


def convolutions(net: UNet) -> dict[str, Conv]:
    """Return the convolutions by name."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    }


def rectified(name: str) -> bool:
    """Whether a ReLU follows the layer: all but the transposed convolutions and the head."""
    return not name.startswith(("up.", HEAD))


def places(shape: torch.Size, count: int, seed: int, importance: Tensor | None = None) -> Tensor:
    """Draw places among the N * H * W inputs of a layer, the same for the same arguments.

    Parameters
    ----------
    shape
        (N, C, H, W) of the layer's input.
    count
        How many, at most.
    seed
        Of the draw.
    importance
        (N * H * W,), not negative: how often a place is drawn, relative to the others. A part
        `EVEN` is drawn evenly nonetheless. None draws all evenly.

    Returns
    -------
    Tensor
        Flat indices int64, sorted, none twice; all of them where there are no more than ``count``.
    """
    total = shape[0] * shape[2] * shape[3]
    if total <= count:
        return torch.arange(total)
    draw = torch.Generator().manual_seed(seed)
    jitter = torch.rand(count, generator=draw, dtype=torch.float64)
    if importance is not None and float(importance.sum()) > 0:
        part = importance.double().cpu()
        upto = torch.cumsum((1 - EVEN) * part / part.sum() + EVEN / total, 0)
        # One draw in each of ``count`` stretches of equal importance.
        drawn = torch.searchsorted(upto, (torch.arange(count) + jitter) / count * upto[-1])
        return drawn.clamp_max(total - 1).unique_consecutive()
    # One place in each of ``count`` stretches: no gather reads the same place twice.
    edges = torch.arange(count + 1) * total // count
    return edges[:-1] + (jitter * edges.diff()).long()


def features(x: Tensor, module: Conv, where: Tensor) -> Tensor:
    """Return the inputs that a layer multiplies at each place.

    Parameters
    ----------
    x
        (N, C, H, W) float32.
    module
        A same-padded convolution (1x1 or 3x3), or a 2x2 transposed one of stride 2.
    where
        Flat places.

    Returns
    -------
    Tensor
        (n, C * k * k) in the order of the layer's weights; (n, C) for transposed convolutions.
    """
    height, width = x.shape[2:]
    plane = x.permute(0, 2, 3, 1).contiguous()
    side = 1 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0]
    if side == 1:
        return plane.reshape(-1, x.shape[1])[where]
    flat = plane.reshape(-1, x.shape[1])
    image, rest = where // (height * width), where % (height * width)
    row, column = rest // width, rest % width
    out = x.new_empty(len(where), x.shape[1], side * side)
    for tap in range(side * side):
        y, z = row + tap // side - side // 2, column + tap % side - side // 2
        inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
        at = (image * height + y.clamp(0, height - 1)) * width + z.clamp(0, width - 1)
        out[:, :, tap] = flat[at] * inside[:, None].to(x.dtype)
    return out.flatten(1)


def flat(y: Tensor, module: Conv) -> Tensor:
    """Return a layer's outputs, or anything of their shape, as (places, responses).

    Returns
    -------
    Tensor
        (N * H * W, O), or (N * H * W, O * 4) for transposed convolutions: the four outputs of each
        input place.
    """
    if isinstance(module, nn.ConvTranspose2d):
        batch, channels, height, width = y.shape
        y = y.reshape(batch, channels, height // 2, 2, width // 2, 2)
        return y.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * 4)
    return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])


def outputs(y: Tensor, module: Conv, where: Tensor) -> Tensor:
    """Return a layer's outputs (n, R) at each place, as of `flat`."""
    return flat(y, module)[where]


def rows_of(weight: Tensor, module: Conv) -> Tensor:
    """Return a layer's weights as (responses, features), as `outputs` and `features` order them."""
    if isinstance(module, nn.ConvTranspose2d):
        return weight.permute(1, 2, 3, 0).flatten(0, 2)
    return weight.flatten(1)


def weight_of(rows: Tensor, module: Conv) -> Tensor:
    """Return rows in the layer's own shape: the inverse of `rows_of`."""
    shape = module.weight.shape
    if isinstance(module, nn.ConvTranspose2d):
        return rows.reshape(shape[1], 2, 2, shape[0]).permute(3, 0, 1, 2)
    return rows.reshape(shape)


def watch(
    net: UNet, crops: Tensor, before: Callable[..., None], after: Callable[..., None]
) -> None:
    """Run the network on crops, calling ``before(name, module, x)`` and ``after(name, module, y)``.

    ``before`` may change the module's weights: it runs with the changed ones.
    """
    hooks = []
    for name, module in convolutions(net).items():

        def enter(module: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            before(name, module, inputs[0])

        def leave(module: nn.Module, _: object, y: Tensor, name: str = name) -> None:
            after(name, module, y)

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.inference_mode():
            net(crops)
    finally:
        for hook in hooks:
            hook.remove()
