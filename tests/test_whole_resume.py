"""Whole slides that are killed, stopped or continued: the same bytes, and nothing lost."""

import errno
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_nucprune.errors import Cancelled, EnvironmentStopped, InputError
from napari_nucprune.slides import scratch as scratch_files
from napari_nucprune.slides.stages import Hooks
from napari_nucprune.slides.whole import segment_slide
from napari_nucprune.wholejob import SlideJob
from whole_helpers import ask, bytes_of, reference, same, slide, write

__all__ = ["reference", "slide"]

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from whole_helpers import ask
from napari_nucprune.slides.whole import segment_slide
from napari_nucprune.slides.cluster import Crew
segment_slide(ask({slide!r}, {output!r}, crew=Crew(2)))
"""


def test_killed_at_random_moments(slide, reference, tmp_path):
    """SIGKILL after some number of files; in the end the same bytes, and finished cores stay."""
    output = tmp_path / "out"
    script = SCRIPT.format(tests=str(Path(__file__).parent), slide=str(slide), output=str(output))
    marks = output / scratch_files.FOLDER / "marks"
    chance = random.Random(5)
    finished = 0
    for least in (2, 25, 60):
        process = subprocess.Popen([sys.executable, "-c", script])
        before = {path: path.stat().st_mtime_ns for path in marks.glob("*/*.json")}
        while len(list(marks.glob("*/*.json"))) < least and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.wait()
        after = list(marks.glob("*/*.json"))
        for path, moment in before.items():
            assert not marks.exists() or path.stat().st_mtime_ns == moment, "done twice"
        finished = max(finished, len(after))
    assert finished >= 25
    segment_slide(ask(slide, output))
    same(bytes_of(output), bytes_of(reference))
    assert not (output / scratch_files.FOLDER).exists()


KILLED_AFTER = """
import os, signal
real = os.replace
def replace(source, target):
    real(source, target)
    if os.fspath(target).replace(os.sep, "/").endswith({name!r}):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""


def test_killed_while_the_results_are_written_and_moved(slide, reference, tmp_path):
    """SIGKILL right after a file got its name: what is there is never taken for what is not."""
    output = tmp_path / "out"
    script = SCRIPT.format(tests=str(Path(__file__).parent), slide=str(slide), output=str(output))
    folder = f"out/{scratch_files.FOLDER}"
    for name in (
        f"{folder}/instances.zarr",
        f"{folder}/marks/labels/1.1.json",
        f"{folder}/nuclei.geojson",
        f"{folder}/run.json",
        "out/instances.zarr",
        "out/run.json",
    ):
        code = KILLED_AFTER.format(name=name) + script
        process = subprocess.run([sys.executable, "-c", code], check=False)
        assert process.returncode == -signal.SIGKILL, name
        assert (output / scratch_files.FOLDER / "plan.json").exists()
    segment_slide(ask(slide, output))
    same(bytes_of(output), bytes_of(reference))
    assert not (output / scratch_files.FOLDER).exists()


def stopped_after(slide, output, tiles, **options):
    """Begin a run and stop it."""
    hooks = Hooks()
    seen = []

    def done(stage, core, about):
        seen.append((stage, core))
        if len(seen) >= tiles:
            hooks.stop.set()

    hooks.done = done
    with pytest.raises(Cancelled):
        segment_slide(ask(slide, output, **options), hooks=hooks)
    return seen


def test_cancelled_and_continued(slide, reference, tmp_path):
    output = tmp_path / "out"
    stopped_after(slide, output, 9)
    told = []
    segment_slide(ask(slide, output), progress=lambda *about: told.append(about))
    same(bytes_of(output), bytes_of(reference))
    segmenting = [about for about in told if about[0].startswith("Segmenting")]
    assert segmenting[-1][1] == segmenting[-1][2]
    assert "nuclei" in segmenting[-1][0]
    assert "mm²" in segmenting[-1][0]


def test_what_differs_is_refused(slide, tmp_path, monkeypatch):
    output = tmp_path / "out"
    stopped_after(slide, output, 5)
    other = tmp_path / "other.tif"
    write(other, [np.full((300, 300, 3), 100, np.uint8)])
    for wrong in (
        ask(other, output),
        ask(slide, output, tissue_mask=False),
        ask(slide, output, table="parquet"),
        ask(slide, output, mpp=0.5),
        ask(slide, output, runtime="torch"),
    ):
        with pytest.raises(InputError, match="differs") as error:
            segment_slide(wrong)
        assert "\n" not in str(error.value)
    with monkeypatch.context() as patch:
        patch.setenv("NUCPRUNE_ISA", "baseline")
        with pytest.raises(InputError, match="isa"):
            segment_slide(ask(slide, output))
    segment_slide(ask(other, output, overwrite=True))
    assert bytes_of(output)[0]["0"].shape == (300, 300)
    # And what is finished is refused, too.
    with pytest.raises(InputError, match="--overwrite"):
        segment_slide(ask(other, output))
    segment_slide(ask(other, output, overwrite=True, zipped=True))
    assert not (output / "nuclei.geojson").exists(), "of an older run"


def test_a_worker_that_differs_is_refused(slide, tmp_path, monkeypatch):
    from napari_nucprune.slides.bench import Bench
    from napari_nucprune.slides.scratch import Scratch

    stopped_after(slide, tmp_path / "out", 3)
    scratch = Scratch(tmp_path / "out")
    plan = scratch.plan()
    plan["environment"]["opencv"] = "1.0"
    scratch.begin(plan)
    with pytest.raises(EnvironmentStopped, match="opencv"):
        Bench(str(tmp_path / "out"))


def test_a_full_disk_keeps_what_is_done(slide, reference, tmp_path, monkeypatch):
    output = tmp_path / "out"
    real, written = scratch_files.Scratch.save_maps, []

    def full(self, core, maps):
        if len(written) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, core, maps)
        written.append(core)

    with monkeypatch.context() as patch:
        patch.setattr(scratch_files.Scratch, "save_maps", full)
        with pytest.raises(EnvironmentStopped, match="full") as error:
            segment_slide(ask(slide, output))
    assert error.value.exit_code == 3
    marks = output / scratch_files.FOLDER / "marks" / "maps"
    assert len(list(marks.glob("*.json"))) >= 4
    segment_slide(ask(slide, output))
    same(bytes_of(output), bytes_of(reference))


def test_one_run_at_a_time_in_a_folder(slide, tmp_path):
    hooks, held = Hooks(), threading.Event()
    hooks.pause.set()
    hooks.done = lambda *_: None
    first = threading.Thread(
        target=lambda: (held.set(), segment_slide(ask(slide, tmp_path / "out"), hooks=hooks))
    )
    first.start()
    held.wait()
    while not (tmp_path / "out" / scratch_files.FOLDER / "plan.json").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(InputError, match="Another run is at work"):
            segment_slide(ask(slide, tmp_path / "out", overwrite=True))
    finally:
        hooks.pause.clear()
        first.join()
    assert (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("name", ["plan.json", "cores.json", "marks/maps/*.json"])
def test_what_a_lost_power_left_empty_is_made_again(name, slide, reference, tmp_path):
    hooks, done = Hooks(), []
    hooks.done = lambda *_: done.append(1) or (len(done) == 3 and hooks.stop.set())
    with pytest.raises(Cancelled):
        segment_slide(ask(slide, tmp_path / "out"), hooks=hooks)
    damaged = min((tmp_path / "out" / scratch_files.FOLDER).glob(name))
    damaged.write_bytes(b"")
    if name == "plan.json":
        with pytest.raises(InputError, match="--overwrite"):
            segment_slide(ask(slide, tmp_path / "out"))
    segment_slide(ask(slide, tmp_path / "out", overwrite=name == "plan.json"))
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


@pytest.mark.parametrize("what", ["maps/*", "nuclei/*.npz"])
def test_what_was_lost_is_made_again_and_no_glass(what, slide, reference, tmp_path):
    hooks, done = Hooks(), []
    stage = what.split("/")[0]
    hooks.done = lambda at, *_: done.append(at) or (done.count(stage) == 2 and hooks.stop.set())
    with pytest.raises(Cancelled):
        segment_slide(ask(slide, tmp_path / "out"), hooks=hooks)
    folder = tmp_path / "out" / scratch_files.FOLDER
    lost = [path for path in folder.glob(what) if path.is_file()]
    assert lost
    for path in lost:
        path.unlink()
    segment_slide(ask(slide, tmp_path / "out"))
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


def test_the_picture_of_a_run_that_goes_on_has_what_was_found_before(slide, tmp_path):
    hooks, done = Hooks(), []
    hooks.done = lambda at, _, about: (
        done.append(about.get("nuclei", 0))
        or (at == "nuclei" and sum(done) > 0 and hooks.stop.set())
    )
    with pytest.raises(Cancelled):
        segment_slide(ask(slide, tmp_path / "out"), hooks=hooks)
    job = SlideJob(ask(slide, tmp_path / "out"))
    job._show_earlier()
    small, _ = job.preview()
    assert small.any()
    other = SlideJob(ask(slide, tmp_path / "out", network={"checkpoint": "another"}))
    other._show_earlier()
    assert other.preview() is None


def test_half_written_files_are_not_delivered(slide, tmp_path):
    hooks, folder = Hooks(), tmp_path / "out"

    def leave(stage, *_):
        zarr_there = folder / scratch_files.FOLDER / "instances.zarr"
        if stage == "labels" and zarr_there.exists():
            (zarr_there / "0" / "c.0123.partial").write_bytes(b"half")
            (folder / ".run.json.0123.tmp").write_bytes(b"half")

    hooks.done = leave
    segment_slide(ask(slide, folder), hooks=hooks)
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.glob(".run.json*"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"environment": 3}', "[" * 9000])
def test_a_damaged_plan_is_a_sentence(content, tmp_path):
    folder = tmp_path / scratch_files.FOLDER
    folder.mkdir()
    (folder / "plan.json").write_text(content)
    with pytest.raises(InputError, match="add --overwrite"):
        scratch_files.Scratch(tmp_path).plan()
