"""``nucprune prune`` and ``nucprune info``."""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .common import prepare, pruning_asked
from .recovering import described

if TYPE_CHECKING:
    from ..checkpoint.packed import Packing
    from ..pruning.cost import PackedSize


def prune(options: argparse.Namespace) -> None:
    """``nucprune prune``."""
    from ..checkpoint.format import save
    from ..checkpoint.shipped import open_checkpoint
    from ..pruning.cost import cost, packed_size
    from ..pruning.strategies import strategy_named
    from ..pruning.strategy import apply

    checkpoint = open_checkpoint(options.checkpoint_in, options.mpp)
    fixed = options.strategy and strategy_named(options.strategy).fixed_cr
    packs_alone = (options.packed or options.fp16) and options.strategy is options.keep is None
    if not (fixed or packs_alone or pruning_asked(options)[0]):
        raise InputError(
            "Say how much goes: --cr X, or --cr-semantic X --cr-distance Y; --packed or --fp16 "
            "without them, --strategy and --keep write the network as it is."
        )
    network = prepare(options, checkpoint)
    found, pruning, masks = network.checkpoint, network.pruning, network.masks
    spent = cost(found, pruning, masks)
    written = found if masks is None else apply(found, pruning, masks)
    packing: Packing = "half" if options.fp16 else "lossless" if options.packed else "none"
    save(written, options.output, packing)
    how = f"; recovered on {described(network.recovery)}" if network.recovery else ""
    print(
        f"kept {spent.kept:,} of {spent.total:,} weights ({spent.sparsity:.2%} zero, "
        f"CR {spent.cr:.4g}), compute / {spent.compute_ratio:.3g}{how}; wrote {options.output} "
        f"({Path(options.output).stat().st_size / 1e6:.2f} MB)"
    )
    if packing != "none":
        print(packed_line(packed_size(written, packing)))


def packed_line(size: PackedSize) -> str:
    """Return what packing saves: of the weights alone, and of the whole file."""
    return (
        f"values and positions take {size.coded / 1e6:.2f} MB, {size.ratio:.2f} times less than "
        f"dense float32 weights; the whole file {size.file / 1e6:.2f} MB, {size.file_ratio:.2f} "
        "times less"
    )


def info(options: argparse.Namespace) -> None:
    """``nucprune info``."""
    from ..checkpoint import shipped
    from ..checkpoint.packed import values_of
    from ..pruning.cost import cost, packed_size
    from ..pruning.strategy import as_stored

    if options.card:
        print(_card(options), end="")
        return
    if options.list or options.file is None:
        for name in shipped.names():
            print(name)
        return
    path = shipped.find(options.file)
    checkpoint = shipped.open_checkpoint(options.file)
    spent = cost(checkpoint, as_stored(checkpoint, None), None)
    assumed = (
        " (assumed: the file does not say)" if checkpoint.provenance.get("mpp_assumed") else ""
    )
    values = values_of(path)
    stored = f"packed, {values} values" if values else "plain"
    print(f"{checkpoint.name}: {spent.total:,} weights")
    print(f"file        {path.stat().st_size / 1e6:.2f} MB, {stored}")
    print(f"pixel size  {checkpoint.mpp:g} um{assumed}")
    print(f"kept        {spent.kept:,} ({spent.sparsity:.2%} zero, CR {spent.cr:.4g})")
    print(f"saves as    {spent.file_bytes / 1e6:.2f} MB plain; packed without loss:")
    print(f"            {packed_line(packed_size(checkpoint))}")
    print(f"watershed   {json.dumps(asdict(checkpoint.merge))}")
    print(f"sha256      {checkpoint.sha256}")
    if checkpoint.pruning:
        pruning = dict(checkpoint.pruning)
        recovery = pruning.pop("recovery", None)
        print(f"pruning     {json.dumps(pruning)}")
        if recovery:
            print(f"recovered   on {described(recovery)}, without labels")
        print(f"parent      {checkpoint.parent_sha256}")
    for data in checkpoint.provenance.get("data", []):
        about = [str(data[key]) for key in ("layout", "folder", "licence") if key in data]
        print(f"trained on  {', '.join(about)}")
    if checkpoint.for_research_only:
        print("use         research only: it was trained on data for non-commercial use")
    for name, row in checkpoint.provenance.get("metrics", {}).items():
        # A network that was only pruned has its parent's scores, a fine-tuned one its own.
        parents = checkpoint.pruning and "training" not in checkpoint.pruning
        whose = " (the dense parent)" if parents else ""
        print(
            f"validation  {name}{whose}: " + ", ".join(f"{k} {row[k]:.3f}" for k in ("aji", "pq"))
        )


def _card(options: argparse.Namespace) -> str:
    """Return the model card of a checkpoint that `nucprune train` made.

    Raises
    ------
    InputError
        Where it was made otherwise, or no file is named.
    """
    from ..checkpoint import shipped
    from ..training.card import card

    if options.file is None:
        raise InputError("--card is of one checkpoint; name its FILE too.")
    checkpoint = shipped.open_checkpoint(options.file)
    # Of a network that was pruned afterwards, the scores and the training are its parent's.
    if checkpoint.pruning is None or "training" in checkpoint.pruning:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            return card(checkpoint)
    raise InputError(
        f"{checkpoint.name} has no model card: expected a network as `nucprune train` makes it, "
        "not converted or pruned since; see nucprune info for what is known of it."
    )
