"""From settled cores to files: ids, labels, table, outlines and run.json."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Cancelled
from ..files import cannot_write, replacing
from . import export, pyramid
from .cluster import Runner
from .lattice import Core
from .plan import OUTPUTS, Ask, Begun
from .scratch import Found
from .stages import Order, run_stage
from .tasks import grouped, key


def assemble(
    ask: Ask, begun: Begun, cores: list[Core], order: Order, runner: Runner
) -> NDArray[np.int64]:
    """Give the objects their ids and write all files; return the ids at seams."""
    from dask import delayed

    scratch, lattice = begun.scratch, begun.lattice
    offsets = np.zeros((lattice.rows, lattice.columns), np.int64)
    total = 0
    for core in cores:
        offsets[core] = total
        total += int(scratch.about("settled", core)["nuclei"])
    with _writing(begun):
        np.save(scratch.offsets, offsets)
        if not scratch.zarr.exists():
            own = (begun.plan["input"]["mpp"][0], begun.plan["input"]["mpp"][1])
            mpp = (own[0] * begun.ratios[0], own[1] * begun.ratios[1])
            making = scratch.zarr.with_suffix(".making")
            pyramid.create(making, lattice, mpp, own, ask.slide.name)
            os.replace(making, scratch.zarr)
    # The table and the outlines are written while the others write labels.
    with ThreadPoolExecutor(1) as pool:
        found = (_read(begun, core, offsets, order) for core in cores)
        written = pool.submit(export.write_all, scratch.folder, ask.table, ask.zipped, found)
        run, level = delayed(run_stage, pure=False), delayed(pyramid.write_level, pure=False)
        runner(
            [
                run(order, "labels", own, None, dask_key_name=key(order, "labels", at))
                for at, own in grouped(ask, begun, cores).items()
            ],
            lambda _: None,
        )
        sides = _coarser(set(cores))
        for number in range(1, len(pyramid.level_shapes(lattice.shape))):
            runner(
                [
                    level(
                        scratch.zarr, number, [chunk], lattice.core,
                        dask_key_name=key(order, f"level-{number}", chunk),
                    )
                    for chunk in sides
                ],
                lambda _: None,
            )  # fmt: skip
            sides = _coarser(set(sides))
        return written.result()


def _coarser(chunks: set[Core]) -> dict[Core, None]:
    """Return the next level's chunks that lie over some."""
    return dict.fromkeys(sorted({(row // 2, column // 2) for row, column in chunks}))


def _read(begun: Begun, core: Core, offsets: Any, order: Order) -> tuple[int, Found | None]:
    if order.hooks is not None and order.hooks.stop.is_set():
        raise Cancelled("Cancelled.")
    return int(offsets[core]), begun.scratch.found(core)


def about_run(
    ask: Ask, begun: Begun, cores: list[Core], seams: list[int], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return what run.json holds: everything needed to repeat the run."""
    scratch, plan, lattice = begun.scratch, begun.plan, begun.lattice
    maps = [scratch.about("maps", core) for core in cores]
    nuclei = [scratch.about("nuclei", core) for core in cores]
    settled = [scratch.about("settled", core) for core in cores]
    look = scratch.read_json(scratch.folder / "cores.json", cores=list, bad=list)
    bad = {tuple(square) for found in (look, *maps) for square in found["bad"]}
    pixel = begun.mpp**2 / 1e6
    slide_mm2 = lattice.shape[0] * lattice.shape[1] * pixel
    return {
        **plan["about"],
        "image": plan["input"]["path"],
        "input": plan["input"],
        "network": plan["network"],
        "settings": plan["settings"],
        "environment": plan["environment"],
        "shape": list(begun.source.shape),
        "labels_shape": list(lattice.shape),
        "mpp": plan["input"]["mpp"],
        "mpp_assumed": plan["input"]["mpp_assumed"],
        "labels_mpp": begun.mpp,
        "labels_ratios": list(begun.ratios),
        "slide_mm2": slide_mm2,
        "tissue_mm2": sum(mark["tissue_px"] for mark in maps) * pixel,
        "cores": len(lattice),
        "cores_run": sum(mark["tissue_px"] > 0 for mark in maps),
        "bad_tiles": len(bad),
        "nuclei": sum(mark["nuclei"] for mark in settled),
        "contested_cores": sum(mark["changed"] for mark in settled),
        "seam_objects": seams,
        # Of this start, but for the parts, which are sums over all cores and threads.
        "seconds": {
            **{name: round(value, 3) for name, value in seconds.items()},
            "reading": round(sum(mark["read"] for mark in maps), 3),
            "network": round(sum(mark["network"] for mark in maps), 3),
            "nuclei": round(sum(mark["seconds"] for mark in nuclei), 3),
        },
    }


def deliver(ask: Ask, begun: Begun) -> None:
    """Move the results into the output folder, run.json last, and remove the scratch files.

    The scratch files' run.json stays until all of them go: it says that the others are moved.
    """
    scratch = begun.scratch
    with _writing(begun):
        # What a kill left half-written: zarr's chunks, and our own last file.
        for left in (*scratch.zarr.rglob("*.partial"), *ask.output.glob(".run.json.*.tmp")):
            left.unlink(missing_ok=True)
        for name in OUTPUTS[:-1]:
            new, old = scratch.folder / name, ask.output / name
            if not new.exists() and name in ask.outputs:
                continue  # an earlier start moved it already
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
            if new.exists():
                os.replace(new, old)
        with replacing(ask.output / OUTPUTS[-1]) as temporary:
            shutil.copyfile(scratch.assembled, temporary)
    scratch.drop()


@contextmanager
def _writing(begun: Begun) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(begun.scratch.output, error) from error
