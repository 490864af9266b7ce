"""What a process needs to work on a slide's cores: the open slide, the network, the files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import format as checkpoint_format
from ..doors import Field, Merge
from ..errors import EnvironmentStopped, NucpruneError
from .field import network_grid, resample
from .fixed import ZERO
from .identity import difference, environment
from .lattice import Box, Core, Lattice
from .scratch import Scratch
from .source import bad_of, open_source

if TYPE_CHECKING:
    from ..runtime.base import Runtime


class Bench:
    """One for all threads of a process; each thread has a runtime of its own.

    Parameters
    ----------
    output
        The output folder, in which a plan lies.

    Raises
    ------
    EnvironmentStopped
        Where this process would compute other bytes than the plan's.
    """

    def __init__(self, output: str) -> None:
        self.scratch = Scratch(output)
        plan = self.scratch.plan()
        if plan is None:
            raise EnvironmentStopped(f"{output} holds no run; is it the same folder everywhere?")
        self.plan: dict[str, Any] = plan
        wanted = plan["environment"]
        own = environment(wanted["runtime"], wanted["device"])
        if found := difference(wanted, own):
            raise EnvironmentStopped(
                f"A worker differs from the run ({found}) and would give other results; install "
                "the same versions everywhere, or set NUCPRUNE_ISA."
            )
        settings = plan["settings"]
        self.merge = Merge(**settings["merge"])
        self.tissue: bool = settings["tissue_mask"]
        given = plan["input"]
        self.source = open_source(given["path"], given["mpp_given"], slide=True)
        self.checkpoint = checkpoint_format.load(self.scratch.network)
        self.ratios, shape = network_grid(self.source, self.checkpoint.mpp)
        self.lattice = Lattice(shape, settings["core"], settings["halo"], settings["reach"])
        self.mpp: float = plan["mpp"]
        self._own = threading.local()

    @property
    def runtime(self) -> Runtime:
        """Runtime of the calling thread, with the network loaded, for a window in one piece."""
        if not hasattr(self._own, "runtime"):
            self._own.runtime = self._opened()
        runtime: Runtime = self._own.runtime
        return runtime

    def _opened(self) -> Runtime:
        about = self.plan["environment"]
        window = self.lattice.core + 2 * self.lattice.halo
        runtime: Runtime
        # One thread a window: with two, torch adds in another order.
        if about["runtime"] == "sparse":
            from ..runtime.sparse_runtime import SparseRuntime

            runtime = SparseRuntime(1, window)
        else:
            import torch

            from ..runtime.torch_runtime import TorchRuntime

            torch.set_num_threads(1)
            runtime = TorchRuntime(about["device"], window)
        runtime.load(self.checkpoint)
        return runtime

    def window(self, core: Core) -> NDArray[np.uint8]:
        """Read a core with its halo, (core + 2 * halo) squared, reflected at the slide's edges."""
        lattice = self.lattice
        y0, x0, y1, x1 = lattice.box(core, lattice.halo)
        rgb = resample(self.source, self.ratios, slice(y0, y1), slice(x0, x1))
        top, left = (i * lattice.core - lattice.halo for i in core)
        side = lattice.core + 2 * lattice.halo
        missing = ((y0 - top, top + side - y1), (x0 - left, left + side - x1), (0, 0))
        return np.pad(rgb, missing, mode="reflect") if np.any(missing) else rgb

    def field(self, rgb: NDArray[np.uint8]) -> Field:
        """Return a window as the runtimes take it."""
        return Field(np.ascontiguousarray(rgb), self.checkpoint.mpp)

    def stored(self, box: Box) -> NDArray[np.uint16]:
        """Return the stored maps of a box, (2, h, w) uint16; glass is no nucleus at distance 0."""
        y0, x0, y1, x1 = box
        side = self.lattice.core
        out = np.empty((2, y1 - y0, x1 - x0), np.uint16)
        out[0], out[1] = 0, ZERO
        for row in range(y0 // side, -(-y1 // side)):
            for column in range(x0 // side, -(-x1 // side)):
                maps = self.scratch.maps((row, column), side)
                if maps is None:
                    continue
                top, left = max(y0, row * side), max(x0, column * side)
                low, right = min(y1, (row + 1) * side), min(x1, (column + 1) * side)
                out[:, top - y0 : low - y0, left - x0 : right - x0] = maps[
                    :,
                    top - row * side : low - row * side,
                    left - column * side : right - column * side,
                ]
        return out

    def bad(self) -> set[tuple[int, int, int]]:
        """Return (level, row, column) of the slide's squares that could not be read so far."""
        return bad_of(self.source)

    def check_slide(self) -> None:
        """See whether what could not be read is damage, or the whole file's absence.

        Raises
        ------
        EnvironmentStopped
            Where the slide cannot be opened any more as it was.
        """
        given = self.plan["input"]
        try:
            again = open_source(given["path"], given["mpp_given"], slide=True)
            if again.shape == self.source.shape:
                return
        except (NucpruneError, OSError):
            pass
        raise EnvironmentStopped(
            f"{given['path']} cannot be read any more; what is finished stays: bring it back and "
            "repeat what you did."
        )


_benches: OrderedDict[tuple[str, str], Bench] = OrderedDict()
_opening = threading.Lock()


def bench_for(output: str | Path, token: str) -> Bench:
    """Return this process's bench; `token` names the start of a run."""
    key = str(output), token
    with _opening:  # a plain image is held as a whole: once, and not by every thread
        if key not in _benches:
            _benches[key] = Bench(key[0])
            while len(_benches) > 2:
                _benches.popitem(last=False)
        return _benches[key]


def close_bench(output: str | Path, token: str) -> None:
    """Forget a bench of this process."""
    with _opening:
        _benches.pop((str(output), token), None)
