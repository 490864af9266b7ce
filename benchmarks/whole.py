"""Whole slides by the command line: seconds a mm2 and where they go, and peak memory.

    python benchmarks/whole.py speed SLIDE --threads 2
    python benchmarks/whole.py memory SMALL.tif LARGE.tif

``speed`` runs ``nucprune segment`` end to end, outputs included, at CR 1 with torch and at CR 1, 5
and 16 with the sparse kernels, the pruned ones also recovered on the slide. ``memory`` takes the
peak of the sum of PSS over the command's processes (Linux), at CR 16 with the sparse kernels,
recovered on bundled tissue. The slides are made by benchmarks/pyramid.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = (
    *(("torch", 1, False), ("sparse", 1, False), ("sparse", 5, False), ("sparse", 16, False)),
    *(("sparse", 5, True), ("sparse", 16, True)),
)


def family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        for task in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                todo += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def pss(pids: list[int]) -> int:
    """Return the bytes of memory of processes, what is shared counted once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def run(
    slide: Path, output: Path, runtime: str, cr: float, *more: str, watch: bool = False
) -> tuple[dict, float, int]:
    """Return run.json, wall seconds, and the peak of memory in bytes where it is watched."""
    command = [sys.executable, "-m", "napari_nucprune.cli", "segment", str(slide), "-o",
               str(output), "--runtime", runtime, "--slide", "--overwrite", *more]  # fmt: skip
    if cr > 1:
        command += ["--cr", str(cr)]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    while process.poll() is None:
        if watch:
            peak = max(peak, pss(family(process.pid)))
        time.sleep(0.2)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(process.returncode)
    return json.loads((output / "run.json").read_text()), seconds, peak


def speed(given: argparse.Namespace) -> None:
    heads = ("s/mm2", "total s", "reading", "network", "nuclei and outlines", "writing", "x")
    print("| network | found | " + " | ".join(heads) + " |")
    print("|---" * (2 + len(heads)) + "|")
    first = None
    for runtime, cr, recovered in RUNS:
        if given.cr and cr not in given.cr:
            continue
        with tempfile.TemporaryDirectory() as folder:
            more = ["--threads", str(given.threads)]
            if recovered:
                more += ["--recover", str(given.slide)]
            about, seconds, _ = run(given.slide, Path(folder), runtime, cr, *more)
        first = first or seconds
        spent, n = about["seconds"], given.threads
        parts = [spent[name] / n for name in ("reading", "network", "nuclei")]
        print(
            f"| {runtime}, CR {cr:g}{', recovered' if recovered else ''} | {about['nuclei']:,} | "
            f"{seconds / about['tissue_mm2']:.2f} | {seconds:.1f} | "
            + " | ".join(f"{part:.1f}" for part in (*parts, spent["write"]))
            + f" | {first / seconds:.2f} |",
            flush=True,
        )


def memory(given: argparse.Namespace) -> None:
    for slide in given.slides:
        with tempfile.TemporaryDirectory() as folder:
            # One-shot pruning would leave no nuclei, and what they take would not show.
            recover = ("--recover", "bundled")
            about, seconds, peak = run(slide, Path(folder), "sparse", 16, *recover, watch=True)
        shape = "x".join(map(str, about["shape"]))
        print(
            f"{slide.name}: {shape} px, {about['cores_run']} of {about['cores']} cores, "
            f"{about['nuclei']:,} nuclei, {seconds:.0f} s, peak {peak / 1e6:.0f} MB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("speed")
    sub.add_argument("slide", type=Path)
    sub.add_argument("--threads", type=int, default=2)
    sub.add_argument("--cr", type=float, action="append", help="only these")
    sub.set_defaults(run=speed)
    sub = commands.add_parser("memory")
    sub.add_argument("slides", type=Path, nargs="+")
    sub.set_defaults(run=memory)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
