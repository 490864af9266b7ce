"""The torch runtime: masked dense convolutions on CPU, CUDA or MPS."""

from __future__ import annotations

import numpy as np
import torch

from ..checkpoint.format import Checkpoint, Weights
from ..checkpoint.unet import UNet, build
from ..doors import BRANCHES, Branch, Field, Maps, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, EnvironmentStopped, InputError
from ..pruning.magnitude import Mask
from ..pruning.strategy import Masks
from .base import LARGEST, TILE, cut

__all__ = ["DEVICES", "LARGEST", "TILE", "TorchRuntime", "pick_device"]

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(wanted: str = "auto") -> str:
    """Return a torch device that exists.

    Raises
    ------
    InputError
        Where the wanted one is unknown or missing.
    """
    have = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if wanted == "auto":
        return "cuda" if have["cuda"] else "mps" if have["mps"] else "cpu"
    if wanted not in have:
        raise InputError(f"The device {wanted!r} is not known; choose {', '.join(DEVICES)}.")
    if not have[wanted]:
        raise InputError(f"This computer's torch has no {wanted}; choose cpu or auto.")
    return wanted


class TorchRuntime:
    """Runs both branches with torch; pruned weights are zeros in dense convolutions.

    Parameters
    ----------
    device
        One of `DEVICES`.
    tile
        Side of a tile's core in pixels, a multiple of the pooling grid.
    """

    name = "torch"

    def __init__(self, device: str = "auto", tile: int = TILE) -> None:
        self.device = pick_device(device)
        self.tile = tile
        self._nets: dict[Branch, UNet] = {}
        self._masked: dict[Branch, set[str]] = {}
        self._checkpoint: Checkpoint | None = None

    def load(self, checkpoint: Checkpoint, masks: Masks | None = None) -> None:
        """Take a checkpoint; see `Runtime.load`."""
        if self._checkpoint is None or self._checkpoint.weights is not checkpoint.weights:
            for branch in BRANCHES:
                self._take(branch, checkpoint.weights[branch])
        self._checkpoint = checkpoint
        for branch in BRANCHES:
            self._mask(branch, masks[branch] if masks is not None else {})

    def _take(self, branch: Branch, weights: Weights) -> None:
        net = self._nets.get(branch)
        parameters = {} if net is None else dict(net.named_parameters())
        if {n: tuple(p.shape) for n, p in parameters.items()} == {
            n: a.shape for n, a in weights.items()
        }:
            for name, parameter in parameters.items():
                parameter.copy_(torch.from_numpy(weights[name]))
        else:
            # Contiguous weights: masking them is a plain product, 100 times faster than with
            # channels_last ones, and the convolutions reorder them anyhow.
            self._nets[branch] = build(weights).to(self.device)
        self._masked[branch] = set()

    def _mask(self, branch: Branch, masks: dict[str, Mask]) -> None:
        assert self._checkpoint is not None
        stored = self._checkpoint.weights[branch]
        for name, parameter in self._nets[branch].named_parameters():
            layer = name.removesuffix(".weight")
            if layer in masks and parameter.device.type == "cpu":
                np.multiply(stored[name], masks[layer], out=parameter.numpy())  # no copies
                continue
            if layer in masks:
                values = np.multiply(stored[name], masks[layer])
            elif layer in self._masked[branch]:
                values = stored[name]
            else:
                continue
            parameter.copy_(torch.from_numpy(values))
        self._masked[branch] = set(masks)

    def run(
        self,
        field: Field,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Maps:
        """Run both branches; see `Runtime.run`."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            raise RuntimeError("load a checkpoint before run")
        depth = max(len(n.encoder) for n in self._nets.values())
        rgb, cuts = cut(field, checkpoint, depth, self.tile)
        maps = {branch: np.empty(field.rgb.shape[:2], np.float32) for branch in BRANCHES}
        try:
            with torch.inference_mode():
                for done, window in enumerate(cuts):
                    progress("Processing tiles", done, len(cuts))
                    part = torch.from_numpy(np.array(rgb[window.outer]))
                    # (H, W, 3) is channels_last already: the permute copies nothing.
                    x = part.to(self.device).permute(2, 0, 1)[None].float()
                    for branch in BRANCHES:
                        if should_stop():
                            raise Cancelled("Cancelled.")
                        out = self._nets[branch](x)[0, 0][window.inner]
                        out = torch.sigmoid(out) if branch == "semantic" else out
                        maps[branch][window.core] = out.cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EnvironmentStopped(
                f"The memory of {self.device} does not hold a tile of {self.tile} px; "
                "use smaller tiles or the CPU."
            ) from error
        progress("Processing tiles", len(cuts), len(cuts))
        return Maps(maps["semantic"], maps["distance"], field.mpp)
