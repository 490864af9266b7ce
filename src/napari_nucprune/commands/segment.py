"""``nucprune segment`` and the headless demonstration."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from ..doors import Pruning
from ..errors import InputError
from .common import about_run, open_asked, open_runtime, prepare, say, show_progress
from .recovering import described


def segment(options: argparse.Namespace) -> None:
    """``nucprune segment``."""
    from ..nuclei.table import write_csv
    from ..nuclei.watershed import merge
    from ..slides import outputs
    from ..slides.field import take, to_image
    from ..slides.source import open_source
    from .whole import is_whole_slide, segment_whole

    _check_slide_options(options)
    checkpoint = open_asked(options)
    if is_whole_slide(options, checkpoint):
        segment_whole(options, checkpoint)
        return
    source = open_source(options.image, options.mpp)
    runtime = open_runtime(options)
    from ..runtime.torch_runtime import LARGEST

    # Before any recovery, which takes seconds: too large an image must show at once.
    taken = take(source, checkpoint.mpp, largest=LARGEST)
    network = prepare(options, checkpoint)
    runtime.load(network.checkpoint, network.masks)
    if source.mpp is None:
        say(
            f"pixel size is not set in {Path(options.image).name}: the network's own "
            f"{checkpoint.mpp:g} um is assumed; results may be inaccurate (set --mpp)."
        )
    started = time.perf_counter()
    maps = runtime.run(taken.field, show_progress)
    mapped = time.perf_counter()
    nuclei = merge(maps, checkpoint.merge)
    merged = time.perf_counter()
    shape = source.shape
    own_mpp = None if source.mpp is None else float(source.mpp[0])
    run = {
        **about_run(network, runtime),
        "image": str(options.image),
        "shape": list(shape),
        "mpp": list(source.mpp or (checkpoint.mpp, checkpoint.mpp)),
        "mpp_assumed": source.mpp is None,
        "nuclei": len(nuclei),
        "seconds": {
            "network": round(mapped - started, 4),
            "nuclei": round(merged - mapped, 4),
        },
    }
    transform = taken.transform
    labels = to_image(nuclei.labels, transform, shape, labels=True)
    with outputs.staged(options.output) as folder:
        for name, array in (("semantic", maps.semantic), ("distance", maps.distance)):
            resized = to_image(array, transform, shape, labels=False)
            outputs.write_tiff(folder / f"{name}.tif", resized, own_mpp)
        outputs.write_tiff(folder / "instances.tif", labels, own_mpp)
        rgb = take(replace(source, mpp=None), checkpoint.mpp).field.rgb
        outputs.write_png(folder / "overlay.png", outputs.overlay(rgb, labels))
        write_csv(nuclei, folder / "nuclei.csv")
        outputs.write_json(folder / "run.json", run)
    if options.json:
        print(json.dumps(run, indent=2))
    else:
        how = f", recovered on {described(network.recovery)}" if network.recovery else ""
        print(f"{len(nuclei)} nuclei at {network.pruning.label}{how}; results in {options.output}")


def _check_slide_options(options: argparse.Namespace) -> None:
    """Refuse what contradicts itself before anything is opened."""
    if options.workers is not None and options.scheduler:
        raise InputError("Give --workers N or --scheduler ADDRESS, not both.")
    for name in ("workers", "threads"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise InputError(f"--{name} is {number}; give at least 1.")


def demo(options: argparse.Namespace) -> None:
    """``nucprune demo``: the viewer's job without a screen."""
    from ..checkpoint.bundled import open_checkpoint
    from ..nuclei.watershed import merge
    from ..pruning.cost import cost
    from ..pruning.strategy import Ranking
    from ..runtime.auto import AutoRuntime
    from ..runtime.base import LARGEST
    from ..samples import tissue
    from ..slides import outputs
    from ..slides.field import take, to_image
    from ..slides.source import Source, open_source

    if options.image:
        source = open_source(options.image, None)
    else:
        source = Source([tissue()], None, "the sample tissue")
    checkpoint = open_checkpoint()
    ranking = Ranking(checkpoint)
    runtime = AutoRuntime()
    taken = take(source, checkpoint.mpp, largest=LARGEST)
    if source.mpp is None:
        say(f"pixel size is not set: the network's own {checkpoint.mpp:g} um is assumed.")
    rgb = take(replace(source, mpp=None), checkpoint.mpp).field.rgb
    rows = ["cr,kept,sparsity,nuclei,seconds,runtime"]
    with outputs.staged(options.output) as folder:
        for cr in (1.0, 5.0, 16.0):
            pruning = Pruning("layer-wise", cr, cr)
            masks = ranking.masks(pruning)
            runtime.load(checkpoint, masks)
            started = time.perf_counter()
            nuclei = merge(runtime.run(taken.field, show_progress), checkpoint.merge)
            seconds = time.perf_counter() - started
            labels = to_image(nuclei.labels, taken.transform, source.shape, labels=True)
            outputs.write_png(folder / f"overlay-cr{cr:g}.png", outputs.overlay(rgb, labels))
            outputs.write_tiff(folder / f"instances-cr{cr:g}.tif", labels, None)
            spent = cost(checkpoint, pruning, masks)
            rows.append(
                f"{cr:g},{spent.kept},{spent.sparsity:.4f},{len(nuclei)},{seconds:.3f},{runtime.name}"
            )
        (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))
    print(f"overlays, labels and this table are in {Path(options.output).resolve()}")
