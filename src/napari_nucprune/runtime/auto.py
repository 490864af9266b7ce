"""Chooses between torch and the sparse kernels by what they take on this computer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoint.architecture import widths_of
from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES, Field, Maps, Progress, ShouldStop, never, no_progress
from ..errors import InputError
from ..native import NativeMissing
from ..pruning.cost import macs
from ..pruning.strategy import Masks
from . import speed
from .base import TILE, Runtime

if TYPE_CHECKING:
    from .onnx_runtime import OnnxRuntime
    from .sparse_runtime import SparseRuntime
    from .torch_runtime import TorchRuntime

RUNTIMES = ("auto", "torch", "sparse")


class AutoRuntime:
    """Runs a network with whichever runtime is expected to be quicker, by its multiply-adds.

    Parameters
    ----------
    device
        As of `TorchRuntime`; on anything but the CPU torch runs everything.
    threads
        For the sparse kernels; None takes every CPU that the process may use.
    tile
        Side of a tile's core in pixels.

    Attributes
    ----------
    note
        Why the sparse kernels cannot run what was loaded, in a sentence; empty where they can.
    """

    def __init__(self, device: str = "auto", threads: int | None = None, tile: int = TILE) -> None:
        from .torch_runtime import TorchRuntime

        self.torch: TorchRuntime = TorchRuntime(device, tile)
        self.note = ""
        self._sparse: SparseRuntime | None = None
        self._missing = ""
        self._active: Runtime = self.torch
        self._speeds: dict[str, speed.Speed] = {}
        self._onnx: OnnxRuntime | None = None
        self._dense: dict[str, dict[str, float]] = {}
        if self.torch.device == "cpu":
            from .sparse_runtime import SparseRuntime

            try:
                self._sparse = SparseRuntime(threads, tile)
            except NativeMissing as error:
                self._missing = str(error)

    @property
    def name(self) -> str:
        """Of the runtime that was chosen."""
        return self._active.name

    @property
    def device(self) -> str:
        """A torch device."""
        return self.torch.device

    def load(self, checkpoint: Checkpoint, masks: Masks | None = None) -> None:
        """Take a checkpoint and choose; see `Runtime.load`.

        The first network of an architecture on a computer is timed, about a second.
        """
        self._active = self._chosen(checkpoint, masks)
        self._active.load(checkpoint, masks)

    def load_dense(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint as it is stored, for the quickest dense runtime that is installed.

        It is the reference that times compare with: torch, or ONNX Runtime where that is there and
        was quicker. The first network of an architecture on a computer is timed in both, seconds.
        """
        self._active = self._quickest_dense(checkpoint)
        self._active.load(checkpoint)

    def run(
        self,
        field: Field,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Maps:
        """Run both branches; see `Runtime.run`."""
        return self._active.run(field, progress, should_stop)

    def _chosen(self, checkpoint: Checkpoint, masks: Masks | None) -> Runtime:
        from .sparse_runtime import unsupported

        self.note = self._missing
        if self._sparse is None:
            return self.torch
        self.note = unsupported(checkpoint) or ""
        if self.note:
            return self.torch
        known = self._speed(checkpoint, self._sparse)
        quicker = known.sparse(macs(checkpoint, masks)) <= known.torch
        return self._sparse if quicker else self.torch

    def _quickest_dense(self, checkpoint: Checkpoint) -> Runtime:
        if self.torch.device != "cpu":
            return self.torch
        import torch

        from .onnx_runtime import OnnxRuntime

        if self._onnx is None:
            try:
                self._onnx = OnnxRuntime(torch.get_num_threads(), self.torch.tile)
            except InputError:  # not installed
                return self.torch
        rivals: tuple[Runtime, Runtime] = (self.torch, self._onnx)
        names = [rival.name for rival in rivals]
        widths = [widths_of(checkpoint.weights[branch]) for branch in BRANCHES]
        key = (
            f"dense, {speed.processor()}, {self._onnx.threads} threads, "
            f"torch {torch.__version__}, onnxruntime {self._onnx.version}, {widths}"
        )
        seconds = self._dense.get(key) or speed.remembered_dense(key, names)
        if seconds is None:
            seconds = speed.measure_dense(checkpoint, rivals)
            speed.remember(key, seconds)
        self._dense[key] = seconds
        return min(rivals, key=lambda rival: seconds[rival.name])

    def _speed(self, checkpoint: Checkpoint, sparse: SparseRuntime) -> speed.Speed:
        import torch

        widths = [widths_of(checkpoint.weights[branch]) for branch in BRANCHES]
        key = (
            f"{speed.processor()}, {sparse.isa}, {sparse.threads} + {torch.get_num_threads()} "
            f"threads, torch {torch.__version__}, {widths}"
        )
        if key not in self._speeds:
            found = speed.remembered(key)
            if found is None:
                found = speed.measure(checkpoint, self.torch, sparse)
                speed.remember(key, found)
            self._speeds[key] = found
        return self._speeds[key]


def open_runtime(
    name: str = "auto", device: str = "auto", threads: int | None = None, tile: int = TILE
) -> Runtime:
    """Return a runtime by name, not yet loaded.

    Parameters
    ----------
    name
        One of `RUNTIMES`.
    device, threads, tile
        As of `AutoRuntime`; torch's own number of threads is not touched.

    Raises
    ------
    InputError
        Where it is not known, or cannot be used here.
    """
    from .torch_runtime import TorchRuntime

    if name == "torch":
        return TorchRuntime(device, tile)
    if name == "auto":
        return AutoRuntime(device, threads, tile)
    if name != "sparse":
        raise InputError(f"The runtime {name!r} is not known; choose {', '.join(RUNTIMES)}.")
    if device not in ("auto", "cpu"):
        raise InputError(f"The sparse runtime runs on the CPU, not on {device}; choose torch.")
    from .sparse_runtime import SparseRuntime

    try:
        return SparseRuntime(threads, tile)
    except NativeMissing as error:
        raise InputError(f"The sparse runtime cannot be used: {error}") from error
