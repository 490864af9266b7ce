"""How soon a run stops after it was told to: python benchmarks/cancel.py [--runs 30].

Both branches of the bundled checkpoint on 2048 x 2048 px, told at a random moment from another
thread; milliseconds from there until `Cancelled` reaches the caller.
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np

from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.doors import Field, Pruning
from napari_nucprune.errors import Cancelled
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.auto import open_runtime

SIZE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    ranking = Ranking(open_checkpoint())
    draw = np.random.default_rng(0)
    field = Field(draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8), ranking.checkpoint.mpp)
    print("| runtime | CR | stopped after, ms: median | p90 | most |")
    print("|---|---|---|---|---|")
    for name in ("sparse", "torch"):
        for cr in (1, 16):
            masks = ranking.masks(Pruning("layer-wise", cr, cr)) if cr > 1 else None
            runtime = open_runtime(name, "cpu")
            runtime.load(ranking.checkpoint, masks)
            started = time.perf_counter()
            runtime.run(field)
            whole = time.perf_counter() - started
            waits = []
            for _ in range(runs if name == "sparse" else 5):
                stop, told = threading.Event(), [0.0]

                def tell(stop: threading.Event = stop, told: list[float] = told) -> None:
                    told[0] = time.perf_counter()
                    stop.set()

                timer = threading.Timer(draw.uniform(0.05, 0.8) * whole, tell)
                timer.start()
                try:
                    runtime.run(field, should_stop=stop.is_set)
                except Cancelled:
                    waits.append(1e3 * (time.perf_counter() - told[0]))
                timer.join()
            middle, late, most = np.percentile(waits, (50, 90, 100))
            print(f"| {name} | {cr} | {middle:.0f} | {late:.0f} | {most:.0f} |", flush=True)


if __name__ == "__main__":
    main()
