"""The published U-Net (one branch) as a torch module.

Mahbod et al., "CryoNuSeg / dual-decoder" code, used for pruning in Mahbod et al., AMAI 2022:
channels 16-32-64-128-256, two same-padded 3x3 convolutions + ReLU a level, 2x2 max-pooling,
2x2 stride-2 transposed convolutions without activation, skips by concatenation (up-sampled first),
a 1x1 head, no normalisation. 1,941,105 parameters a branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import widths_of

WIDTHS = (16, 32, 64, 128, 256)


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with ReLU, dropout between."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        x = F.relu(self.conv1(x), inplace=True)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return F.relu(self.conv2(x), inplace=True)


class UNet(nn.Module):
    """One branch.

    Parameters
    ----------
    widths
        Channels of each level, from the full resolution down.
    dropout
        Dropout probability of the deepest level while training; shallower levels get less.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, dropout: float = 0.0) -> None:
        super().__init__()
        widths = tuple(widths)
        depth = len(widths)
        rates = [dropout * (i + 1) / depth for i in range(depth)]
        inputs = (3, *widths[:-1])
        self.encoder = nn.ModuleList(
            [DoubleConv(i, o, r) for i, o, r in zip(inputs, widths, rates, strict=True)]
        )
        up = list(zip(widths[:0:-1], widths[-2::-1], rates[-2::-1], strict=True))
        self.up = nn.ModuleList([nn.ConvTranspose2d(i, o, 2, stride=2) for i, o, _ in up])
        self.decoder = nn.ModuleList([DoubleConv(2 * o, o, r) for _, o, r in up])
        self.head = nn.Conv2d(widths[0], 1, 1)
        self.factor = 2 ** (depth - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the branch.

        Parameters
        ----------
        x
            (N, 3, H, W) float32, RGB in 0..255; H and W multiples of ``factor`` (16).

        Returns
        -------
        Tensor
            (N, 1, H, W): logits (semantic) or distances (distance), no activation.
        """
        x = x / 255.0
        skips = []
        for block in self.encoder[:-1]:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)


def initialise(net: UNet) -> None:
    """Draw the weights for ReLU without normalisation (He et al. 2015), biases zero.

    torch's own default shrinks the signal at every layer: at the deepest level nothing is left of
    it, and the deep channels die in training.
    """
    for module in net.modules():
        if isinstance(module, nn.ConvTranspose2d):
            # No activation follows, and stride 2 leaves one tap an output pixel.
            nn.init.normal_(module.weight, 0.0, module.in_channels**-0.5)
        elif isinstance(module, nn.Conv2d):
            gain = 1.0 if module is net.head else 2.0
            nn.init.normal_(module.weight, 0.0, (gain / module.weight[0].numel()) ** 0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(weights: Mapping[str, np.ndarray]) -> UNet:
    """Return the module that a branch's weights (name to float32 array) describe, in eval mode."""
    net = UNet(widths_of(weights))
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    return net.eval().requires_grad_(False)
