"""The sparse runtime against dense ones, interleaved in one process.

python benchmarks/runtime.py --size 512 --cr 5,10,16,20,50 --threads 1 --json rows.json

Dense rivals run the dense bundled checkpoint, the sparse runtime the same one pruned one-shot.
A branch of "both" is timed from new masks to maps in the sparse runtime (masks, build, run), and
as one run after the other in the dense ones. Rivals that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nucprune.checkpoint.bundled import open_checkpoint
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.sparse_runtime import SparseRuntime
from napari_nucprune.samples import tissue

Run = Callable[[], Any]
RIVALS = ("torch", "torch-channels-last", "torch-compile", "onnxruntime", "openvino")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def listed(kind: type) -> Callable[[str], list[Any]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser.add_argument("--size", type=listed(int), default=[512])
    parser.add_argument("--cr", type=listed(float), default=[5, 10, 16, 20, 50])
    parser.add_argument("--strategies", type=listed(str), default=["layer-wise", "network-wide"])
    parser.add_argument("--threads", type=listed(int), default=[1])
    parser.add_argument("--branches", type=listed(str), default=["semantic"])
    rivals = "torch,torch-channels-last,onnxruntime,openvino"
    parser.add_argument("--rivals", type=listed(str), default=rivals.split(","))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-error", action="store_true", help="spare the float64 references")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, on a busy machine")
    parser.add_argument("--layers", action="store_true", help="a table of layers, too (semantic)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def image(size: int) -> np.ndarray:
    tile = tissue()
    times = -(-size // min(tile.shape[:2]))
    return np.ascontiguousarray(np.tile(tile, (times, times, 1))[:size, :size])


def onnx_run(net: torch.nn.Module, x: torch.Tensor, threads: int, openvino: bool) -> Run:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "net.onnx")
        torch.onnx.export(net, (x,), path, input_names=["x"], dynamo=False)
        if openvino:
            import openvino as ov

            settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
            request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
            return lambda: request.infer({0: x.numpy()})
        import onnxruntime as ort

        own = ort.SessionOptions()
        own.intra_op_num_threads, own.inter_op_num_threads = threads, 1
        # Else its threads spin on after a run, on the cores of whatever is timed next.
        own.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(path, own, ["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x.numpy()})


def dense_run(name: str, checkpoint: Checkpoint, branch: str, rgb: np.ndarray, threads: int) -> Run:
    if branch == "both":
        runs = [dense_run(name, checkpoint, each, rgb, threads) for each in BRANCHES]
        return lambda: [run() for run in runs]
    net: Any = build(checkpoint.weights[branch])
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float().contiguous()
    if name in ("onnxruntime", "openvino"):
        return onnx_run(net, x, threads, name == "openvino")
    if name == "torch-channels-last":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if name == "torch-compile":
        net = torch.compile(net)

    def run() -> Any:
        with torch.inference_mode():
            return net(x)

    run()
    return run


class Sparse:
    """One pruning in the sparse runtime."""

    def __init__(self, ranking: Ranking, pruning: Pruning, branch: str, threads: int) -> None:
        self.ranking, self.pruning, self.branch, self.threads = ranking, pruning, branch, threads
        self.masks = ranking.masks(pruning)
        self.runtime = SparseRuntime(threads)
        self.runtime.load(ranking.checkpoint, self.masks)
        self.branches = BRANCHES if branch == "both" else (branch,)

    def run(self, field: Field) -> Run:
        """One branch's logits from a loaded network, or both from new masks to maps."""
        if self.branch != "both":
            net = self.runtime._nets[self.branch]
            return lambda: net.run(field.rgb, self.threads)

        def new_masks_to_maps() -> None:
            self.runtime.load(self.ranking.checkpoint, self.ranking.masks(self.pruning))
            self.runtime.run(field)

        return new_masks_to_maps

    def counts(self) -> tuple[int, float]:
        """Weights kept, and dense multiply-adds over those of nonzero weights: the ceiling."""
        kept, dense, sparse = 0, 0.0, 0.0
        for branch in self.branches:
            for layer in self.ranking.checkpoint.layers(branch):
                mask = self.masks[branch].get(layer.name)
                nonzero = layer.size if mask is None else int(np.count_nonzero(mask))
                kept += nonzero
                dense += layer.size * layer.positions
                sparse += nonzero * layer.positions
        return kept, dense / sparse

    def error(self, rgb: np.ndarray) -> float:
        """Largest difference from masked torch in float64, before the sigmoid."""
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()
        worst = 0.0
        for branch in self.branches:
            stored = self.ranking.checkpoint.weights[branch]
            masks = {f"{name}.weight": mask for name, mask in self.masks[branch].items()}
            net = build({n: a * masks.get(n, np.True_) for n, a in stored.items()}).double()
            with torch.inference_mode():
                wanted = net(x)[0, 0].numpy()
            found = self.runtime._nets[branch].run(rgb, self.threads)
            worst = max(worst, float(np.abs(found - wanted).max()))
        return worst


def measure(runs: dict[int, Run], repeats: int, clock: Callable[[], float]) -> dict[int, list]:
    """Milliseconds of each; one round of all is not counted."""
    times: dict[int, list[float]] = {key: [] for key in runs}
    for repeat in range(repeats + 1):
        for key, run in runs.items():
            time.sleep(0.02)  # rivals' threads spin for a while after their run
            begun = clock()
            run()
            if repeat:
                times[key].append((clock() - begun) * 1e3)
    return times


def compare(ranking: Ranking, asked: argparse.Namespace, size: int, branch: str, threads: int):
    """Rows of one size, branch and number of threads, printed as a table."""
    torch.set_num_threads(threads)
    rgb = image(size)
    field = Field(rgb, ranking.checkpoint.mpp)
    total = sum(
        layer.size
        for each in (BRANCHES if branch == "both" else (branch,))
        for layer in ranking.checkpoint.layers(each)
    )
    rows: list[dict[str, Any]] = []
    runs: dict[int, Run] = {}

    def add(run: Run, runtime: str, **about: Any) -> None:
        runs[len(rows)] = run
        row = {"runtime": runtime, "strategy": None, "cr": 1, "branch": branch, "size": size}
        row |= {"threads": threads, "isa": None, "weights_kept": total, "compute_ratio": 1.0}
        rows.append(row | about)

    for name in asked.rivals:
        try:
            add(dense_run(name, ranking.checkpoint, branch, rgb, threads), name, max_abs_error=None)
        except Exception as error:
            print(f"{name} is left out: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    for strategy in asked.strategies:
        for cr in asked.cr:
            sparse = Sparse(ranking, Pruning(strategy, cr, cr), branch, threads)
            kept, ratio = sparse.counts()
            add(
                sparse.run(field),
                "sparse",
                strategy=strategy,
                cr=cr,
                isa=sparse.runtime.isa,
                weights_kept=kept,
                compute_ratio=round(ratio, 3),
                max_abs_error=None if asked.no_error else sparse.error(rgb),
            )
    clock = time.process_time if asked.cpu_time else time.perf_counter
    times = measure(runs, asked.repeats, clock)
    medians = {key: float(np.median(values)) for key, values in times.items()}
    dense = {row["runtime"]: medians[i] for i, row in enumerate(rows) if row["strategy"] is None}
    against = "onnxruntime" if "onnxruntime" in dense else min(dense, key=dense.get, default=None)
    print(f"\n{branch}, {size} x {size}, {threads} threads, ratios against {against}")
    print(f"{'runtime':34} {'median':>8} {'min':>8} {'p10-p90':>15} {'ratio':>6} ceiling")
    for i, row in enumerate(rows):
        low, high = np.percentile(times[i], [10, 90])
        row["median_ms"], row["min_ms"] = round(medians[i], 3), round(min(times[i]), 3)
        row["runs"] = len(times[i])
        name = row["runtime"]
        if row["strategy"]:
            name = f"{name} {row['isa']} {row['strategy']} CR {row['cr']:g}"
        ratio = f"{dense[against] / medians[i]:6.2f}" if against else ""
        print(
            f"{name:34} {medians[i]:8.1f} {min(times[i]):8.1f} {low:7.1f}-{high:<7.1f} {ratio}"
            f" {row['compute_ratio']:7.2f}"
        )
    return rows


def layer_table(ranking: Ranking, asked: argparse.Namespace, size: int) -> None:
    """Where the time goes, best of the repeats, one thread."""
    rgb = image(size)
    for cr in asked.cr:
        sparse = Sparse(ranking, Pruning(asked.strategies[0], cr, cr), "semantic", 1)
        net = sparse.runtime._nets["semantic"]
        best = np.full(len(net.layers), np.iinfo(np.int64).max)
        for _ in range(asked.repeats + 1):
            spent = np.zeros(len(net.layers), np.int64)
            net.run(rgb, 1, layer_ns=spent)
            best = np.minimum(best, spent)
        roof = net.roof / 1e9
        print(
            f"\n{asked.strategies[0]} CR {cr:g}, {size} x {size}: FMA roof {2 * roof:.0f} GFLOP/s"
        )
        print(f"{'layer':18} {'weights':>8} {'us':>8} {'GFLOP/s':>8} {'of roof':>8}")
        for layer, spent in zip(net.layers, best, strict=True):
            mask = sparse.masks["semantic"].get(layer.name)
            kept = layer.size if mask is None else int(np.count_nonzero(mask))
            rate = kept * layer.positions * size * size / spent
            row = f"{layer.name:18} {kept:8} {spent / 1e3:8.0f} {2 * rate:8.1f}"
            print(f"{row} {rate / roof:8.0%}")


def main() -> None:
    """Measure, print, write."""
    asked = options()
    ranking = Ranking(open_checkpoint())
    rows = [
        row
        for size in asked.size
        for branch in asked.branches
        for threads in asked.threads
        for row in compare(ranking, asked, size, branch, threads)
    ]
    if asked.layers:
        layer_table(ranking, asked, asked.size[0])
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
