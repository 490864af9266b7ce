"""What the computer refuses: one sentence in the dock and on the command line, nothing changed."""

from __future__ import annotations

import errno
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from errors_helpers import dock, folder_state, picture, said, small
from helpers import TINY, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import save
from napari_nucprune.cli import main

__all__ = ["dock", "small"]


@pytest.mark.parametrize("where", ["checkpoint", "results", "dock"])
def test_a_full_disk_can_be_continued(where, tmp_path, capsys, dock, monkeypatch):
    image = tmp_path / "tissue.png"
    Image.fromarray(picture((64, 64, 3))).save(image)
    target = tmp_path / "old.safetensors"
    target.write_bytes(b"what was there")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "results":
        monkeypatch.setattr(tifffile, "imwrite", full)
        command = ["segment", str(image), "-o", str(tmp_path / "out"), "--mpp", "0.25"]
    else:
        monkeypatch.setattr("safetensors.numpy.save_file", full)
        command = ["prune", shipped.DEFAULT, "-o", str(target), "--cr", "2"]
    before = folder_state(tmp_path)
    if where == "dock":
        from qtpy.QtWidgets import QFileDialog

        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
        dock.say("")
        dock.save.checkpoint.click()
        assert "is full" in dock.message.text()
    else:
        assert main(command) == 3
        assert "is full" in said(capsys)
    assert folder_state(tmp_path) == before


@pytest.mark.parametrize("door", ["command", "dock"])
@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError(), "memory"), (OSError(errno.ENOSPC, "No space left on device", "/x"), "is full"),
     (PermissionError(errno.EACCES, "Permission denied", "/x"), "may not be used")],
)  # fmt: skip
def test_what_the_computer_refuses_is_no_fault_of_ours(
    error, words, door, tmp_path, capsys, dock, monkeypatch
):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(shipped, "open_checkpoint", refuse)
    if door == "dock":
        dock.say("")
        assert not dock.open_checkpoint(shipped.DEFAULT)
        text = dock.message.text()
    else:
        assert main(["info", shipped.DEFAULT]) == 3
        text = said(capsys)
    assert words in text
    assert is_one_line(text)


def test_the_viewer_s_command_without_a_screen(capsys, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("Qt aborts without a screen on Linux alone")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert main(["view"]) == 2
    assert "no screen" in said(capsys)


#: No one may write here, not even root.
READ_ONLY = "/sys"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder closed to root")
@pytest.mark.parametrize("what", ["segment", "slide", "prune", "packed", "convert", "sweep",
                                  "evaluate", "train", "dock"])  # fmt: skip
def test_a_read_only_folder(what, tmp_path, capsys, dock, monkeypatch):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "images" / "a.png")
    Image.fromarray(picture((64, 64))).save(tmp_path / "labels" / "a.png")
    image, net = tmp_path / "images" / "a.png", tmp_path / "c.safetensors"
    save(make_checkpoint(TINY), net)
    (tmp_path / "train.toml").write_text(
        f'name = "t"\n[[data]]\nlayout = "pairs"\npath = "{tmp_path}"\n'
    )
    pairs = [str(tmp_path), "--layout", "pairs", "--mpp", "0.25"]
    target = f"{READ_ONLY}/nucprune.safetensors"
    command = {
        "segment": ["segment", str(image), "--mpp", "0.25", "-o", f"{READ_ONLY}/out"],
        "slide": ["segment", str(image), "--mpp", "0.25", "--slide", "-o", f"{READ_ONLY}/out"],
        "prune": ["prune", shipped.DEFAULT, "--cr", "2", "-o", target],
        "packed": ["prune", shipped.DEFAULT, "--cr", "2", "--packed", "-o", target],
        "convert": ["convert", str(net), "--mpp", "0.25", "-o", target],
        "sweep": ["sweep", *pairs, "--cr", "1", "-o", f"{READ_ONLY}/out"],
        "evaluate": ["evaluate", *pairs, "--json", f"{READ_ONLY}/out.json"],
        "train": ["train", str(tmp_path / "train.toml"), "-o", f"{READ_ONLY}/out"],
    }.get(what)
    before = folder_state(tmp_path)
    if command is None:
        from qtpy.QtWidgets import QFileDialog

        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (target, ""))
        dock.say("")
        dock.save.checkpoint.click()
        text = dock.message.text()
    else:
        assert main(command) == 3
        text = [x for x in capsys.readouterr().err.strip().splitlines() if "cannot be" in x][-1]
    assert "cannot be written" in text
    assert READ_ONLY in text
    assert ".tmp" not in text
    assert is_one_line(text)
    assert folder_state(tmp_path) == before


@pytest.mark.parametrize("what", ["segment", "prune", "convert"])
def test_output_below_a_file(what, tmp_path, capsys, small):
    (tmp_path / "file").write_bytes(b"x")
    image = tmp_path / "tissue.png"
    Image.fromarray(picture((64, 64, 3))).save(image)
    save(make_checkpoint(TINY), tmp_path / "c.safetensors")
    command = {
        "segment": ["segment", str(image), "--mpp", "0.25", "-o", str(tmp_path / "file" / "out")],
        "prune": ["prune", shipped.DEFAULT, "--cr", "2", "-o", str(tmp_path / "file" / "c.safetensors")],
        "convert": ["convert", str(tmp_path / "c.safetensors"), "--mpp", "0.25",
                    "-o", str(tmp_path / "file" / "c.safetensors")],
    }[what]  # fmt: skip
    before = folder_state(tmp_path)
    assert main(command) == 3
    said(capsys)
    assert folder_state(tmp_path) == before
