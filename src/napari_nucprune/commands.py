"""What each command of ``nucprune`` does; heavy rooms are imported when needed."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli import pruning_asked
from .doors import BRANCHES, Pruning
from .errors import InputError

if TYPE_CHECKING:
    from .checkpoint.format import Checkpoint
    from .pruning.strategy import Masks
    from .runtime.torch_runtime import TorchRuntime


def say(text: str) -> None:
    """Tell the user something that is no result."""
    print(f"nucprune: {text}", file=sys.stderr)


def show_progress(text: str, done: int, total: int) -> None:
    """Rewrite one line of stderr where it is a terminal, else print a line a step."""
    if sys.stderr.isatty():
        print(
            f"\r\x1b[K{text} {done}/{total}",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )


def resolve(options: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Pruning, Masks | None]:
    """Return the pruning to run and its masks; None where the checkpoint runs as stored."""
    from .pruning.strategy import STRATEGIES, Ranking, as_stored

    asked, values = pruning_asked(options)
    stored = as_stored(checkpoint, None)
    if options.strategy is not None and options.strategy not in STRATEGIES:
        raise InputError(
            f"The strategy {options.strategy!r} is not known; choose {', '.join(STRATEGIES)}."
        )
    if not asked:
        return stored, None
    base: dict[str, Any] = {"keep": stored.keep}
    base |= {f"cr_{branch}": stored.cr(branch) for branch in BRANCHES}
    pruning = Pruning(**(base | values))
    return pruning, Ranking(checkpoint, pruning.keep).masks(pruning)


def open_runtime(
    options: argparse.Namespace, checkpoint: Checkpoint, masks: Masks | None
) -> TorchRuntime:
    """Return a runtime that is loaded."""
    import torch

    from .runtime.torch_runtime import TILE, TorchRuntime

    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads is {options.threads}; give at least 1.")
        torch.set_num_threads(options.threads)
    tile = TILE if options.tile is None else options.tile
    runtime = TorchRuntime(options.device, tile)
    runtime.load(checkpoint, masks)
    return runtime


def about_run(
    checkpoint: Checkpoint, pruning: Pruning, masks: Masks | None, runtime: TorchRuntime
) -> dict[str, Any]:
    """Return what run.json says of the network."""
    import torch

    from .pruning.cost import cost

    spent = cost(checkpoint, pruning, masks)
    return {
        "nucprune": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "checkpoint": {
            "name": checkpoint.name,
            "sha256": checkpoint.sha256,
            "mpp": checkpoint.mpp,
        },
        "pruning": pruning.as_dict(),
        "weights": spent.total,
        "kept": spent.kept,
        "cr": spent.cr,
        "sparsity": spent.sparsity,
        "compute_ratio": spent.compute_ratio,
        "merge": asdict(checkpoint.merge),
        "runtime": runtime.name,
        "device": runtime.device,
        "threads": torch.get_num_threads(),
    }


def _open(options: argparse.Namespace) -> Checkpoint:
    from .checkpoint.bundled import DEFAULT, open_checkpoint

    return open_checkpoint(options.checkpoint or DEFAULT)


def segment(options: argparse.Namespace) -> None:
    """``nucprune segment``."""
    from .nuclei.table import write_csv
    from .nuclei.watershed import merge
    from .slides import outputs
    from .slides.field import open_source, take, to_image

    source = open_source(options.image, options.mpp)
    checkpoint = _open(options)
    pruning, masks = resolve(options, checkpoint)
    runtime = open_runtime(options, checkpoint, masks)
    from .runtime.torch_runtime import LARGEST

    started = time.perf_counter()
    taken = take(source, checkpoint.mpp, largest=LARGEST)
    if source.mpp is None:
        say(
            f"pixel size is not set in {Path(options.image).name}: the network's own "
            f"{checkpoint.mpp:g} um is assumed; results may be inaccurate (set --mpp)."
        )
    maps = runtime.run(taken.field, show_progress)
    network = time.perf_counter()
    nuclei = merge(maps, checkpoint.merge)
    merged = time.perf_counter()
    shape = source.shape
    own_mpp = None if source.mpp is None else float(source.mpp[0])
    run = {
        **about_run(checkpoint, pruning, masks, runtime),
        "image": str(options.image),
        "shape": list(shape),
        "mpp": list(source.mpp or (checkpoint.mpp, checkpoint.mpp)),
        "mpp_assumed": source.mpp is None,
        "nuclei": len(nuclei),
        "seconds": {
            "network": round(network - started, 4),
            "nuclei": round(merged - network, 4),
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
        print(f"{len(nuclei)} nuclei at {pruning.label}; results in {options.output}")


def evaluate(options: argparse.Namespace) -> None:
    """``nucprune evaluate``."""
    from .datasets.evaluate import evaluate as score_folder
    from .datasets.registry import open_folder
    from .slides.outputs import staged, write_json

    given = {"mpp": options.mpp} if options.layout == "pairs" and options.mpp else {}
    folder = open_folder(options.folder, options.layout, **given)
    checkpoint = _open(options)
    pruning, masks = resolve(options, checkpoint)
    runtime = open_runtime(options, checkpoint, masks)
    result = score_folder(folder, checkpoint, runtime, options.mpp, show_progress)
    assumed = result.pop("assumed_mpp")
    if assumed:
        say(
            f"pixel size is not set in {len(assumed)} images ({assumed[0]} first): the network's "
            f"own {checkpoint.mpp:g} um is assumed; results may be inaccurate (set --mpp)."
        )
    result["run"] = {
        **about_run(checkpoint, pruning, masks, runtime),
        "folder": str(options.folder),
        "layout": options.layout,
        "mpp_assumed": assumed,
    }
    if options.json:
        target = Path(options.json)
        with staged(target.parent) as scratch:
            write_json(scratch / target.name, result)
    keys = ("semantic_dice", "dice", "aji", "dq", "sq", "pq", "truth", "found")
    print(f"{len(result['images'])} images of {options.layout}, {pruning.label}")
    print(" " * 8 + "".join(f"{key:>14}" for key in keys))
    for name in ("mean", "pooled"):
        row = "".join(
            f"{'':>14}" if result[name][key] is None else f"{result[name][key]:>14.4g}"
            for key in keys
        )
        print(f"{name:8}{row}")


def prune(options: argparse.Namespace) -> None:
    """``nucprune prune``."""
    from .checkpoint.bundled import open_checkpoint
    from .checkpoint.format import save
    from .pruning.cost import cost
    from .pruning.strategy import apply

    checkpoint = open_checkpoint(options.checkpoint_in, options.mpp)
    pruning, masks = resolve(options, checkpoint)
    if masks is None:
        raise InputError("Say how much goes: --cr X, or --cr-semantic X --cr-distance Y.")
    spent = cost(checkpoint, pruning, masks)
    save(apply(checkpoint, pruning, masks), options.output)
    print(
        f"kept {spent.kept:,} of {spent.total:,} weights ({spent.sparsity:.2%} zero, "
        f"CR {spent.cr:.4g}), compute / {spent.compute_ratio:.3g}; wrote {options.output} "
        f"({spent.file_bytes / 1e6:.1f} MB)"
    )


def info(options: argparse.Namespace) -> None:
    """``nucprune info``."""
    from .checkpoint import bundled
    from .pruning.cost import cost
    from .pruning.strategy import as_stored

    if options.list or options.file is None:
        for name in bundled.names():
            print(name)
        return
    path = bundled.find(options.file)
    checkpoint = bundled.open_checkpoint(options.file)
    spent = cost(checkpoint, as_stored(checkpoint, None), None)
    assumed = (
        " (assumed: the file does not say)" if checkpoint.provenance.get("mpp_assumed") else ""
    )
    print(f"{checkpoint.name}: {spent.total:,} weights, {path.stat().st_size / 1e6:.1f} MB")
    print(f"pixel size  {checkpoint.mpp:g} um{assumed}")
    print(f"kept        {spent.kept:,} ({spent.sparsity:.2%} zero, CR {spent.cr:.4g})")
    print(f"watershed   {json.dumps(asdict(checkpoint.merge))}")
    print(f"sha256      {checkpoint.sha256}")
    if checkpoint.pruning:
        print(f"pruning     {json.dumps(checkpoint.pruning)}")
        print(f"parent      {checkpoint.parent_sha256}")
    for data in checkpoint.provenance.get("data", []):
        print(f"trained on  {data['layout']} ({data['folder']}), {data['licence']}")
    for name, row in checkpoint.provenance.get("metrics", {}).items():
        print(f"validation  {name}: " + ", ".join(f"{k} {row[k]:.3f}" for k in ("aji", "pq")))


def train(options: argparse.Namespace) -> None:
    """``nucprune train``."""
    from .runtime.torch_runtime import pick_device
    from .slides.outputs import cannot_write
    from .training.config import load_config
    from .training.fit import Fit, prepare
    from .training.model_card import finish

    config = load_config(options.config, options.seed)
    device = pick_device(options.device)
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    fit = Fit(config, folder, device)
    if options.start and not fit.state_file.exists():
        from .checkpoint.bundled import open_checkpoint

        fit.start_from(open_checkpoint(options.start))
    fit.resume()
    say(f"reading data; training on {device} from step {fit.step} to {config.steps}")
    training, validation = prepare(config)

    def report(text: str, done: int, total: int) -> None:
        print(f"step {done}/{total}: {text}", file=sys.stderr, flush=True)

    fit.run(training, report)
    checkpoint = finish(config, fit.weights(), validation, folder, device, show_progress)
    for name, row in checkpoint.provenance["metrics"].items():
        print(f"{name}: " + ", ".join(f"{k} {row[k]:.3f}" for k in ("semantic_dice", "aji", "pq")))
    print(f"wrote {folder / config.name}.safetensors and its model card {config.name}.md")


def view(options: argparse.Namespace) -> None:
    """``nucprune view``."""
    try:
        import napari  # noqa: F401
    except ImportError as error:
        raise InputError(
            "napari is not installed here; install it with: pip install 'napari-nucprune[all]'."
        ) from error
    from .widgets.window import view as open_window

    open_window(options.image)


def demo(options: argparse.Namespace) -> None:
    """``nucprune demo``: the viewer's job without a screen."""
    from .checkpoint.bundled import open_checkpoint
    from .nuclei.watershed import merge
    from .pruning.cost import cost
    from .pruning.strategy import Ranking
    from .runtime.torch_runtime import LARGEST, TorchRuntime
    from .samples import tissue
    from .slides import outputs
    from .slides.field import Source, open_source, take, to_image

    if options.image:
        source = open_source(options.image, None)
    else:
        source = Source([tissue()], None, "the sample tissue")
    checkpoint = open_checkpoint()
    ranking = Ranking(checkpoint)
    runtime = TorchRuntime()
    taken = take(source, checkpoint.mpp, largest=LARGEST)
    if source.mpp is None:
        say(f"pixel size is not set: the network's own {checkpoint.mpp:g} um is assumed.")
    rgb = take(replace(source, mpp=None), checkpoint.mpp).field.rgb
    rows = ["cr,kept,sparsity,nuclei,seconds"]
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
            rows.append(f"{cr:g},{spent.kept},{spent.sparsity:.4f},{len(nuclei)},{seconds:.3f}")
        (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))
    print(f"overlays, labels and this table are in {Path(options.output).resolve()}")
