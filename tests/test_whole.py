"""Whole slides end to end: what comes out, and the same bytes however they are made."""

import csv
import gzip
import itertools
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucprune.checkpoint.format import save
from napari_nucprune.slides import scratch as scratch_files
from napari_nucprune.slides.cluster import Crew
from napari_nucprune.slides.lattice import Lattice
from napari_nucprune.slides.outlines import outlines
from napari_nucprune.slides.stages import Hooks
from napari_nucprune.slides.whole import segment_slide
from whole_helpers import CORE, SHAPE, ask, bytes_of, network, reference, same, slide, write

__all__ = ["reference", "slide"]


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


def test_the_labels_as_napari_ome_zarr_itself_reads_them(slide, reference):
    """Where that is installed (weekly in CI)."""
    reader = pytest.importorskip("napari_ome_zarr._reader").napari_get_reader
    path = str(reference / "instances.zarr")
    ((levels, options, kind),) = reader(path)(path)
    assert kind == "labels"
    np.testing.assert_array_equal(np.asarray(levels[0]), bytes_of(reference)[0]["0"])
    assert options["scale"] == pytest.approx([0.25, 0.25])
    assert set(options["units"]) == {"micrometer"}


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
