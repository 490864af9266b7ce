"""The dock's part on whole slides, in a viewer."""

import json

import numpy as np
import pytest
import tifffile

napari = pytest.importorskip("napari")
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.dock import NucpruneDock
from napari_nucprune.widgets.whole import ROLE


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def test_a_slide_is_run_from_the_dock_cancelled_and_continued(viewer, quick, qtbot, tmp_path):
    quick.weights["distance"]["head.weight"][:] *= 0.2
    from napari_nucprune.checkpoint import bundled
    from napari_nucprune.checkpoint.format import save

    save(quick, bundled.FOLDER / f"{bundled.DEFAULT}.safetensors")
    rgb = np.random.default_rng(0).integers(0, 200, (600, 700, 3)).astype(np.uint8)
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, tile=(128, 128), photometric="rgb", compression="deflate",
                  resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None)  # fmt: skip
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.control.live.setChecked(False)
    dock.pruning.choose_recovery("off")
    try:
        said = []
        dock.whole._say = said.append
        dock.whole.run(tmp_path / "out")
        assert "no image" in said[-1]
        viewer.open(str(path), plugin="napari-nucprune")
        dock.whole.run(tmp_path / "out")
        assert dock.whole.job is not None, said
        dock.whole.cancel.click()
        qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
        assert not (tmp_path / "out" / "run.json").exists()
        assert "goes on" in dock.whole.line.text()
        dock.whole.run(tmp_path / "out")
        dock.whole.pause.setChecked(True)
        assert dock.whole.job.hooks.pause.is_set()
        dock.whole.pause.setChecked(False)
        qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
        run = json.loads((tmp_path / "out" / "run.json").read_text())
        assert f"{run['nuclei']:,} nuclei" in dock.whole.line.text()
        layer = layers.find(viewer, ROLE)
        assert layer.multiscale
        assert layer.data[0].shape == (1200, 1400)
        image = viewer.layers["slide"]
        # The centre of label pixel (2i, 2i) and (2i + 1, 2i + 1) are half a pixel around i's.
        middle = (np.asarray(layer.data_to_world((20, 40))) + layer.data_to_world((21, 41))) / 2
        np.testing.assert_allclose(image.world_to_data(middle)[:2], (10, 20), atol=1e-6)
    finally:
        dock.whole.close_down()
        dock.runner.close()
