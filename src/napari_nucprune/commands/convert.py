"""``nucprune convert``."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .common import say


def convert(options: argparse.Namespace) -> None:
    """``nucprune convert``."""
    from ..checkpoint.foreign import open_foreign, read_tensors
    from ..checkpoint.format import save

    if options.keys:
        for file in filter(None, (options.semantic, options.distance)):
            for key, array in read_tensors(file).items():
                print(f"{file}\t{key}\t{tuple(array.shape)}")
        return
    if options.output is None:
        raise InputError("Say where the checkpoint goes: -o FILE.safetensors.")
    found = open_foreign(options.semantic, options.distance, options.mpp, options.map)
    save(found, options.output)
    if options.mpp is None:
        say("the um/px that it was trained at is not known; 0.25 is assumed (--mpp X says it).")
    widths = "-".join(str(x.outputs) for x in found.layers("semantic") if x.name.endswith("conv1")
                      and x.name.startswith("encoder"))  # fmt: skip
    print(f"{found.name}: two U-Nets of channels {widths}, {found.mpp:g} um/px; wrote "
          f"{options.output}")  # fmt: skip
