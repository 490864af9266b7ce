"""The sparse kernels against dense rivals, interleaved in one process: rows of medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch, Field, Pruning
from ..errors import InputError
from ..pruning.strategy import Masks, Ranking, apply
from .rivals import RIVALS, RivalMissing, open_rival
from .sparse_runtime import SparseRuntime

#: Pause before each run (seconds): threads of the one before may spin on for a while.
PAUSE = 0.02
#: What dense rivals are compared with, the first of these that is there.
REFERENCES = ("onnxruntime", "torch-channels-last", "torch")
#: Of a row as it is written to files.
KEYS = (
    *("runtime", "strategy", "cr", "branch", "size", "threads", "isa", "weights_kept"),
    *("compute_ratio", "median_ms", "min_ms", "runs", "max_abs_error"),
)


@dataclass(frozen=True)
class Matrix:
    """What is timed: all combinations.

    Attributes
    ----------
    sizes
        Sides of the square image in pixels, multiples of the pooling grid.
    crs, strategies
        Of the sparse rows.
    threads
        Numbers of threads.
    branches
        Of ``semantic``, ``distance`` and ``both``. A row of one branch is a run of a loaded
        network; of both it goes from new masks to maps in the sparse runtime (masks, load, run),
        and is one branch after the other in the dense ones.
    rivals
        Of `RIVALS`.
    runs
        Interleaved repetitions; one round before them is not counted.
    errors
        Whether logits are compared with masked torch in float64.
    clock
        `time.perf_counter`, or `time.process_time` on a machine with other work.
    """

    sizes: Sequence[int] = (256, 512, 1024)
    crs: Sequence[float] = (1, 2, 5, 10, 16, 20, 32, 50, 64)
    strategies: Sequence[str] = ("layer-wise", "network-wide")
    threads: Sequence[int] = (1,)
    branches: Sequence[str] = ("semantic",)
    rivals: Sequence[str] = RIVALS
    runs: int = 15
    errors: bool = True
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        for name, found, known in (
            ("rival", self.rivals, RIVALS),
            ("branch", self.branches, (*BRANCHES, "both")),
        ):
            if wrong := sorted(set(found) - set(known)):
                raise InputError(f"The {name} {wrong[0]!r} is not known; choose of {known}.")
        for what, numbers in (("size", self.sizes), ("number of threads", self.threads)):
            if not numbers or min(numbers) < 1:
                raise InputError(f"A {what} of {min(numbers, default=0)} cannot be timed.")
        if self.runs < 1:
            raise InputError(f"{self.runs} runs give no median; ask for 1 at least, better 15.")


def rows(
    ranking: Ranking,
    matrix: Matrix,
    image: Callable[[int], NDArray[np.uint8]],
    done: Callable[[list[dict[str, Any]]], None],
    missing: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Time everything, one size, branch and number of threads after the other.

    Parameters
    ----------
    ranking
        Of a dense checkpoint.
    matrix
        What is timed.
    image
        Gives an (S, S, 3) image for a size.
    done
        Gets the rows of each group when it is finished.
    missing
        Gets a sentence about each rival that is not there, once.

    Returns
    -------
    list
        A dict a row, with `KEYS`, ``p10_ms`` and ``p90_ms``; ``max_abs_error`` is of the logits,
        None where not asked for.

    Raises
    ------
    InputError
        Where a size does not fit the pooling grid, or a CR is out of reach.
    NativeMissing
        Where the sparse kernels are.
    """
    import torch

    grid = 2 ** max(len(ranking.checkpoint.layers(b)) // 5 for b in BRANCHES)  # 5 a level, less 2
    if odd := [size for size in matrix.sizes if size % grid]:
        raise InputError(f"The size {odd[0]} is no multiple of {grid}, the network's pooling grid.")
    rivals = list(matrix.rivals)
    before, found = torch.get_num_threads(), []
    try:
        for size in matrix.sizes:
            rgb = image(size)
            for branch in matrix.branches:
                for threads in matrix.threads:
                    torch.set_num_threads(threads)
                    group = _Group(ranking, matrix, rgb, branch, threads)
                    for name in tuple(rivals):
                        try:
                            group.add_rival(name)
                        except RivalMissing as error:
                            rivals.remove(name)
                            missing(str(error))
                    for strategy in matrix.strategies:
                        for cr in matrix.crs:
                            group.add_sparse(Pruning(strategy, cr, cr, ranking.keep))
                    found += group.measured()
                    done(found[-len(group.rows) :])
    finally:
        torch.set_num_threads(before)
    return found


class _Group:
    """Rows of one size, branch and number of threads, timed together."""

    def __init__(
        self, ranking: Ranking, matrix: Matrix, rgb: NDArray[np.uint8], branch: str, threads: int
    ) -> None:
        self.ranking, self.matrix, self.rgb, self.threads = ranking, matrix, rgb, threads
        self.branch = branch
        self.branches = tuple(b for b in BRANCHES if branch in (b, "both"))
        self.rows: list[dict[str, Any]] = []
        self.runs: list[Callable[[], Any]] = []
        self._exact: dict[Branch, NDArray[Any]] | None = None

    def add_rival(self, name: str) -> None:
        weights = self.ranking.checkpoint.weights
        runs = [open_rival(name, weights[b], self.rgb, self.threads) for b in self.branches]
        worst = None
        if self.matrix.errors:
            if self._exact is None:
                self._exact = self._logits(self.ranking.checkpoint.weights)
            pairs = zip(runs, self.branches, strict=True)
            worst = max(float(np.abs(run() - self._exact[b]).max()) for run, b in pairs)
        self._add(lambda: [run() for run in runs], name, None, None, worst, None)

    def add_sparse(self, pruning: Pruning) -> None:
        checkpoint = self.ranking.checkpoint
        masks = self.ranking.masks(pruning)
        runtime = SparseRuntime(self.threads)
        runtime.load(checkpoint, masks)

        def logits(branch: Branch) -> NDArray[np.float32]:
            # Below `run`, which adds the sigmoid: rivals end at the logits, too.
            found = runtime.net(branch).run(self.rgb, self.threads)
            assert found is not None
            return found

        worst = None
        if self.matrix.errors:
            exact = self._logits(apply(checkpoint, pruning, masks).weights)
            worst = max(float(np.abs(logits(b) - exact[b]).max()) for b in self.branches)
        field = Field(self.rgb, checkpoint.mpp)

        def new_masks_to_maps() -> None:
            runtime.load(checkpoint, self.ranking.masks(pruning))
            runtime.run(field)

        run = new_masks_to_maps if self.branch == "both" else lambda: logits(self.branches[0])
        self._add(run, "sparse", pruning, masks, worst, runtime.isa)

    def measured(self) -> list[dict[str, Any]]:
        """Time all that were added, one after the other, again and again."""
        times: list[list[float]] = [[] for _ in self.runs]
        for repeat in range(self.matrix.runs + 1):
            for run, own in zip(self.runs, times, strict=True):
                time.sleep(PAUSE)
                begun = self.matrix.clock()
                run()
                if repeat:
                    own.append((self.matrix.clock() - begun) * 1e3)
        for row, own in zip(self.rows, times, strict=True):
            low, middle, high = np.percentile(own, [10, 50, 90])
            numbers = {"median": middle, "min": min(own), "p10": low, "p90": high}
            row |= {f"{name}_ms": round(float(value), 3) for name, value in numbers.items()}
            row["runs"] = len(own)
        return self.rows

    def _add(
        self,
        run: Callable[[], Any],
        runtime: str,
        pruning: Pruning | None,
        masks: Masks | None,
        worst: float | None,
        isa: str | None,
    ) -> None:
        kept, dense, sparse = 0, 0.0, 0.0
        for branch in self.branches:
            for layer in self.ranking.checkpoint.layers(branch):
                mask = None if masks is None else masks[branch].get(layer.name)
                nonzero = layer.size if mask is None else int(np.count_nonzero(mask))
                kept += nonzero
                dense += layer.size * layer.positions
                sparse += nonzero * layer.positions
        self.runs.append(run)
        self.rows.append(
            {
                "runtime": runtime,
                "strategy": pruning and pruning.strategy,
                "cr": pruning.cr_semantic if pruning else 1,
                "branch": self.branch,
                "size": self.rgb.shape[0],
                "threads": self.threads,
                "isa": isa,
                "weights_kept": kept,
                "compute_ratio": round(dense / sparse, 3),
                "median_ms": None,
                "min_ms": None,
                "runs": 0,
                "max_abs_error": worst,
            }
        )

    def _logits(self, weights: Any) -> dict[Branch, NDArray[Any]]:
        import torch

        from ..checkpoint.unet import build

        x = torch.from_numpy(self.rgb).permute(2, 0, 1)[None].double()
        with torch.inference_mode():
            return {b: build(weights[b]).double()(x)[0, 0].numpy() for b in self.branches}


def reference(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the dense row of a group that the others are compared with, None where there is none.

    It is ONNX Runtime's where that ran, else torch's.
    """
    dense = {row["runtime"]: row for row in found if row["strategy"] is None}
    return next((dense[name] for name in REFERENCES if name in dense), None)


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return a group of rows as text: medians, spread, ratios against `reference`, ceilings."""
    first, against = found[0], reference(found)
    named = f", ratios against {against['runtime']}" if against else ""
    lines = [
        f"{first['branch']}, {first['size']} x {first['size']} px, {first['threads']} "
        f"thread{'s' if first['threads'] > 1 else ''}, {first['runs']} runs{named}",
        f"{'runtime':36} {'median ms':>9} {'min':>8} {'p10-p90':>17} {'ratio':>7} {'ceiling':>7} "
        f"{'error':>8}",
    ]
    for row in found:
        name = row["runtime"]
        if row["strategy"]:
            name = f"{name} {row['isa']} {row['strategy']} CR {row['cr']:g}"
        ratio = f"{against['median_ms'] / row['median_ms']:.2f}" if against else ""
        error = "" if row["max_abs_error"] is None else f"{row['max_abs_error']:.1e}"
        spread = f"{row['p10_ms']:.1f}-{row['p90_ms']:.1f}"
        lines.append(
            f"{name:36} {row['median_ms']:9.1f} {row['min_ms']:8.1f} {spread:>17} {ratio:>7} "
            f"{row['compute_ratio']:7.2f} {error:>8}"
        )
    return "\n".join(lines)
