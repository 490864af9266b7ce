"""Nuclei of synthetic slides lie where they were drawn, to half a pixel of level 0.

The network is `oracle.oracle`: every dark disc is a nucleus and nothing else is.
"""

import json

import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import save
from napari_nucprune.doors import Pruning
from napari_nucprune.job import Job
from napari_nucprune.preview import Session
from napari_nucprune.slides.source import open_source
from oracle import CASES, HALF, RADIUS_UM, STEP, gaps, make, oracle, segmented, table_of


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    """A slide's file and shape, where its nuclei are in level-0 pixels, and how it was made."""
    return make(tmp_path_factory.mktemp("places") / "slide.svs", *CASES[request.param])


def boxes(shape, mpp):
    """Views of a slide: all of it, its last corner, and one that starts anywhere."""
    height, width = shape
    yield 0, 0, height, width
    yield height * 0.53, width * 0.48, height, width
    yield 37 / mpp[0] + 3.3, 71 / mpp[1] + 5.7, 173 / mpp[0], 220 / mpp[1]


def weighted(distance, place, transform, mpp):
    """Centroid of the darkness around a place, in level-0 pixels: finer than labels can say."""
    ratio, shift = np.diag(transform)[:2], transform[:2, 2]
    reach = RADIUS_UM / np.array(mpp) / ratio + 3
    low = np.maximum((place - shift) / ratio - reach, 0).astype(int)
    high = ((place - shift) / ratio + reach).astype(int) + 1
    dark = np.clip(distance[low[0] : high[0], low[1] : high[1]], 0, None)
    y, x = np.indices(dark.shape)
    return (np.array([(dark * y).sum(), (dark * x).sum()]) / dark.sum() + low) * ratio + shift


def test_views_at_any_place_show_nuclei_where_they_are(case):
    path, shape, centres, mpp, network_mpp, used = case
    session = Session(oracle(network_mpp), "cpu")
    source = open_source(path)
    assert source.mpp == pytest.approx(mpp)
    assert (used, used) in source.downsamples
    for box in boxes(shape, mpp):
        preview = session.run(Job(source, box, Pruning(), "slide"))
        margin = RADIUS_UM / np.array(mpp) + 8
        low, high = np.array(box[:2]) + margin, np.array(box[2:]) - margin
        wanted = centres[((centres > low) & (centres < high)).all(1)]
        assert len(wanted) > 3
        maps = np.array(
            [weighted(preview.maps.distance, c, preview.transform, mpp) for c in wanted]
        )
        # Half a pixel is what was promised; the maps are five times as good.
        assert np.abs(maps - wanted).max() < HALF / 5
        table = preview.nuclei.table
        found = np.stack([table["centroid_y"], table["centroid_x"], np.ones(len(table["label"]))])
        labels = gaps((preview.transform @ found)[:2].T, wanted)
        assert (labels < np.maximum(HALF, STEP * np.diag(preview.transform)[:2])).all()


@pytest.mark.parametrize(
    "case", ["40x", "40x, network at 20x", "20x", "tall pixels"], indirect=True
)
def test_a_whole_slides_files_say_where_nuclei_are(case, tmp_path):
    _, _, centres, mpp, network_mpp, _ = case
    run = segmented(case, tmp_path / "out")
    # The slide's borders cut none of the nuclei, those of cores many.
    assert run["nuclei"] == len(centres)
    assert run["cores"] > 1 or network_mpp > 0.6
    limit = np.maximum(HALF, STEP * np.array(run["labels_ratios"]))

    assert (gaps(table_of(tmp_path / "out"), centres) < limit).all()

    shapes = json.loads((tmp_path / "out/nuclei.geojson").read_text())["features"]
    # Corners of pixels are whole numbers there: the centre of the first pixel is at 0.5.
    outlines = np.array([area_centroid(shape["geometry"]["coordinates"][0]) for shape in shapes])
    assert (gaps(outlines - 0.5, centres) < limit).all()

    group = zarr.open_group(str(tmp_path / "out/instances.zarr"), mode="r")
    datasets = group.attrs["multiscales"][0]["datasets"]
    assert [d["path"] for d in datasets] == sorted(group.array_keys())
    for number, dataset in enumerate(datasets):
        steps = {t["type"]: t for t in dataset["coordinateTransformations"]}
        scale = np.array(steps["scale"]["scale"])
        labels = group[dataset["path"]][:]
        found = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1)))
        # As read by others: um = scale * index + translation; the slide's first pixel is at 0.
        world = found * scale + np.array(steps["translation"]["translation"])
        error = gaps(world, centres * mpp)
        # A coarser level has every second pixel of the one before.
        assert (error < limit * mpp + (scale / 2 if number else 0)).all()


def area_centroid(ring):
    """Centroid (y, x) of a closed polygon of (x, y), by the shoelace formula."""
    x, y = np.array(ring).T
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    middle = [((a[:-1] + a[1:]) * cross).sum() / (3 * cross.sum()) for a in (y, x)]
    return np.array(middle)


@pytest.mark.window
@pytest.mark.parametrize("name", ["40x, network at 20x", "wide pixels"])
def test_overlays_in_a_window_lie_on_the_nuclei(
    name, make_napari_viewer, tmp_path, monkeypatch, qtbot
):
    from napari_nucprune.widgets import layers
    from napari_nucprune.widgets.dock import NucpruneDock

    path, shape, centres, mpp, network_mpp, _ = make(tmp_path / "slide.svs", *CASES[name])
    save(oracle(network_mpp), tmp_path / f"{shipped.DEFAULT}.safetensors")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    viewer = make_napari_viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.pruning.choose_recovery("off")
    (slide,) = viewer.open(path, plugin="napari-nucprune")
    truth = np.array([slide.data_to_world(centre) for centre in centres])
    np.testing.assert_allclose(truth, centres * mpp)
    camera = layers.camera_of(viewer)
    whole = camera.zoom
    for zoom, centre in ((1.0, (0.5, 0.5)), (3.0, (0.73, 0.61))):
        camera.zoom = whole * zoom
        camera.center = tuple(np.array(shape) * mpp * centre)
        qtbot.wait(400)
        qtbot.waitUntil(lambda: not (dock.runner.busy or dock._later.isActive()), timeout=20_000)
        result = layers.find(viewer, "instances")
        labels = np.asarray(result.data)
        found = np.array(
            [
                result.data_to_world(place)
                for place in ndimage.center_of_mass(
                    labels > 0, labels, np.unique(labels[labels > 0])
                )
            ]
        )
        box = np.array(layers.visible_box(slide)).reshape(2, 2)
        margin = RADIUS_UM / np.array(mpp) + 1
        inside = ((centres > box[0] + margin) & (centres < box[1] - margin)).all(1)
        assert inside.sum() > 3
        assert (gaps(found, truth[inside]) < HALF * np.array(mpp)).all()
    dock.runner.close()
