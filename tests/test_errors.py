"""Bad input: one sentence in the dock and on the command line, and nothing changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from errors_helpers import dock, folder_state, picture, said, small
from errors_table import ANNOTATIONS, CHECKPOINTS, IMAGES, OPTIONS
from helpers import is_one_line
from napari_nucprune.cli import main
from napari_nucprune.errors import InputError
from napari_nucprune.widgets.annotated import read as read_annotation

__all__ = ["dock", "small"]


def make(tmp_path, row):
    name, write, words = row
    path = tmp_path / name
    if write is not None:
        write(path)
    return path, words


#: Images that napari itself reads: the dock refuses them when they are to be run.
AS_LAYERS = ("grey png", "two channels", "12 bits in 16", "floats to 255", "NaN pixels",
             "32-bit integers")  # fmt: skip


def is_ours(path):
    return path.suffix not in (".png", ".tif")


def test_the_table_has_more_than_40_rows_for_either_door():
    slides = sum(is_ours(Path(name)) for name, *_ in IMAGES.values())
    in_viewer = len(CHECKPOINTS) + slides + len(AS_LAYERS) + len(ANNOTATIONS)
    assert in_viewer > 40
    assert sum(map(len, (CHECKPOINTS, IMAGES, ANNOTATIONS, OPTIONS))) > 80


@pytest.mark.parametrize(
    "command", [[], ["fly"], ["segment"], ["segment", "a.png"], ["info", "--lost"], ["prune", "x"]]
)
def test_commands_that_are_wrong(command, capsys):
    assert main(command) == 2
    assert "--help" in said(capsys)


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_bad_checkpoints(case, tmp_path, capsys, dock, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, words = make(tmp_path, CHECKPOINTS[case])
    before = folder_state(tmp_path)
    for command in (
        ["info", str(path)],
        ["prune", str(path), "-o", "out.safetensors", "--cr", "2"],
    ):
        assert main(command) == 2
        assert words in said(capsys)
    session, chosen = dock.session, dock.checkpoint.choice.currentText()
    dock.say("")
    assert not dock.open_checkpoint(str(path))
    assert words in dock.message.text()
    assert is_one_line(dock.message.text())
    assert dock.session is session
    assert dock.checkpoint.choice.currentText() == chosen
    assert folder_state(tmp_path) == before


@pytest.mark.parametrize("case", IMAGES)
def test_bad_images(case, tmp_path, capsys, dock, qtbot):
    path, words = make(tmp_path, IMAGES[case])
    before = folder_state(tmp_path)
    assert main(["segment", str(path), "-o", str(tmp_path / "out"), "--mpp", "0.25"]) == 2
    assert words in said(capsys)
    assert folder_state(tmp_path) == before
    viewer = dock.viewer
    if is_ours(path):
        # napari shows what a reader raises; that a file is missing it says itself.
        error = InputError if path.exists() else FileNotFoundError
        with pytest.raises(error) as caught:
            viewer.open(str(path), plugin="napari-nucprune")
        assert (words if path.exists() else path.name) in str(caught.value)
        assert is_one_line(caught.value)
    elif case in AS_LAYERS:
        data = np.asarray(Image.open(path)) if path.suffix == ".png" else tifffile.imread(path)
        wrong = "no colour" if words == "RGB" else words
        dock.say("")
        viewer.add_image(data, name="a", rgb=data.shape[-1] == 3)
        qtbot.waitUntil(lambda: wrong in dock.message.text(), timeout=20_000)
        assert is_one_line(dock.message.text())
        viewer.layers.clear()
    assert len(viewer.layers) == 0
    assert folder_state(tmp_path) == before


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_bad_annotations(case, tmp_path, capsys, dock):
    path, words = make(tmp_path, ANNOTATIONS[case])
    # Content that another plugin may know is left to napari, which says so itself.
    refused = ValueError if path.suffix in (".zip", ".roi") else InputError
    with pytest.raises(refused, match=path.name):
        dock.viewer.open(str(path), plugin="napari-nucprune")
    assert len(dock.viewer.layers) == 0
    capsys.readouterr()
    with pytest.raises(InputError) as caught:
        read_annotation(str(path))
    assert words in str(caught.value)
    assert is_one_line(caught.value)
    if path.suffix == ".xml" and case != "xml without outlines":
        tifffile.imwrite(tmp_path / "a.tif", picture((64, 64, 3)), photometric="rgb")
        before = folder_state(tmp_path)
        assert main(["evaluate", str(tmp_path), "--layout", "monuseg"]) == 2
        assert words in said(capsys)
        assert folder_state(tmp_path) == before


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options(case, tmp_path, capsys, small):
    options, words = OPTIONS[case]
    image = tmp_path / "tissue.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(image)
    before = folder_state(tmp_path)
    common = [] if "--mpp" in options else ["--mpp", "0.25"]
    assert main(["segment", str(image), "-o", str(tmp_path / "out"), *common, *options]) == 2
    assert words in said(capsys)
    assert folder_state(tmp_path) == before


@pytest.mark.parametrize(
    ("layout", "write"),
    [("monuseg", lambda f: None), ("pairs", lambda f: (f / "images").mkdir()),
     ("lost", lambda f: None), ("tnbc", lambda f: (f / "Slide_01").mkdir())],
)  # fmt: skip
def test_bad_folders(layout, write, tmp_path, capsys, small):
    write(tmp_path)
    before = folder_state(tmp_path)
    assert main(["evaluate", str(tmp_path), "--layout", layout]) == 2
    said(capsys)
    assert main(["evaluate", str(tmp_path / "missing"), "--layout", layout]) == 2
    said(capsys)
    assert folder_state(tmp_path) == before


def test_labels_of_another_size(tmp_path, capsys, small):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(picture((64, 64, 3))).save(tmp_path / "images" / "a.png")
    Image.fromarray(picture((32, 64))).save(tmp_path / "labels" / "a.png")
    assert main(["evaluate", str(tmp_path), "--layout", "pairs", "--mpp", "0.25"]) == 2
    assert "the same size" in said(capsys)


@pytest.mark.window
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.svs", "a.txt"])
def test_the_viewer_s_command_refuses_what_it_cannot_open(name, tmp_path, small, qapp):
    from napari_nucprune.widgets.window import open_viewer

    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(InputError, match=name) as caught:
        open_viewer(str(tmp_path / name), show=False)
    assert is_one_line(caught.value)
