"""ONNX Runtime on the CPU: a dense runtime that pruned ones are compared with (extra ``bench``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoint.architecture import widths_of
from ..checkpoint.format import Checkpoint, Weights
from ..doors import BRANCHES, Branch, Field, Maps, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from ..pruning.strategy import Masks
from .base import TILE, cut
from .onnx_model import onnx_model
from .sparse_runtime import default_threads, sigmoid


def why_missing() -> str:
    """Say in a sentence why ONNX Runtime cannot be used; empty where it can."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except Exception as error:  # a broken installation raises whatever it likes
        return (
            f"ONNX Runtime cannot be used ({str(error)[:80]}): "
            'pip install "napari-nucprune[bench]".'
        )
    return ""


def open_session(weights: Weights, threads: int) -> Any:
    """Return an onnxruntime session of a branch; its threads do not spin after a run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Else its threads spin on after a run, on the cores of whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(onnx_model(weights), options, ["CPUExecutionProvider"])


class OnnxRuntime:
    """Runs both branches with ONNX Runtime; pruned weights are zeros in dense convolutions.

    Parameters
    ----------
    threads
        None takes every CPU that the process may use.
    tile
        Side of a tile's core in pixels, a multiple of the pooling grid.

    Raises
    ------
    InputError
        Where it is not installed.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, threads: int | None = None, tile: int = TILE) -> None:
        if reason := why_missing():
            raise InputError(reason)
        import onnxruntime

        self.version: str = onnxruntime.__version__
        self.threads = max(1, default_threads() if threads is None else threads)
        self.tile = tile
        self._sessions: dict[Branch, Any] = {}
        self._loaded: tuple[Checkpoint, Masks | None] | None = None

    def load(self, checkpoint: Checkpoint, masks: Masks | None = None) -> None:
        """Take a checkpoint; see `Runtime.load`. New masks are a new model: some 100 ms."""
        if self._loaded is not None:
            before, last = self._loaded
            if before.weights is checkpoint.weights and last is masks is None:
                self._loaded = (checkpoint, masks)
                return
        for branch in BRANCHES:
            weights = dict(checkpoint.weights[branch])
            for layer, mask in (masks[branch] if masks is not None else {}).items():
                weights[f"{layer}.weight"] = weights[f"{layer}.weight"] * mask
            self._sessions[branch] = open_session(weights, self.threads)
        self._loaded = (checkpoint, masks)

    def run(
        self,
        field: Field,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Maps:
        """Run both branches; see `Runtime.run`."""
        if self._loaded is None:
            raise RuntimeError("load a checkpoint before run")
        checkpoint = self._loaded[0]
        depth = max(len(widths_of(checkpoint.weights[branch])) for branch in BRANCHES)
        rgb, cuts = cut(field, checkpoint, depth, self.tile)
        maps = {branch: np.empty(field.rgb.shape[:2], np.float32) for branch in BRANCHES}
        for done, window in enumerate(cuts):
            progress("Processing tiles", done, len(cuts))
            x = np.ascontiguousarray(rgb[window.outer].transpose(2, 0, 1)[None], np.float32)
            for branch in BRANCHES:
                if should_stop():
                    raise Cancelled("Cancelled.")
                out = self._sessions[branch].run(None, {"x": x})[0][0, 0][window.inner]
                maps[branch][window.core] = sigmoid(out) if branch == "semantic" else out
        progress("Processing tiles", len(cuts), len(cuts))
        return Maps(maps["semantic"], maps["distance"], field.mpp)
