"""``nucprune segment SLIDE``: all of a slide, in tasks that can be continued."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doors import Pruning
from .common import about_run, open_runtime, prepare, resolve, say, show_progress
from .recovering import described

if TYPE_CHECKING:
    from ..checkpoint.format import Checkpoint
    from ..pruning.strategy import Masks
    from ..slides.plan import Network


def is_whole_slide(options: argparse.Namespace, checkpoint: Checkpoint) -> bool:
    """Say whether an input gets a slide's outputs.

    What is called as OpenSlide's formats are, any input with ``--tile``, and what is too large
    for a field; ``--slide`` and ``--no-slide`` force.
    """
    from ..runtime.base import LARGEST
    from ..slides.image import image_shape
    from ..slides.reader import SUFFIXES

    if options.slide is not None:
        return bool(options.slide)
    if options.tile is not None or Path(options.image).suffix.lower() in SUFFIXES:
        return True
    # The header alone: a large file must not be read to learn that it is large.
    shape, mpp = image_shape(options.image)
    scale = (options.mpp or mpp or checkpoint.mpp) / checkpoint.mpp
    return max(shape) * scale > LARGEST


def segment_whole(options: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Segment a whole slide as the options say."""
    from ..runtime.sparse_runtime import default_threads
    from ..slides.cluster import Crew
    from ..slides.image import image_shape
    from ..slides.plan import Ask
    from ..slides.reader import SUFFIXES, is_slide
    from ..slides.source import open_source
    from ..slides.whole import segment_slide

    pruning, masks = resolve(options, checkpoint)
    crew = Crew(options.threads or default_threads(), options.workers, options.scheduler)
    ask = Ask(
        Path(options.image),
        Path(options.output),
        checkpoint,
        _named(options, checkpoint, pruning),
        lambda *_: _prepared(options, checkpoint, pruning, masks),
        runtime=options.runtime,
        mpp=options.mpp,
        tissue_mask=options.tissue_mask,
        table=options.table,
        zipped=options.gzip,
        overwrite=options.overwrite,
        tile=options.tile,
        crew=crew,
    )
    # Of a plain image the header alone: it is read later.
    slide = is_slide(ask.slide) or ask.slide.suffix.lower() in SUFFIXES
    own = open_source(ask.slide, slide=True).mpp if slide else image_shape(ask.slide)[1]
    if ask.mpp is None and own is None:
        say(
            f"pixel size is not set in {Path(options.image).name}: the network's own "
            f"{checkpoint.mpp:g} um is assumed; results may be inaccurate (set --mpp)."
        )
    run = segment_slide(ask, show_progress)
    if run["bad_tiles"]:
        say(f"{run['bad_tiles']} damaged places of the slide were taken as glass.")
    if options.json:
        print(json.dumps(run, indent=2))
        return
    how = f", recovered on {described(run['recovery'])}" if run["recovery"] else ""
    print(
        f"{run['nuclei']:,} nuclei on {run['tissue_mm2']:.2f} mm² of tissue at "
        f"{Pruning(**run['pruning']).label}{how}; results in {options.output}"
    )


def _named(options: argparse.Namespace, checkpoint: Checkpoint, pruning: Pruning) -> dict[str, Any]:
    """Return what names the network: the same values are the same network."""
    recover = options.recover
    if recover not in ("none", "bundled"):
        recover = _what(Path(recover))
    return {
        "checkpoint": checkpoint.sha256,
        "pruning": pruning.as_dict(),
        "recover": recover,
        "reselect": options.reselect if recover != "none" else None,
    }


def _what(path: Path) -> list[Any]:
    """Return what tells an image, or a folder of images, from another wherever it lies."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [path.name, *([file.name, file.stat().st_size] for file in files if file.is_file())]


def _prepared(
    options: argparse.Namespace, checkpoint: Checkpoint, pruning: Pruning, masks: Masks | None
) -> Network:
    """Prune, recover, and choose the runtime once, for all workers."""
    from ..pruning.strategy import apply
    from ..slides.plan import Network

    options.tile = None
    runtime = open_runtime(options)
    network = prepare(options, checkpoint)
    runtime.load(network.checkpoint, network.masks)
    stored = network.checkpoint
    if network.masks is not None and masks is not None:
        stored = apply(stored, pruning, masks)
    about = about_run(network, runtime)
    return Network(stored, runtime.name, runtime.device, about)
