"""Fine-tuned networks that ship: found by their parent, and in the dock beside one-shot."""

from dataclasses import replace

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import Qt

from helpers import QUICK, equal_weights, is_one_line, make_checkpoint, noise
from napari_nucprune import checkpoint as rooms
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.strategies import STRATEGIES
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source
from napari_nucprune.tuned import Ladder, rungs
from napari_nucprune.widgets.cr_slider import CRSlider, tick_of
from napari_nucprune.widgets.dock import NucpruneDock
from test_recovery_dock import settle

RGB = noise(2, 64, 64)


def tuned(dense, cr, name, seed, strategy="layer-wise"):
    """As training makes it: other weights at some of the places, the dense one its parent."""
    pruning = Pruning(strategy, cr, cr)
    other = make_checkpoint(QUICK, seed=seed)
    found = apply(replace(dense, weights=other.weights), pruning, Ranking(other).masks(pruning))
    state = {**pruning.as_dict(), "training": {"method": "fine-tuned", "steps": 7}}
    about = {**dense.provenance, "metrics": {"tnbc, second half": {"aji": 0.5, "pq": 0.4}}}
    return replace(found, name=name, pruning=state, parent_sha256=dense.sha256, provenance=about)


@pytest.fixture
def ladder(quick):
    """The bundled network `quick`, with rungs at CR 4 and 8, network-wide at 5; and a stranger."""
    made = {cr: tuned(quick, cr, f"full-cr{cr}", seed=cr) for cr in (4, 8)}
    made[5] = tuned(quick, 5, "full-network-cr5", 5, "network-wide")
    for network in made.values():
        save(network, shipped.FOLDER / f"{network.name}.safetensors", "lossless")
    stranger = make_checkpoint(QUICK, seed=99, name="open")
    save(stranger, shipped.FOLDER / "open.safetensors")
    save(tuned(stranger, 16, "x", 1), shipped.FOLDER / "open-cr16.safetensors", "lossless")
    return made


def test_what_ships_is_listed_the_default_first(ladder, capsys):
    wanted = ["full", "full-cr4", "full-cr8", "full-network-cr5", "open", "open-cr16"]
    assert rooms.bundled() == wanted
    assert shipped.dense_names() == ["full", "open"]
    assert main(["info", "--list"]) == 0
    assert capsys.readouterr().out.split() == wanted
    assert main(["info", "full-cr8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("full-cr8:")
    assert "fine-tuned" in said
    assert "validation  tnbc, second half: aji 0.500, pq 0.400" in said  # its own
    assert shipped.find("he-nuclei") == shipped.FOLDER / "full.safetensors"


def test_rungs_are_those_of_the_parent(quick, ladder):
    def found():
        return {strategy: sorted(own) for strategy, own in rungs(quick).items()}

    assert found() == {"layer-wise": [4, 8], "network-wide": [5]}
    assert rungs(ladder[8]) == {}
    (shipped.FOLDER / "full-cr2.safetensors").write_bytes(b"damaged")
    assert found() == {"layer-wise": [4, 8], "network-wide": [5]}


def test_each_branch_comes_from_the_rung_of_its_ratio(quick, ladder):
    found = Ladder(quick)
    assert found.ready(Pruning("layer-wise")) == {(s, d) for s in (1, 4, 8) for d in (1, 4, 8)}
    mixed = found.find(Pruning("layer-wise", 8, 4))
    for branch, cr in zip(BRANCHES, (8, 4), strict=True):
        for name, array in mixed.weights[branch].items():
            np.testing.assert_array_equal(array, ladder[cr].weights[branch][name])
    assert mixed.parent_sha256 == quick.sha256
    assert mixed.pruning["training"]["steps"] == 7
    wide = found.find(Pruning("network-wide", 5, 5))
    assert equal_weights(wide, ladder[5])
    half = found.make(Pruning("layer-wise", 1, 8), {})
    assert half.weights["semantic"] is quick.weights["semantic"]


@pytest.mark.parametrize(
    "pruning",
    [
        Pruning("layer-wise", 5, 4),
        Pruning("network-wide", 4, 4),
        Pruning("layer-wise", 5, 5),
        Pruning("LAMP", 4, 4),
        Pruning("layer-wise", 4, 4, ("encoder.0.conv1",)),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused(pruning, quick, ladder):
    assert Ladder(quick).find(pruning) is None
    with pytest.raises(
        InputError, match="layer-wise at CR 4, 8 and network-wide at CR 5"
    ) as caught:
        Ladder(quick).make(pruning, {})
    assert is_one_line(caught.value)


def test_a_network_without_rungs_says_so(quick):
    with pytest.raises(InputError, match="No fine-tuned networks"):
        Ladder(quick).make(Pruning("layer-wise", 4, 4), {})


def test_a_held_slider_stops_at_what_there_is(qtbot):
    widget = CRSlider("both")
    qtbot.addWidget(widget)
    widget.set_value(10)
    seen = []
    widget.changed.connect(seen.append)
    widget.hold((1, 5, 16, 32))
    assert widget.value == 16
    assert widget.stops == [1, 5, 16, 32]
    widget.slider.setValue(tick_of(6.5))
    assert widget.box.value() == 5
    widget.slider.sliderReleased.emit()
    assert widget.slider.value() == tick_of(5)
    widget.box.setValue(40)
    assert widget.value == widget.box.value() == 32
    assert seen == [16, 5, 32]
    widget.hold(None)
    widget.set_value(10)
    assert widget.value == 10


@pytest.fixture
def dock(make_napari_viewer, quick, ladder, qtbot):
    viewer = make_napari_viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.image.area.setCurrentText("whole image")
    viewer.add_image(RGB, name="tissue", rgb=True)
    settle(dock, qtbot)
    yield dock
    dock.runner.close()


def maps_of(checkpoint):
    runtime = AutoRuntime("cpu")
    runtime.load(checkpoint)
    taken = take(Source([RGB], None, "rgb"), checkpoint.mpp)
    return taken.crop(runtime.run(taken.field))


def open_to_choice(dock):
    """The strategies that can be chosen."""
    box = dock.pruning.strategy
    return [box.itemText(i) for i in range(box.count()) if box.model().item(i).isEnabled()]


def test_each_strategy_has_rungs_of_its_own(dock, ladder, qtbot):
    dock.pruning.choose_recovery("fine-tuned")
    dock.pruning.strategy.setCurrentText("network-wide")
    assert dock.pruning.both.stops == [1, 5]
    dock.pruning.both.set_value(5)
    settle(dock, qtbot)
    wanted = maps_of(ladder[5])
    np.testing.assert_allclose(dock.preview.maps.semantic, wanted.semantic, atol=1e-5)
    dock.pruning.strategy.setCurrentText("layer-wise")
    assert dock.pruning.both.stops == [1, 4, 8]
    assert dock.pruning.both.value in (4, 8)
    settle(dock, qtbot)
    assert dock.preview.note == ""


def test_the_dock_runs_and_saves_the_rung(dock, ladder, qtbot, tmp_path, monkeypatch):
    choices = [dock.checkpoint.choice.itemText(i) for i in range(dock.checkpoint.choice.count())]
    assert choices == ["full", "open"]
    dock.pruning.strategy.setCurrentText("LAMP")
    dock.pruning.choose_recovery("fine-tuned")
    assert dock.pruning.strategy.currentText() == "layer-wise"
    assert open_to_choice(dock) == ["layer-wise", "network-wide"]
    assert not dock.pruning.reselect.isEnabled()
    assert dock.pruning.both.stops == [1, 4, 8]
    dock.pruning.both.set_value(8)
    settle(dock, qtbot)
    assert dock.preview.recovered
    assert dock.preview.note == ""
    wanted = maps_of(ladder[8])
    np.testing.assert_allclose(dock.preview.maps.semantic, wanted.semantic, atol=1e-5)
    np.testing.assert_allclose(dock.preview.maps.distance, wanted.distance, atol=1e-5)
    layer = dock.viewer.layers["instances"]
    assert layer.metadata["nucprune"]["recovery"] == "fine-tuned"
    path = tmp_path / "saved.safetensors"
    monkeypatch.setattr(
        "napari_nucprune.widgets.saving.QFileDialog.getSaveFileName", lambda *_: (str(path), "")
    )
    qtbot.mouseClick(dock.save.checkpoint, Qt.MouseButton.LeftButton)
    assert "fine-tuned" in dock.message.text()
    assert equal_weights(load(path), ladder[8])
    # Back: any ratio and strategy again, and what is only pruned is not the rung.
    dock.pruning.choose_recovery("off")
    assert open_to_choice(dock) == list(STRATEGIES)
    settle(dock, qtbot)
    assert not dock.preview.recovered
    assert not np.allclose(dock.preview.maps.semantic, wanted.semantic, atol=1e-3)


def test_a_checkpoint_without_rungs_offers_none(dock, qtbot):
    dock.pruning.choose_recovery("fine-tuned")
    settle(dock, qtbot)
    other = make_checkpoint(QUICK, seed=5)
    save(other, shipped.FOLDER / "open.safetensors")  # its own rung came from another one
    assert dock.open_checkpoint("open")
    assert dock.pruning.recovery.currentData() == "slide"
    dock.pruning.choose_recovery("fine-tuned")
    assert dock.pruning.recovery.currentData() == "slide"
    assert open_to_choice(dock) == list(STRATEGIES)
    assert 10 in dock.pruning.both.stops
    settle(dock, qtbot)


def test_the_sweep_is_over_the_rungs(dock, qtbot):
    dock.pruning.choose_recovery("fine-tuned")
    dock.pruning.both.set_value(8)
    settle(dock, qtbot)
    assert dock.sweeping.start()
    qtbot.waitUntil(lambda: not dock.sweeping.running, timeout=60_000)
    points = dock.sweeping.shown_points()
    assert [(p.strategy, p.cr) for p in points] == [("layer-wise", c) for c in (1, 4, 8)]
    assert "fine-tuned" in dock.sweeping.about
    # A point is of what can be set: one of a sweep made otherwise changes nothing, and says so.
    dock.sweeping._picked("LAMP", 8)
    dock.sweeping._picked("layer-wise", 5)
    assert "fine-tuned layer-wise to CR 5" in dock.message.text()
    assert (dock.pruning.strategy.currentText(), dock.pruning.both.value) == ("layer-wise", 8)
    dock.sweeping._picked("layer-wise", 4)
    assert dock.pruning.both.value == 4
    settle(dock, qtbot)


def test_a_session_brings_its_strategy_back(dock, qtbot, tmp_path):
    from napari_nucprune.widgets import session_files

    dock.pruning.strategy.setCurrentText("LAMP")
    dock.pruning.choose_recovery("off")
    settle(dock, qtbot)
    path = tmp_path / "lamp.json"
    session_files.save(dock, path)
    dock.pruning.choose_recovery("fine-tuned")
    assert dock.pruning.strategy.currentText() == "layer-wise"
    session_files.restore(dock, path)
    assert dock.pruning.recovery.currentData() == "off"
    assert dock.pruning.strategy.currentText() == "LAMP"
    settle(dock, qtbot)
