"""What is remembered: in napari's settings or in a JSON; damaged ones are replaced and said."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucprune import settings as room
from napari_nucprune.settings import Settings

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(room.VARIABLE, str(tmp_path / "new"))
    return tmp_path / "new"


def test_what_is_written_is_read(folder):
    assert room.read() == (Settings(), "")
    assert not folder.exists()
    wanted = Settings("cpu", "größe.safetensors", 16.0, False)
    room.write(wanted)
    assert room.read() == (wanted, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"cr": NaN}',
        b'{"cr": 1e9}',
        b'{"cr": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_damaged_file_is_replaced_and_said(folder, content):
    folder.mkdir()
    path = folder / "settings.json"
    path.write_bytes(content)
    found, said = room.read()
    assert found == Settings()
    assert str(path) in said
    assert "replaced" in said
    assert json.loads(path.read_text()) == {
        "device": "auto",
        "checkpoint": "",
        "cr": 1.0,
        "live": True,
    }
    assert room.read() == (Settings(), "")


def test_what_is_good_in_a_damaged_file_stays(folder):
    folder.mkdir()
    (folder / "settings.json").write_text('{"cr": "many", "live": false, "device": "cpu", "x": 1}')
    found, said = room.read()
    assert found == Settings(device="cpu", live=False)
    assert "(cr)" in said


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["device", "checkpoint", "cr", "live", "y"]), JSON))
def test_any_values_give_settings_that_can_be_used(values):
    found, bad = room.checked(values)
    assert found.device in room.DEVICES
    assert isinstance(found.checkpoint, str)
    assert 1 <= found.cr <= 64
    assert isinstance(found.live, bool)
    assert room.checked(vars(found) | {})[1] == []
    assert set(bad) <= set(values)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind here")
def test_a_folder_that_cannot_be_read(folder):
    folder.mkdir()
    (folder / "settings.json").write_text("{}")
    (folder / "settings.json").chmod(0)
    assert "cannot be read" in room.read()[1]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(room.VARIABLE, str(tmp_path / "file" / "below"))
    room.write(Settings(cr=5.0))
    assert room.read()[0] == Settings()


@pytest.fixture(params=["napari's", "a file"])
def store(request, monkeypatch, folder):
    """Both stores; napari before 0.9 has none."""
    import napari.settings

    if request.param == "a file":
        monkeypatch.setattr(napari.settings, "get_plugin_settings", None, raising=False)
    elif not hasattr(napari.settings, "get_plugin_settings"):
        pytest.skip("this napari keeps no plugins' settings")
    return request.param


def test_both_stores_remember(store, folder):
    from napari_nucprune.widgets import memory

    wanted = Settings("cpu", "x", 5.0, False)
    assert memory.read() == (Settings(), "")
    memory.write(vars(wanted))
    assert memory.read() == (wanted, "")
    assert (folder / "settings.json").exists() == (store == "a file")


def test_only_what_the_dock_changed_is_written(store, quick, qtbot):
    """The device is set in napari's Preferences, or by hand, while docks are open."""
    from napari_nucprune.widgets import memory

    first, second = make_dock(qtbot), make_dock(qtbot)
    memory.write({"device": "cpu"})
    first.pruning.both.set_value(5.0)
    qtbot.waitUntil(lambda: memory.read()[0].cr == 5.0, timeout=20_000)
    second.control.live.setChecked(False)
    qtbot.waitUntil(lambda: not memory.read()[0].live, timeout=20_000)
    assert memory.read()[0] == Settings("cpu", memory.read()[0].checkpoint, 5.0, False)
    first.open_checkpoint(first.checkpoint.choice.currentData())
    assert first.session._device == "cpu"


@pytest.mark.parametrize(
    ("content", "kept"),
    [("dock: {cr: 5", 1.0), ("- a\n- b\n", 1.0), ("dock: [1]\n", 1.0),
     ("dock: {cr: many, live: false}\n", 1.0), ("dock: {cr: 5.0, device: moon}\n", 5.0)],
)  # fmt: skip
def test_napari_s_own_file_is_replaced_and_said(content, kept, quick, qtbot, tmp_path, monkeypatch):
    """napari logs what is wrong there, and says nothing."""
    import napari.settings
    import yaml

    if not hasattr(napari.settings, "get_plugin_settings"):
        pytest.skip("this napari keeps no plugins' settings")
    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(tmp_path / "settings.yaml"))
    monkeypatch.setitem(
        vars(napari.settings.get_settings()), "config_path", tmp_path / "settings.yaml"
    )
    path = tmp_path / "napari-nucprune.yaml"
    path.write_text(content)
    dock = make_dock(qtbot)
    assert str(path) in dock.message.text()
    assert "replaced" in dock.message.text()
    assert dock.pruning.ratios() == (kept, kept)
    from napari_nucprune.widgets import memory

    memory.write({"cr": 7.0})
    assert yaml.safe_load(path.read_text())["dock"]["cr"] == 7.0
    assert memory.read()[1] == ""


def make_dock(qtbot):
    from napari.components import ViewerModel

    from napari_nucprune.widgets.dock import NucpruneDock

    dock = NucpruneDock(ViewerModel())
    qtbot.addWidget(dock)
    return dock


def test_the_dock_starts_where_it_was_left(store, quick, qtbot, tmp_path):
    from napari_nucprune.checkpoint.format import save

    save(quick, tmp_path / "mine.safetensors")
    first = make_dock(qtbot)
    assert first.pruning.ratios() == (1.0, 1.0)
    first.open_checkpoint(str(tmp_path / "mine.safetensors"))
    first.pruning.both.set_value(8.0)
    first.control.live.setChecked(False)
    first.close()
    second = make_dock(qtbot)
    assert second.pruning.ratios() == (8.0, 8.0)
    assert not second.control.live.isChecked()
    assert second.checkpoint.choice.currentText() == "mine.safetensors"
    assert second.session.checkpoint.sha256 == quick.sha256
    second.close()
    # Where the file has gone, the bundled one serves and the dock says so.
    (tmp_path / "mine.safetensors").unlink()
    third = make_dock(qtbot)
    assert third.session is not None
    assert "mine.safetensors" in third.message.text()
    assert third.pruning.ratios() == (8.0, 8.0)


def test_changes_are_written_while_the_dock_stays_open(store, quick, qtbot, monkeypatch):
    from napari_nucprune.widgets import memory

    dock = make_dock(qtbot)
    dock.pruning.both.set_value(5.0)
    qtbot.waitUntil(lambda: memory.read()[0].cr == 5.0, timeout=20_000)


def test_the_dock_says_that_settings_were_damaged(quick, qtbot, folder, monkeypatch):
    import napari.settings

    monkeypatch.setattr(napari.settings, "get_plugin_settings", None, raising=False)
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    dock = make_dock(qtbot)
    assert "replaced" in dock.message.text()
    assert dock.session is not None


def test_a_device_that_is_not_here_is_a_sentence(quick, qtbot, folder):
    import torch

    from helpers import is_one_line, noise
    from napari_nucprune.widgets import memory

    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    memory.write({"device": missing})
    dock = make_dock(qtbot)
    dock.viewer.add_image(noise(0, 64, 64), rgb=True)
    qtbot.waitUntil(lambda: missing in dock.message.text(), timeout=60_000)
    assert is_one_line(dock.message.text())


def test_a_dock_that_is_deleted_with_a_change_pending_is_clean(quick, qtbot):
    from napari.components import ViewerModel
    from qtpy.QtCore import QCoreApplication, QEvent

    from napari_nucprune.widgets import memory
    from napari_nucprune.widgets.dock import NucpruneDock

    dock = NucpruneDock(ViewerModel())
    dock.pruning.both.set_value(5.0)
    assert dock.memory._rest.isActive()
    dock.runner.close()
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    qtbot.wait(memory.REST_MS + 300)  # pytest-qt fails where the timer still fires
