"""Whole slides end to end: the same bytes however they are made, and nothing lost."""

import csv
import errno
import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from helpers import QUICK, make_checkpoint
from napari_nucprune.checkpoint.format import save
from napari_nucprune.errors import Cancelled, EnvironmentStopped, InputError
from napari_nucprune.slides import scratch as scratch_files
from napari_nucprune.slides.cluster import Crew
from napari_nucprune.slides.lattice import Lattice
from napari_nucprune.slides.lazy import LazyLevel
from napari_nucprune.slides.outlines import outlines
from napari_nucprune.slides.plan import Ask, Network
from napari_nucprune.slides.stages import Hooks
from napari_nucprune.slides.whole import segment_slide
from napari_nucprune.wholejob import SlideJob

CORE = 160
SHAPE = (700, 560)


def network():
    """A small network whose maps are in range, with objects of all sizes."""
    found = make_checkpoint(QUICK, seed=3)
    found.weights["distance"]["head.weight"][:] *= 0.2
    return found


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Two levels; tissue in an L, glass elsewhere."""
    rgb = np.full((*SHAPE, 3), 244, np.uint8)
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (*SHAPE, 3)).astype(np.uint8)
    rgb[:420, :300] = noise[:420, :300]
    rgb[250:420, :] = noise[250:420]
    path = tmp_path_factory.mktemp("whole") / "tissue.tif"
    write(path, [rgb, rgb[::4, ::4]])
    return path


def write(path, levels, per=4e4):
    with tifffile.TiffWriter(path) as tif:
        for i, level in enumerate(levels):
            tif.write(
                level, tile=(128, 128), photometric="rgb", subfiletype=int(i > 0),
                compression="deflate", resolution=(per, per), resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip


def ask(slide, output, runtime="sparse", **options):
    checkpoint = network()
    return Ask(
        Path(slide),
        Path(output),
        checkpoint,
        options.pop("network", {"checkpoint": checkpoint.sha256}),
        lambda *_: Network(checkpoint, runtime, "cpu", {"name": "quick"}),
        **{"core": CORE, "runtime": runtime, **options},
    )


def bytes_of(output, table="nuclei.csv"):
    """Everything that has to be the same, decoded."""
    group = zarr.open_group(str(Path(output) / "instances.zarr"), mode="r")
    arrays = {name: group[name][:] for name in sorted(group.array_keys())}
    files = [(Path(output) / name).read_bytes() for name in (table, "nuclei.geojson")]
    run = json.loads((Path(output) / "run.json").read_text())
    run = {key: run[key] for key in ("nuclei", "seam_objects", "tissue_mm2", "settings")}
    return arrays, files, run


def same(a, b):
    assert a[1:] == b[1:]
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])


@pytest.fixture(scope="module")
def reference(slide, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "reference"
    segment_slide(ask(slide, output))
    return output


# ---------------------------------------------------------------- what comes out


def test_labels_table_and_outlines_agree(reference):
    arrays, (table, shapes), run = bytes_of(reference)
    labels = arrays["0"]
    assert labels.shape == SHAPE
    assert labels.dtype == np.int32
    assert run["nuclei"] == labels.max() > 20
    assert sorted(p.name for p in reference.iterdir()) == [
        "instances.zarr", "nuclei.csv", "nuclei.geojson", "run.json",
    ]  # fmt: skip
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert [int(row["id"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == run["nuclei"]
    for row in rows[:: max(1, len(rows) // 20)]:
        y, x = np.nonzero(labels == int(row["id"]))
        assert float(row["centroid_y_px"]) == pytest.approx(y.mean(), abs=1e-3)
        assert float(row["centroid_x_level0"]) == pytest.approx(x.mean(), abs=1e-3)
        assert float(row["area_um2"]) == pytest.approx(len(y) / 16, abs=1e-3)
        assert (int(row["seam"]) == 1) == (int(row["id"]) in run["seam_objects"])
    collection = json.loads(shapes)
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == run["nuclei"]
    # Drawn again, the polygons are the labels.
    drawn = np.zeros_like(labels)
    for feature in collection["features"]:
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        number = feature["properties"]["measurements"]["id"]
        parts = feature["geometry"]["coordinates"]
        parts = [parts] if feature["geometry"]["type"] == "Polygon" else parts
        inside = np.zeros(labels.shape, bool)
        for ring in (ring for part in parts for ring in part):
            for (x0, y0), (x1, y1) in itertools.pairwise(ring):
                if x0 == x1:
                    inside[min(y0, y1) : max(y0, y1), x0:] ^= True
        drawn[inside] = number
    np.testing.assert_array_equal(drawn, labels)
    # Ids go by core, row by row.
    first = [
        divmod(int(np.flatnonzero(labels.ravel() == i)[0]), SHAPE[1]) for i in (1, labels.max())
    ]
    assert first[0][0] < CORE
    assert first[1][0] > SHAPE[0] // 3


def test_glass_holds_no_nuclei(slide, reference, tmp_path):
    labels = bytes_of(reference)[0]["0"]
    # Tissue and what is within three blocks and one of it.
    assert not labels[:120, 430:].any()
    assert not labels[550:].any()
    run = json.loads((reference / "run.json").read_text())
    assert run["cores_run"] < run["cores"] == 20
    assert 0.6 < run["tissue_mm2"] / run["slide_mm2"] < 0.95
    with_glass = segment_slide(ask(slide, tmp_path / "all", tissue_mask=False))
    assert with_glass["tissue_mm2"] == with_glass["slide_mm2"]
    glass = np.full((300, 300, 3), 240, np.uint8)
    write(tmp_path / "glass.tif", [glass])
    run = segment_slide(ask(tmp_path / "glass.tif", tmp_path / "empty"))
    assert run["nuclei"] == 0
    arrays, (table, shapes), _ = bytes_of(tmp_path / "empty")
    assert not arrays["0"].any()
    assert json.loads(shapes)["features"] == []
    assert len(table.splitlines()) == 1


def test_the_pyramid_lies_on_the_slide(tmp_path):
    """At 0.4 um/px: where a label's pixel is in um, against the rule for centres of pixels."""
    rgb = np.random.default_rng(1).integers(0, 200, (660, 200, 3)).astype(np.uint8)
    write(tmp_path / "coarse.tif", [rgb], per=1e4 / 0.4)
    run = segment_slide(ask(tmp_path / "coarse.tif", tmp_path / "out"))
    group = zarr.open_group(str(tmp_path / "out" / "instances.zarr"), mode="r")
    (multiscale,) = group.attrs["multiscales"]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["micrometer"] * 2
    assert run["labels_shape"] == [1056, 320]
    base = group["0"][:]
    for level, dataset in enumerate(multiscale["datasets"]):
        scale, shift = (t[kind] for t, kind in zip(
            dataset["coordinateTransformations"], ("scale", "translation"), strict=True))  # fmt: skip
        np.testing.assert_array_equal(group[dataset["path"]][:], base[:: 2**level, :: 2**level])
        # The centre of label pixel i is at (i + 0.5) * 0.25 / 0.4 - 0.5 level-0 pixels.
        for i in (0, 7):
            um = ((i * 2**level + 0.5) * 0.25 / 0.4 - 0.5) * 0.4
            assert i * scale[0] + shift[0] == pytest.approx(um)
    assert len(multiscale["datasets"]) == 2
    outer = json.loads((tmp_path / "out" / "nuclei.geojson").read_text())["features"][0]
    ring = outer["geometry"]["coordinates"][0]
    corners = {(y * 0.625, x * 0.625) for r in outlines(np.where(base == 1, 1, 0))
               for y, x in r.corners}  # fmt: skip
    assert {(y, x) for x, y in ring} == {(round(y, 2), round(x, 2)) for y, x in corners}


def test_parquet_and_gzip_hold_the_same(slide, reference, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    segment_slide(ask(slide, tmp_path / "out", table="parquet", zipped=True))
    shapes = gzip.decompress((tmp_path / "out" / "nuclei.geojson.gz").read_bytes())
    assert shapes == (reference / "nuclei.geojson").read_bytes()
    table = pq.read_table(tmp_path / "out" / "nuclei.parquet").to_pydict()
    with (reference / "nuclei.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert table["id"] == [int(row["id"]) for row in rows]
    assert table["seam"] == [row["seam"] == "1" for row in rows]
    wanted = [float(row["area_um2"]) for row in rows]
    np.testing.assert_allclose(table["area_um2"], wanted, atol=1e-4)


# ---------------------------------------------------------------- the same bytes


@pytest.mark.parametrize(("tile", "threads"), [(16, 3), (320, 2), (100_000, 1)])
def test_any_tile_and_any_threads(slide, reference, tmp_path, tile, threads):
    segment_slide(ask(slide, tmp_path / "out", tile=tile, crew=Crew(threads)))
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


def test_two_processes_one_of_them_killed(slide, reference, tmp_path):
    """A worker dies in the middle; what it had is done by another, to the same bytes."""
    pytest.importorskip("distributed")
    killed = []
    output = tmp_path / "out"

    def kill():
        marks = output / scratch_files.FOLDER / "marks" / "maps"
        while not killed:
            if marks.exists() and len(list(marks.glob("*.json"))) >= 3:
                from distributed import default_client

                pids = default_client().run(os.getpid)
                victim = sorted(pids.values())[0]
                assert victim != os.getpid()
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            time.sleep(0.005)

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    segment_slide(ask(slide, output, crew=Crew(workers=2)))
    watcher.join(5)
    assert killed
    same(bytes_of(output), bytes_of(reference))


def test_a_scheduler_that_somebody_else_started(slide, reference, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        told = []
        segment_slide(
            ask(slide, tmp_path / "out", crew=Crew(scheduler=cluster.scheduler_address)),
            progress=lambda *about: told.append(about),
        )
        # It goes on for others.
        assert cluster.status.name == "running"
    same(bytes_of(tmp_path / "out"), bytes_of(reference))
    segmenting = [about for about in told if about[0].startswith("Segmenting")]
    assert segmenting[-1][1] == segmenting[-1][2]


def test_workers_may_stand_in_other_folders(slide, reference, tmp_path, monkeypatch):
    """Those of a cluster do, and the output may be named from the client's own."""
    monkeypatch.chdir(tmp_path)
    hooks = Hooks()
    hooks.done = lambda *_: os.chdir(os.sep)
    segment_slide(ask(os.path.relpath(slide), "out"), hooks=hooks)
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


# ---------------------------------------------------------------- resume

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_whole import ask
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


def test_a_folder_that_cannot_be_written(slide, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        segment_slide(ask(slide, tmp_path / "file"))
    with pytest.raises(EnvironmentStopped):
        segment_slide(ask(slide, tmp_path / "file" / "below"))


def test_a_bad_tile_is_glass_and_counted(slide, reference, tmp_path):
    path = tmp_path / "bad.tif"
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] >= 1
    labels = bytes_of(tmp_path / "out")[0]["0"]
    assert not labels[:100, :100].any()
    assert labels[512:].any() == bytes_of(reference)[0]["0"][512:].any()


def test_a_slide_that_goes_away_in_mid_run_is_no_glass(slide, reference, tmp_path):
    """A disk that was unplugged: what is left must be done when it is back."""
    path = tmp_path / "away.tif"
    whole = slide.read_bytes()
    path.write_bytes(whole)
    hooks, done = Hooks(), []

    def away(stage, core, about):
        done.append(stage)
        if len(done) == 2:
            path.write_bytes(b"")

    hooks.done = away
    with pytest.raises(EnvironmentStopped, match="cannot be read any more"):
        segment_slide(ask(path, tmp_path / "out"), hooks=hooks)
    path.write_bytes(whole)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] == 0
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


def test_what_a_damaged_square_gives_depends_on_the_request_alone():
    class Damaged:
        """Rows from 700 on cannot be read."""

        shapes, background = [(2048, 600)], (240, 241, 242)

        def read(self, level, y, x, height, width):
            if y + height > 700 and y < 1024:
                raise InputError("damaged")
            return np.full((height, width, 3), 7, np.uint8)

    requests = [np.s_[0:640, 0:300], np.s_[600:1100, 0:300], np.s_[512:660, :], np.s_[1000:1200, :]]
    found = []
    for order in (requests, requests[::-1]):
        level = LazyLevel(Damaged(), 0)
        got = {str(request): level[request] for request in order}
        found.append(got)
        assert level.bad == {(1, 0), (1, 1)}
    for request in map(str, requests):
        np.testing.assert_array_equal(found[0][request], found[1][request])
    assert (found[0][str(requests[2])] == 7).all()


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


def test_the_labels_as_napari_ome_zarr_itself_reads_them(slide, reference):
    """Where that is installed (weekly in CI)."""
    reader = pytest.importorskip("napari_ome_zarr._reader").napari_get_reader
    path = str(reference / "instances.zarr")
    ((levels, options, kind),) = reader(path)(path)
    assert kind == "labels"
    np.testing.assert_array_equal(np.asarray(levels[0]), bytes_of(reference)[0]["0"])
    assert options["scale"] == pytest.approx([0.25, 0.25])
    assert set(options["units"]) == {"micrometer"}


def test_the_hash_of_a_vms_slide_is_of_its_pictures_alone(tmp_path):
    from napari_nucprune.slides.identity import input_sha256

    for name in ("a.vms", "a_1.jpg", "a.opt"):
        (tmp_path / name).write_text(name)
    before = input_sha256(tmp_path / "a.vms")
    (tmp_path / "a-results").mkdir()
    (tmp_path / "a.qpdata").write_text("x")
    assert input_sha256(tmp_path / "a.vms") == before
    (tmp_path / "a_1.jpg").write_text("y")
    assert input_sha256(tmp_path / "a.vms") != before


def test_a_damaged_small_level_hides_no_tissue(slide, reference, tmp_path, caplog):
    path = tmp_path / "bad.tif"
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) > 1
        offsets = [offset for page in tif.pages[1:] for offset in page.dataoffsets]
        counts = [count for page in tif.pages[1:] for count in page.databytecounts]
    with path.open("r+b") as file:
        for offset, count in zip(offsets, counts, strict=True):
            file.seek(offset)
            file.write(b"\xff" * count)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] >= 1
    assert bytes_of(tmp_path / "out")[0]["0"].tobytes() == bytes_of(reference)[0]["0"].tobytes()


def test_a_network_whose_distances_are_in_pixels_is_refused(slide, tmp_path):
    asked = ask(slide, tmp_path / "out")
    asked.opened.weights["distance"]["head.weight"][:] *= 1e4
    with pytest.raises(InputError, match="distance"):
        segment_slide(asked)


# ---------------------------------------------------------------- the command


def run_command(*arguments):
    from napari_nucprune.cli import main

    return main(["segment", *map(str, arguments)])


def test_the_command_on_a_slide(slide, tmp_path, capsys, monkeypatch):
    save(network(), tmp_path / "quick.safetensors")
    given = ["--checkpoint", tmp_path / "quick.safetensors", "--cr", 2, "--runtime", "sparse"]
    svs = tmp_path / "tissue.svs"
    svs.write_bytes(slide.read_bytes())
    out = tmp_path / "out"
    assert run_command(svs, "-o", out, *given, "--json") == 0
    run = json.loads(capsys.readouterr().out)
    assert run == json.loads((out / "run.json").read_text())
    assert run["nuclei"] == bytes_of(out)[0]["0"].max()
    assert run["cr"] == pytest.approx(2, rel=0.05)
    assert run["environment"]["runtime"] == "sparse"
    assert len(run["input"]["sha256"]) == 64
    # The same slide as a field: the same nuclei, but for the rounding of maps and its edges.
    from napari_nucprune.compare.metrics import score

    assert run_command(svs, "-o", tmp_path / "field", *given, "--no-slide", "--mpp", 0.25) == 0
    assert (
        score(tifffile.imread(tmp_path / "field" / "instances.tif"), bytes_of(out)[0]["0"]).pq > 0.5
    )
    capsys.readouterr()
    assert run_command(svs, "-o", out, *given) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_command(svs, "-o", tmp_path / "x", *given, "--workers", 2, "--scheduler", "a") == 2
    assert run_command(svs, "-o", tmp_path / "x", *given, "--tile", 100) == 2
    assert not (tmp_path / "x").exists()


def test_lattice_covers_a_large_slide_without_growing():
    lattice = Lattice((80_000, 100_000))
    assert len(lattice) == 79 * 98
    assert len(lattice.around((5, 5))) == 9


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"environment": 3}', "[" * 9000])
def test_a_damaged_plan_is_a_sentence(content, tmp_path):
    folder = tmp_path / scratch_files.FOLDER
    folder.mkdir()
    (folder / "plan.json").write_text(content)
    with pytest.raises(InputError, match="add --overwrite"):
        scratch_files.Scratch(tmp_path).plan()
