"""Which number format trains faster on this computer."""

from __future__ import annotations

import time

import torch

from ..checkpoint.unet import UNet, initialise
from .config import Config

#: bfloat16 rounds to 8 bits: it must be worth it.
WORTH = 0.8


def faster(config: Config, device: torch.device) -> str:
    """Time a few steps of a network like the configuration's in both formats.

    Parameters
    ----------
    config
        Gives widths, batch and crop.
    device
        Where it will train.

    Returns
    -------
    str
        ``bfloat16`` where a step takes less than `WORTH` of one in ``float32``.

    Notes
    -----
    CPUs without AVX-512 BF16 or AMX emulate bfloat16 and are slower with it, often many times, so
    it is timed on a small batch. The state of torch's random numbers is left as it was.
    """
    rng_state = torch.get_rng_state()
    net = UNet(config.widths, config.dropout).to(device)
    initialise(net)
    torch.nn.Module.to(net, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = min(config.crop, 128)
    side -= side % 2 ** (len(config.widths) - 1)
    rgb = torch.zeros(min(config.batch, 2), 3, side, side, device=device)
    rgb = rgb.contiguous(memory_format=torch.channels_last)
    seconds = {"float32": float("inf"), "bfloat16": float("inf")}
    for _ in range(3):  # interleaved; the first round warms up, and the least counts
        for precision in seconds:
            begun = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                out = net(rgb)
            out.float().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[precision] = min(seconds[precision], time.perf_counter() - begun)
    torch.set_rng_state(rng_state)
    return "bfloat16" if seconds["bfloat16"] < WORTH * seconds["float32"] else "float32"
