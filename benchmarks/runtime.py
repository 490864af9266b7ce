"""The sparse runtime against dense ones: `nucprune bench`, a table of layers, and the figure.

python benchmarks/runtime.py --size 512 --cr 5,10,16,20,50 --threads 1,all --json rows.json
python benchmarks/runtime.py --figure docs/images/runtime.svg --from rows.json

Takes the options of `nucprune bench`; install the extras `bench` and `rivals` first.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.cli import main as nucprune
from napari_nucprune.cli import parser
from napari_nucprune.commands.bench import image, matrix
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.sparse_runtime import SparseRuntime
from napari_nucprune.runtime.versus import Matrix, reference


def layer_table(asked: Matrix) -> None:
    """Where the time goes and what the roofs allow: best run, one thread, semantic branch."""
    ranking, size = Ranking(open_checkpoint()), asked.sizes[0]
    rgb, strategy = image(size), asked.strategies[0]
    for cr in asked.crs:
        masks = ranking.masks(Pruning(strategy, cr, cr))
        runtime = SparseRuntime(1)
        runtime.load(ranking.checkpoint, masks)
        net = runtime.net("semantic")
        best = np.full(len(net.layers), np.iinfo(np.int64).max)
        for _ in range(asked.runs + 1):
            spent = np.zeros(len(net.layers), np.int64)
            net.run(rgb, 1, layer_ns=spent)
            best = np.minimum(best, spent)
        roof = net.roof / 1e9
        first, second, third, rate = (read_rate(1 << n) for n in (14, 18, 22, 26))
        print(f"\n{strategy} CR {cr:g}, {size} x {size}: {2 * roof:.0f} GFLOP/s of multiply-adds; ")
        print(f"{first:.0f}, {second:.0f}, {third:.0f} and {rate:.0f} GB/s read of 16 kB, 256 kB, ")
        print("4 MB and 64 MB.\n")
        print("| layer | weights | µs | GFLOP/s | multiply-adds alone, µs | moving alone, µs |")
        print("|---|---|---|---|---|---|")
        for layer, spent in zip(net.layers, best, strict=True):
            mask = masks["semantic"].get(layer.name)
            kept = layer.size if mask is None else int(np.count_nonzero(mask))
            work = kept * layer.positions * size * size
            # Every input read and every output written once, in single precision.
            into, out = layer.shape[1], layer.shape[0]
            if layer.name.startswith("up."):
                into, out = layer.shape[0], 4 * layer.shape[1]
            moved = 4 * (into + out) * layer.positions * size * size
            print(
                f"| {layer.name} | {kept:,} | {spent / 1e3:.0f} | {2 * work / spent:.1f} | "
                f"{work / roof / 1e3:.0f} | {moved / rate / 1e3:.0f} |"
            )


def build_table(asked: Matrix) -> None:
    """Milliseconds from a pruning to masks, and from masks to runnable networks, all threads."""
    ranking, runtime = Ranking(open_checkpoint()), SparseRuntime()
    for strategy in asked.strategies:  # sorted once a checkpoint
        ranking.masks(Pruning(strategy, 2, 2))
    print("| strategy, CR | masks, ms | networks, ms |\n|---|---|---|")
    shares = max(1, runtime.threads // len(BRANCHES))
    cases = [(s, cr) for s in asked.strategies for cr in asked.crs]
    spent: dict[tuple[str, float], list[tuple[float, float]]] = {case: [] for case in cases}
    with ThreadPoolExecutor(len(BRANCHES)) as pool:
        for _ in range(asked.runs + 1):
            for case in cases:
                times = [time.perf_counter()]
                masks = ranking.masks(Pruning(case[0], case[1], case[1]))
                times.append(time.perf_counter())
                runtime.load(ranking.checkpoint, masks)
                list(pool.map(lambda branch: runtime.net(branch, shares), BRANCHES))
                times.append(time.perf_counter())
                spent[case].append((times[1] - times[0], times[2] - times[1]))
    for case, found in spent.items():
        low, middle, high = 1e3 * np.percentile(found[1:], (10, 50, 90), axis=0)
        columns = [f"{b:.1f} ({a:.1f}-{c:.1f})" for a, b, c in zip(low, middle, high, strict=True)]
        print(f"| {case[0]} CR {case[1]:g} | {' | '.join(columns)} |")


def read_rate(size: int, runs: int = 400) -> float:
    """Return the bytes a nanosecond that one thread reads of ``size`` bytes, again and again.

    By the C library's ``memchr`` for a byte that is not there, less the call of an empty one.
    """
    look = ctypes.CDLL(None).memchr
    look.argtypes, look.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    filled = np.full(size, 2, np.uint8)
    at, best = filled.ctypes.data, {size: np.inf, 0: np.inf}
    for _ in range(runs):
        for length in best:
            started = time.perf_counter_ns()
            for _ in range(8):
                look(at, 1, length)
            best[length] = min(best[length], (time.perf_counter_ns() - started) / 8)
    return size / (best[size] - best[0])


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw how much faster than the dense reference, over CR, beside the ceiling."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"

    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["branch"], row["size"], row["threads"]), []).append(row)
    drawn = Figure(figsize=(5 * len(groups), 4), layout="constrained")
    for axes, (about, group) in zip(
        drawn.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        dense = reference(group)
        if dense is None:
            sys.exit(f"{about}: no dense row to compare with")
        rivals = [row for row in group if row["strategy"] is None and row is not dense]
        lowest = 0.0
        for row in sorted(rivals, key=lambda row: -row["median_ms"]):
            ratio = dense["median_ms"] / row["median_ms"]
            axes.axhline(ratio, color="0.85", linewidth=0.8, zorder=0)
            lowest = max(ratio, 1.17 * lowest)  # texts apart from each other
            at = (66, lowest)
            axes.annotate(row["runtime"], at, color="0.4", fontsize=7, ha="right", va="center")
        for color, strategy in enumerate(dict.fromkeys(r["strategy"] for r in group)):
            own = sorted((r for r in group if r["strategy"] == strategy), key=lambda r: r["cr"])
            if strategy is None:
                continue
            crs = [row["cr"] for row in own]
            ratios = [dense["median_ms"] / row["median_ms"] for row in own]
            axes.plot(crs, ratios, "o-", color=f"C{color}", label=strategy)
            ceilings = [row["compute_ratio"] for row in own]
            axes.plot(crs, ceilings, ":", color=f"C{color}", label=f"{strategy}, ceiling")
        axes.set(xscale="log", yscale="log", xlabel="compression ratio")
        axes.set_xticks(crs := [1, 2, 5, 10, 20, 50], [str(cr) for cr in crs])
        axes.set_yticks(times := [0.5, 1, 2, 5, 10, 20, 50], [f"{x:g}" for x in times])
        axes.minorticks_off()
        axes.set_ylabel(f"times faster than dense {dense['runtime']}")
        threads = f"{about[2]} thread{'s' if about[2] > 1 else ''}"
        axes.set_title(f"{about[0]}, {about[1]} px, {threads}", fontsize=10)
        axes.legend(fontsize=7)
    drawn.savefig(path, dpi=150)


def main() -> int:
    """Measure, print, write, draw."""
    own = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own.add_argument("--layers", action="store_true", help="only a table of layers")
    own.add_argument("--build", action="store_true", help="only masks and what is built from them")
    own.add_argument("--figure", type=Path, metavar="FILE", help="draw the rows of --from")
    own.add_argument("--from", dest="rows", type=Path, metavar="JSON")
    asked, rest = own.parse_known_args()
    if asked.layers:
        layer_table(matrix(parser().parse_args(["bench", *rest])))
        return 0
    if asked.build:
        build_table(matrix(parser().parse_args(["bench", *rest])))
        return 0
    if asked.figure:
        figure(json.loads(asked.rows.read_text(encoding="utf-8"))["rows"], asked.figure)
        return 0
    return nucprune(["bench", *rest])


if __name__ == "__main__":
    sys.exit(main())
