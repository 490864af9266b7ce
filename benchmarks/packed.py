"""What packed checkpoints take, how fast they load, and what half precision costs.

    python benchmarks/packed.py

The bundled checkpoint pruned one-shot for the sizes; recovered at CR 16 on the image itself for the
loss of half precision, on MoNuSeg validation images where ``--data`` has them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.checkpoint.packed import halved
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.doors import Pruning
from napari_nucprune.pruning.cost import packed_size
from napari_nucprune.pruning.strategy import Ranking, apply

STOPS = (2, 4, 5, 8, 10, 16, 20, 32, 64)
ROUNDS = 15


def seconds(path: Path, cold: bool = False) -> float:
    """Return the time of one load; ``cold`` drops the file from the page cache before (Linux)."""
    if cold:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    load(path)
    return time.perf_counter() - started


def sizes() -> None:
    """Print the table of sizes and loading times; plain and packed files are loaded in turn."""
    dense = open_checkpoint()
    ranking = Ranking(dense)
    print(
        "| strategy, CR | values + positions | file | file, half precision | load / plain "
        "| from the disk |\n|---|---|---|---|---|---|"
    )
    # Elsewhere nothing drops one file alone from the page cache.
    ways = (False, True) if hasattr(os, "posix_fadvise") else (False,)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for strategy in ("layer-wise", "network-wide"):
            for cr in STOPS:
                pruning = Pruning(strategy, cr, cr)
                pruned = apply(dense, pruning, ranking.masks(pruning))
                files = {k: folder / f"{k}.safetensors" for k in ("none", "lossless", "half")}
                for packing, path in files.items():
                    save(pruned, path, packing)
                size, half = packed_size(pruned), packed_size(halved(pruned), "half")
                columns = []
                for cold in ways:
                    times = [
                        (seconds(files["lossless"], cold), seconds(files["none"], cold))
                        for _ in range(ROUNDS)
                    ]
                    low, ratio, high = np.percentile([a / b for a, b in times], (10, 50, 90))
                    columns.append(f"{ratio:.2f} ({low:.2f}-{high:.2f})")
                print(
                    f"| {strategy} {cr} | {size.ratio:.2f} | {size.file_ratio:.2f} | "
                    f"{half.file_ratio:.2f} | {' | '.join(columns)} |",
                    flush=True,
                )


def half_precision(data: Path) -> None:
    """Print PQ with single and with half precision."""
    from recovery import Study, crops_of

    from napari_nucprune.datasets.evaluate import count_image, run_on
    from napari_nucprune.datasets.registry import open_folder
    from napari_nucprune.pruning.recipe import RESELECT
    from napari_nucprune.pruning.recovery import Calibration
    from napari_nucprune.training.model_card import halves

    dense = open_checkpoint()
    held = {d["layout"]: d["validation"] for d in dense.provenance["data"]}["monuseg"]
    by_patient = {i.patient: i for i in open_folder(data / "MoNuSegTrainingData", "monuseg")}
    items = halves([by_patient[patient] for patient in held])[1]
    study = Study(dense, items, Path(tempfile.mkdtemp()) / "none.json")
    for strategy in ("layer-wise", "network-wide"):
        pruning, rows = Pruning(strategy, 16, 16), []
        for item in items:
            calibration = Calibration(dense, crops_of(item, dense.mpp), "own", RESELECT)
            single = calibration.recover(pruning, study.ranking.masks(pruning))
            row = []
            for network in (single, halved(single)):
                study.runtime.load(network)
                maps, transform = run_on(item, dense, study.runtime)
                row.append(count_image(item, maps, transform, dense.merge).scores().pq)
            rows.append(row)
        one, other = np.mean(rows, 0)
        print(f"{strategy} CR 16 recovered, {len(items)} images: PQ {one:.4f}, half {other:.4f}")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/MoNuSeg"))
    given = parser.parse_args()
    sizes()
    if given.data.is_dir():
        half_precision(given.data)


if __name__ == "__main__":
    main()
