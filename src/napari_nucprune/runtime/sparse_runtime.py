"""The sparse runtime: pruned weights cost nothing on the CPU (kernels in ``native/sparse``)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import HEAD, layers, widths_of
from ..checkpoint.format import Checkpoint, Weights
from ..doors import BRANCHES, Branch, Field, Maps, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from ..pruning.magnitude import Mask
from ..pruning.strategy import Masks
from .base import TILE, cut
from .sparse_library import SparseNet, isa
from .tiling import Window

#: Seconds between two looks at ``should_stop``.
LOOK = 0.02
WHAT = "Sparse network, percent done:"
DEEPEST = 8
Shape = tuple[int, int, int, int]


def default_threads() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def unsupported(checkpoint: Checkpoint) -> str | None:
    """Say in one sentence why a checkpoint cannot run here, or None where it can."""
    for branch in BRANCHES:
        reason = _unsupported(checkpoint.weights[branch])
        if reason:
            return f"The sparse runtime cannot run the {branch} branch: {reason}."
    return None


def _unsupported(weights: Weights) -> str | None:
    widths = widths_of(weights)
    if not 1 <= len(widths) <= DEEPEST or min(widths) < 1:
        return f"it is not a U-Net of 1 to {DEEPEST} levels"
    known: set[str] = set()
    for layer in layers(widths):
        names = f"{layer.name}.weight", f"{layer.name}.bias"
        known.update(names)
        if names[0] not in weights or names[1] not in weights:
            return f"{layer.name} has no weight or no bias"
        shape = weights[names[0]].shape
        fits = shape == layer.shape or (_is_conv(layer.name) and shape == (*layer.shape[:2], 1, 1))
        if not fits or weights[names[1]].shape != (layer.outputs,):
            return (
                f"{layer.name} has the shape {shape}; it runs 3x3 and 1x1 convolutions, "
                "2x2 transposed ones and a 1x1 head with one output"
            )
    extra = sorted(set(weights) - known)
    return f"{extra[0]} belongs to no layer of it" if extra else None


def _four(shape: tuple[int, ...]) -> Shape:
    a, b, c, d = shape
    return a, b, c, d


def _is_conv(name: str) -> bool:
    return name != HEAD and not name.startswith("up.")


class SparseRuntime:
    """Runs both branches with the sparse kernels.

    Parameters
    ----------
    threads
        For both branches together; None takes every CPU that the process may use.
    tile
        Side of a tile's core in pixels, a multiple of the pooling grid.

    Raises
    ------
    NativeMissing
        Where the native library is missing, or this CPU lacks the instruction set that
        ``NUCPRUNE_ISA`` forces.
    """

    name = "sparse"
    device = "cpu"

    def __init__(self, threads: int | None = None, tile: int = TILE) -> None:
        self.isa = isa()
        self.threads = max(1, default_threads() if threads is None else threads)
        self.tile = tile
        self._nets: dict[Branch, SparseNet] = {}
        self._shapes: dict[Branch, list[Shape]] = {}
        self._checkpoint: Checkpoint | None = None
        # By branch what its network has not taken yet.
        self._masks: dict[Branch, Mapping[str, Mask]] = {}

    def load(self, checkpoint: Checkpoint, masks: Masks | None = None) -> None:
        """Take a checkpoint; see `Runtime.load`.

        Each branch takes its weights when it is run, in its own thread: one start of threads less
        between new masks and maps. The arrays must not change until then.

        Raises
        ------
        InputError
            Where `unsupported` gives a reason.
        ValueError
            Where a mask has another shape than its weight.
        """
        if self._checkpoint is None or self._checkpoint.weights is not checkpoint.weights:
            if reason := unsupported(checkpoint):
                raise InputError(reason)
            for branch in BRANCHES:
                self._make(branch, checkpoint)
        for branch in BRANCHES:
            own = masks[branch] if masks is not None else {}
            for name, mask in own.items():
                if mask.shape != checkpoint.weights[branch][f"{name}.weight"].shape:
                    raise ValueError(f"the mask of {name} has the shape {mask.shape}")
        self._checkpoint = checkpoint
        self._masks = {b: masks[b] if masks is not None else {} for b in BRANCHES}

    def net(self, branch: Branch, threads: int | None = None) -> SparseNet:
        """Return a branch's network, with what was loaded; ``threads`` (None: all) may take it.

        Raises
        ------
        EnvironmentStopped
            Where the memory does not hold it.
        """
        if self._checkpoint is None:
            raise RuntimeError("load a checkpoint before run")
        net = self._nets[branch]
        if branch in self._masks:
            weights = self._checkpoint.weights[branch]
            net.load(weights, self._masks[branch], threads or self.threads)
            del self._masks[branch]
        return net

    def _make(self, branch: Branch, checkpoint: Checkpoint) -> None:
        found = checkpoint.layers(branch)
        weights = checkpoint.weights[branch]
        shapes = [_four(weights[f"{layer.name}.weight"].shape) for layer in found]
        if self._shapes.get(branch) != shapes:  # else the memory of the last one serves
            self._nets[branch] = SparseNet(
                [replace(layer, shape=shape) for layer, shape in zip(found, shapes, strict=True)],
                [shape[-1] for shape in shapes],
            )
            self._shapes[branch] = shapes

    def run(
        self,
        field: Field,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Maps:
        """Run both branches; see `Runtime.run`. Stops within 50 ms."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            raise RuntimeError("load a checkpoint before run")
        depth = max(net.depth for net in self._nets.values())
        rgb, cuts = cut(field, checkpoint, depth, self.tile)
        maps = {branch: np.empty(field.rgb.shape[:2], np.float32) for branch in BRANCHES}
        # A branch a thread; what is left of the threads splits rows.
        parallel = min(self.threads, len(BRANCHES))
        with ThreadPoolExecutor(parallel, thread_name_prefix="nucprune-sparse") as pool:
            for done, window in enumerate(cuts):

                def inside(part: float, done: int = done) -> None:
                    progress(WHAT, int(100 * (done + part) / len(cuts)), 100)

                inside(0)
                self._run_window(pool, rgb, window, maps, inside, should_stop)
        progress(WHAT, 100, 100)
        return Maps(maps["semantic"], maps["distance"], field.mpp)

    def _run_window(
        self,
        pool: ThreadPoolExecutor,
        rgb: NDArray[np.uint8],
        window: Window,
        maps: dict[Branch, NDArray[np.float32]],
        progress: Callable[[float], None],
        should_stop: ShouldStop,
    ) -> None:
        cancel, parts = ctypes.c_int32(0), [ctypes.c_int32(0) for _ in BRANCHES]

        def one(index: int) -> None:
            branch = BRANCHES[index]
            threads = max(1, (self.threads + 1 - index) // 2)
            out = self.net(branch, threads).run(rgb[window.outer], threads, cancel, parts[index])
            if out is not None:
                core = out[window.inner]
                maps[branch][window.core] = sigmoid(core) if branch == "semantic" else core

        pending: set[Future[None]] = set()
        try:
            if should_stop():
                raise Cancelled("Cancelled.")
            pending = {pool.submit(one, index) for index in range(len(BRANCHES))}
            while pending:
                done, pending = wait(pending, LOOK)
                for future in done:
                    future.result()
                if pending and should_stop():
                    raise Cancelled("Cancelled.")
                if pending:
                    progress(sum(part.value for part in parts) / (1000 * len(parts)))
        finally:
            if pending:  # the branches still write into what the caller is about to drop
                cancel.value = 1
                wait(pending)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-x)) in float32, without a warning for large x."""
    with np.errstate(over="ignore"):
        out = np.exp(np.negative(logits))
    out += np.float32(1)
    return np.reciprocal(out, out=out)
