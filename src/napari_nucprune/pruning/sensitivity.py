"""What an error in a layer's responses does to the branch's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint.unet import UNet
from ..doors import Branch, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled
from .responses import Conv, convolutions, flat

#: Crops that go through the network at once: the backward pass keeps all activations.
BATCH = 4


@dataclass(frozen=True)
class Sensitivity:
    """Of one layer.

    Attributes
    ----------
    rows
        (R,) float32, rows as of `rows_of`: root mean square change of the output for an error of
        one in this row.
    places
        (N * H * W,) float32, as `places` counts them: mean square change for an error there.
    """

    rows: Tensor
    places: Tensor


def sensitivities(
    net: UNet,
    crops: Tensor,
    branch: Branch,
    seed: int = 0,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> dict[str, Sensitivity]:
    """Measure every layer's sensitivity by one backward pass.

    Parameters
    ----------
    net
        One branch, dense.
    crops
        (N, 3, H, W), RGB in 0..255.
    branch
        Which it is: what counts of the semantic one is its probability, not the logit.
    seed
        Of the random projection.

    Returns
    -------
    dict
        By layer name.

    Raises
    ------
    Cancelled
        Between batches, where ``should_stop`` says so.

    Notes
    -----
    The diagonal of the Gauss-Newton matrix in a layer's responses, estimated by Hutchinson's
    random signs: with one sign ``v`` for each output pixel, the square of ``d(v . out) / dy`` has
    the mean ``sum((d out / dy)^2)``. The logits are weighted by ``sqrt(p (1 - p))``, as the Hessian
    of the cross-entropy with the dense network's own probabilities is. With the inputs' Gram
    matrix, which Optimal Brain Surgeon's saliency uses, it makes the Kronecker factors of K-FAC
    (Martens & Grosse 2015).
    """
    layers = convolutions(net)
    total: dict[str, Tensor] = {}
    places: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str, module: Conv, gradient: Tensor) -> None:
        squares = flat(gradient.square(), module)
        total[name] = total.get(name, 0) + squares.sum(0)
        places[name].append(squares.mean(1))

    def watch(name: str, module: Conv) -> torch.utils.hooks.RemovableHandle:
        def leave(_: object, __: object, y: Tensor) -> None:
            y.register_hook(lambda gradient: keep(name, module, gradient))

        return module.register_forward_hook(leave)

    hooks = [watch(name, module) for name, module in layers.items()]
    draw = torch.Generator().manual_seed(seed)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            parts = crops.split(BATCH)
            for done, part in enumerate(parts):
                if should_stop():
                    raise Cancelled("Cancelled.")
                progress(f"Sensitivity of the {branch} branch", done, len(parts))
                # The crops ask for gradients, the weights do not: a third of the work less.
                out = net(part.detach().clone().requires_grad_())
                signs = torch.randint(0, 2, out.shape, generator=draw).to(out) * 2 - 1
                if branch == "semantic":
                    probability = torch.sigmoid(out.detach())
                    signs = signs * (probability * (1 - probability)).sqrt()
                (out * signs).sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: Sensitivity((total[name] / len(crops)).sqrt(), torch.cat(places[name]))
        for name in layers
    }
