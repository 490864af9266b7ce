"""A whole slide as the dock runs it: what is asked, and what can be shown meanwhile."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .runtime.sparse_runtime import default_threads
from .slides.cluster import Crew
from .slides.field import network_grid
from .slides.lattice import Core
from .slides.plan import Ask, Network
from .slides.scratch import Scratch, Stage
from .slides.source import open_source
from .slides.stages import Hooks
from .slides.whole import segment_slide

if TYPE_CHECKING:
    from .doors import Progress, Pruning, ShouldStop
    from .job import Job
    from .preview import Session

#: Every so manieth network pixel is shown while results come, or fewer: most pixels a side.
STRIDE, LARGEST = 16, 2048


def ask_for(session: Session, pruning: Pruning, job: Job, slide: Path, output: Path) -> Ask:
    """Return what to run for the dock's controls.

    Parameters
    ----------
    session, pruning, job
        The checkpoint, how it is pruned, and the recovery, which is done before the first tile
        where it has not been. A pixel size of the job's image that is not the file's own (typed,
        or the layer's scale) is the run's.
    slide, output
        The file, and the folder for the results.

    Raises
    ------
    InputError
        Where the file is no slide any more.
    """

    def prepare(progress: Progress, should_stop: ShouldStop) -> Network:
        from .runtime.auto import open_runtime

        checkpoint = session.recovered(pruning, job, progress, should_stop)
        runtime = open_runtime("auto", "cpu")
        runtime.load(checkpoint)
        return Network(checkpoint, runtime.name, runtime.device, {
            "checkpoint": {"name": session.checkpoint.name, "sha256": session.checkpoint.sha256},
            "pruning": pruning.as_dict(),
            "recovery": (checkpoint.pruning or {}).get("recovery"),
        })  # fmt: skip

    recover = job.recovery if session.masks(pruning) is not None else "off"
    named = {
        "checkpoint": session.checkpoint.sha256,
        "pruning": pruning.as_dict(),
        "recover": recover,
        "reselect": job.reselect if recover != "off" else None,
    }
    crew = Crew(default_threads())
    own, mpp = open_source(slide, slide=True).mpp, job.source.mpp
    if own is not None and mpp is not None and np.allclose(own, mpp, rtol=1e-4):
        mpp = None
    return Ask(slide, output, session.checkpoint, named, prepare, mpp=mpp, crew=crew)


@dataclass
class SlideJob:
    """A run that goes on in another thread.

    Attributes
    ----------
    ask, hooks
        What is done, and how it is held.
    """

    ask: Ask
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        source = open_source(self.ask.slide, self.ask.mpp, slide=True)
        self._ratios, shape = network_grid(source, self.ask.opened.mpp)
        # A core is 1024 pixels: its part of the picture is a whole number of pixels.
        self._stride = STRIDE
        while max(shape) > LARGEST * self._stride and self._stride < self.ask.core:
            self._stride *= 2
        self._labels = np.zeros([-(-n // self._stride) for n in shape], np.int32)
        self._lock, self._changed = threading.Lock(), False
        self._scratch = Scratch(self.ask.output)
        self.hooks.done = self._done

    def run(self, progress: Progress) -> dict[str, Any]:
        """Run to the end, or until ``hooks.stop``; see `segment_slide`."""
        self._show_earlier()
        return segment_slide(self.ask, progress, hooks=self.hooks)

    def preview(self) -> tuple[NDArray[np.int32], NDArray[np.float64]] | None:
        """Return some pixels of what was found so far, and these pixels to level 0's (3x3).

        None where nothing came since the last time.
        """
        with self._lock:
            changed, self._changed = self._changed, False
            return (
                (self._labels.copy(), _transform(self._ratios, self._stride)) if changed else None
            )

    def _show_earlier(self) -> None:
        """Put what an earlier start of the same run found into the preview."""
        with suppress(InputError):
            plan = self._scratch.plan()
            if plan is None or plan.get("network") != json.loads(json.dumps(self.ask.network)):
                return
            for core in self._scratch.marked("nuclei"):
                self._done("nuclei", core, self._scratch.about("nuclei", core))

    def _done(self, stage: Stage, core: Core, about: dict[str, Any]) -> None:
        if stage != "nuclei" or not about["nuclei"]:
            return
        claims = self._scratch.claims("nuclei", core)
        if claims is None:
            return
        small = claims.labels[:: self._stride, :: self._stride]
        y, x = (i * self.ask.core // self._stride for i in core)
        with self._lock:
            part = self._labels[y : y + len(small), x : x + small.shape[1]]
            part[...] = small[: part.shape[0], : part.shape[1]]
            self._changed = True


def pyramid_of(output: Path, run: dict[str, Any]) -> tuple[list[Any], NDArray[np.float64]]:
    """Return the finished labels' levels, and their pixels to level 0's (3x3)."""
    import zarr

    group = zarr.open_group(str(output / "instances.zarr"), mode="r")
    names = sorted(group.array_keys(), key=int)
    ratios = tuple(run["labels_ratios"])
    return [group[name] for name in names], _transform((ratios[0], ratios[1]), 1)


def _transform(ratios: tuple[float, float], stride: int) -> NDArray[np.float64]:
    transform = np.eye(3)
    for axis, ratio in enumerate(ratios):
        transform[axis, axis] = ratio * stride
        transform[axis, 2] = 0.5 * ratio - 0.5
    return transform
