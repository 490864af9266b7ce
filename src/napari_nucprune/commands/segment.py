"""``nucprune segment`` and the headless demonstration."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..doors import Pruning
from ..errors import InputError
from .common import about_run, open_asked, open_runtime, prepare, say, show_progress
from .recovering import described

if TYPE_CHECKING:
    from ..recovered import Recovery


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
    from ..checkpoint.shipped import open_checkpoint
    from ..job import Job
    from ..preview import Session
    from ..runtime.base import LARGEST
    from ..samples import tissue
    from ..slides import outputs
    from ..slides.field import take, to_image
    from ..slides.source import Source, open_source

    if options.image:
        source = open_source(options.image, None)
    else:
        source = Source([tissue()], None, "the sample tissue")
    session = Session(open_checkpoint())
    mpp = session.checkpoint.mpp
    if source.mpp is None:
        say(f"pixel size is not set: the network's own {mpp:g} um is assumed.")
    rgb = take(replace(source, mpp=None), mpp).field.rgb
    rows = ["cr,kept,sparsity,nuclei,seconds,runtime,recovery_seconds"]
    with outputs.staged(options.output) as folder:
        for cr in (1.0, 5.0, 16.0):
            pruning = Pruning("layer-wise", cr, cr)
            recovery: Recovery = "off" if options.one_shot else "slide"
            job = Job(source, None, pruning, "demo", LARGEST, recovery, reselect=True)
            found = session.run(job, show_progress)
            if found.note:
                say(f"CR {cr:g}: {found.note}")
            labels = to_image(found.nuclei.labels, found.transform, source.shape, labels=True)
            outputs.write_png(folder / f"overlay-cr{cr:g}.png", outputs.overlay(rgb, labels))
            outputs.write_tiff(folder / f"instances-cr{cr:g}.tif", labels, None)
            spent = session.cost(pruning)
            took = found.recovery_seconds if found.recovered else 0
            rows.append(
                f"{cr:g},{spent.kept},{spent.sparsity:.4f},{len(found.nuclei)},"
                f"{found.seconds - took:.3f},{found.runtime},{took:.3f}"
            )
        (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))
    how = "one-shot" if options.one_shot else "recovered on the image itself"
    print(f"overlays, labels and this table ({how}) are in {Path(options.output).resolve()}")
