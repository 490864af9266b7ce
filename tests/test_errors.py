"""The table of bad input: one sentence in the dock and on the command line, and nothing changed."""

from __future__ import annotations

import errno
import hashlib
import pickle
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from helpers import TINY, branch_weights, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import save
from napari_nucprune.cli import main
from napari_nucprune.errors import InputError
from napari_nucprune.widgets.annotated import read as read_annotation

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(range(256)) * 9


def folder_state(folder):
    """Every file below with its content's hash."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in sorted(folder.rglob("*"))
    }


class Evil:
    """Would write a file when unpickled."""

    def __reduce__(self):
        return (open, ("pwned", "w"))


def changed(path, change=None, metadata=None):
    """A good checkpoint with something wrong in it."""
    save(make_checkpoint(TINY), path)
    tensors = load_file(path)
    if change:
        change(tensors)
    about = {"format": "nucprune", "version": "1", "nucprune": '{"mpp": 0.25}'} | (metadata or {})
    save_file(tensors, path, about)


def put(name, value):
    def change(tensors):
        old = tensors["semantic.up.0.weight"]
        tensors["semantic.up.0.weight"] = value(old)

    return lambda path: changed(path, change)


def drop(*prefixes):
    def change(tensors):
        for name in [n for n in tensors if n.startswith(prefixes)]:
            del tensors[name]

    return lambda path: changed(path, change)


def extra(path):
    changed(path, lambda tensors: tensors.update({"third.x": np.ones(3, np.float32)}))


def about(**metadata):
    return lambda path: changed(path, metadata=metadata)


def cut(make, keep):
    def write(path):
        make(path)
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return write


def raw(content):
    return lambda path: path.write_bytes(content)


def torch_file(value):
    return lambda path: torch.save(value, path)


def bad_hdf5(path):
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = "text"


def foreign(path):
    weights = branch_weights(TINY, np.random.default_rng(0))
    torch.save({f"net.{k}": torch.from_numpy(v) for k, v in weights.items()}, path)


def no_model(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


nan = put("nan", lambda a: np.where(a == a.max(), np.nan, a).astype(np.float32))
infinite = put("inf", lambda a: np.where(a == a.max(), np.inf, a).astype(np.float32))

#: Name of the file, how to make it (None: it is missing), words of the sentence.
CHECKPOINTS = {
    "renamed jpeg": ("a.safetensors", raw(JPEG), "a.safetensors"),
    "renamed jpeg as torch": ("a.pt", raw(JPEG), "no torch file"),
    "renamed jpeg as keras": ("a.h5", raw(JPEG), "a.h5"),
    "renamed jpeg as archive": ("a.keras", raw(JPEG), "a.keras"),
    "0 bytes": ("a.safetensors", raw(b""), "a.safetensors"),
    "0 bytes as torch": ("a.pth", raw(b""), "no torch file"),
    "0 bytes as keras": ("a.hdf5", raw(b""), "a.hdf5"),
    "cut off": ("a.safetensors", cut(changed, 0.7), "copy or download"),
    "cut off as torch": ("a.pt", cut(foreign, 0.7), "copy or download"),
    "cut off as keras": ("a.h5", cut(bad_hdf5, 0.3), "a.h5"),
    "NaN weight": ("a.safetensors", nan, "not finite"),
    "infinite weight": ("a.safetensors", infinite, "not finite"),
    "integers": ("a.safetensors", put("int", lambda a: a.astype(np.int32)), "int32"),
    "another shape": ("a.safetensors", put("shape", lambda a: a[..., :1]), "semantic.up.0.weight"),
    "a tensor less": ("a.safetensors", drop("distance.head.bias"), "distance.head.bias"),
    "a tensor more": ("a.safetensors", extra, "no branch"),
    "one branch": ("a.safetensors", drop("distance"), "no distance branch"),
    "one level": ("a.safetensors", drop("semantic.encoder.1"), "2 to 8 levels"),
    "no tensors": ("a.safetensors", drop(""), "a.safetensors"),
    "metadata no json": ("a.safetensors", about(nucprune="{"), "metadata"),
    "metadata without mpp": ("a.safetensors", about(nucprune="{}"), "mpp"),
    "metadata of 0 um": ("a.safetensors", about(nucprune='{"mpp": 0}'), "mpp"),
    "metadata of nonsense": ("a.safetensors", about(nucprune='{"mpp": 1, "merge": {"x": 1}}'), "x"),
    "metadata of 10^400 um": (
        "a.safetensors",
        about(nucprune='{"mpp": 1%s}' % ("0" * 400)),
        "metadata",
    ),
    "pruned by a number": (
        "a.safetensors",
        about(nucprune='{"mpp": 1, "pruning": {"strategy": 3}}'),
        "pruning",
    ),
    "kept layers no list": (
        "a.safetensors",
        about(nucprune='{"mpp": 1, "pruning": {"keep": 7}}'),
        "pruning",
    ),
    "a later version": ("a.safetensors", about(version="99"), "update"),
    "code instead of weights": ("a.pt", raw(pickle.dumps(Evil())), "run code"),
    "a list": ("a.pt", torch_file([1, 2]), "list"),
    "texts": ("a.pt", torch_file({"a": "b"}), "other things"),
    "foreign names": ("a.pt", foreign, "nucprune convert"),
    "keras without arrays": ("a.h5", bad_hdf5, "floats"),
    "keras without a model": ("a.keras", no_model, "a.keras"),
    "unknown ending": ("a.onnx", raw(JPEG), ".safetensors"),
    "a folder": ("a.safetensors", lambda path: path.mkdir(), "not a file"),
    "missing": ("a.safetensors", None, "a.safetensors"),
}


def picture(shape, dtype="uint8", value=99):
    return np.full(shape, value, dtype)


def tiff(*shape, dtype="uint8", value=99, **options):
    return lambda path: tifffile.imwrite(path, picture(shape, dtype, value), **options)


def huge_tiff(path):
    """A good file whose width and length were overwritten."""
    tifffile.imwrite(path, picture((64, 64, 3)), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[tag].overwrite(320_000, dtype="I")


def png(*shape):
    return lambda path: Image.fromarray(picture(shape)).save(path, "png")


IMAGES = {
    "text as png": ("a.png", raw(b"text"), "a.png"),
    "0 byte png": ("a.png", raw(b""), "a.png"),
    "cut off png": ("a.png", cut(png(64, 64, 3), 0.5), "a.png"),
    "grey png": ("a.png", png(64, 64), "RGB"),
    "text as tiff": ("a.tif", raw(b"text"), "a.tif"),
    "cut off tiff": ("a.tif", cut(tiff(64, 64, 3), 0.5), "a.tif"),
    "a header of 300 GB": ("a.tif", huge_tiff, "claims"),
    "two channels": ("a.tif", tiff(64, 64, 2), "RGB"),
    "12 bits in 16": ("a.tif", tiff(80, 80, 3, dtype="uint16", value=4000, photometric="rgb"), "16 bits"),
    "floats to 255": ("a.tif", tiff(64, 64, 3, dtype="float32", photometric="rgb"), "99"),
    "NaN pixels": ("a.tif", tiff(64, 64, 3, dtype="float32", value=np.nan, photometric="rgb"), "nan"),
    "32-bit integers": ("a.tif", tiff(64, 64, 3, dtype="int32", photometric="rgb"), "int32"),
    "0 byte slide": ("a.svs", raw(b""), "0 bytes"),
    "text as slide": ("a.ndpi", raw(b"text" * 99), "no slide"),
    "renamed jpeg as slide": ("a.svs", raw(JPEG), "no slide"),
    "png as slide": ("a.mrxs", png(64, 64, 3), "a.mrxs"),
    "cut off slide": ("a.svs", cut(tiff(512, 512, 3, tile=(256, 256), photometric="rgb"), 0.5), "a.svs"),
    "missing image": ("a.png", None, "not a file"),
    "missing slide": ("a.svs", None, "not a file"),
    "folder as image": ("a.png", lambda path: path.mkdir(), "is a folder; give the file of an image"),
}  # fmt: skip

ANNOTATIONS = {
    "cut off xml": ("a.xml", raw(b"<Annotations><Annotation>"), "a.xml"),
    "xml without outlines": ("a.xml", raw(b"<Annotations/>"), "no outline"),
    "xml with text for numbers": (
        "a.xml", raw(b'<Annotations><Region><Vertex X="a" Y="b"/></Region></Annotations>'), "a.xml",
    ),
    "cut off zip": ("a.zip", raw(b"PK\3\4 something"), "a.zip"),
    "zip without rois": ("a.zip", no_model, "a.zip"),
    "roi of zeros": ("a.roi", raw(bytes(64)), "a.roi"),
}  # fmt: skip

#: What is wrong with a good image's run, and words of the sentence.
OPTIONS = {
    "mpp of 0": (["--mpp", "0"], "pixel size"),
    "mpp no number": (["--mpp", "nan"], "pixel size"),
    "mpp below 0": (["--mpp", "-1"], "pixel size"),
    "mpp a word": (["--mpp", "fine"], "'fine'"),
    "CR below 1": (["--cr", "0.5"], "0.5"),
    "CR no number": (["--cr", "nan"], "nan"),
    "CR a word": (["--cr", "much"], "'much'"),
    "CR beyond the heads": (["--cr", "1e9"], "the largest is"),
    "CR twice": (["--cr", "5", "--cr-semantic", "5"], "--cr"),
    "unknown strategy": (["--strategy", "best", "--cr", "5"], "layer-wise"),
    "another CR than 2:4 has": (["--strategy", "2:4", "--cr", "5"], "ask for"),
    "unknown layer": (["--keep", "feet", "--cr", "5"], "known are"),
    "no threads": (["--threads", "0"], "at least 1"),
    "tile off the grid": (["--tile", "7"], "multiple of 16"),
    "tile a word": (["--tile", "x"], "'x'"),
    "unknown device": (["--device", "tpu"], "tpu"),
    "unknown runtime": (["--runtime", "gpu"], "'gpu'"),
    "unknown table": (["--table", "xls"], "'xls'"),
    "unknown option": (["--fast"], "--fast"),
    "recovery of nothing": (["--recover", "bundled"], "--cr"),
    "recovery on a missing image": (["--cr", "2", "--recover", "missing.png"], "missing.png"),
    "missing checkpoint": (["--checkpoint", "missing"], "neither a bundled checkpoint"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A quick network in the place of the bundled one, for all rows."""
    folder = tmp_path_factory.mktemp("weights")
    checkpoint = make_checkpoint(TINY, seed=3, name=shipped.DEFAULT)
    save(checkpoint, folder / f"{shipped.DEFAULT}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "FOLDER", folder)
        yield replace(checkpoint)


@pytest.fixture(scope="module")
def dock(small, qapp):
    """One dock for all rows: what a row breaks, the next one sees."""
    napari = pytest.importorskip("napari")
    from napari_nucprune.widgets.dock import NucpruneDock

    dock = NucpruneDock(napari.components.ViewerModel())
    yield dock
    dock.close()
    dock.runner.close()
    dock.deleteLater()


def said(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nucprune: ")
    assert "a fault of ours" not in lines[0]
    assert is_one_line(lines[0])
    assert lines[0].endswith((".", "]")), lines[0]
    return lines[0]


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


@pytest.mark.window
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.svs", "a.txt"])
def test_the_viewer_s_command_refuses_what_it_cannot_open(name, tmp_path, small, qapp):
    from napari_nucprune.widgets.window import open_viewer

    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(InputError, match=name) as caught:
        open_viewer(str(tmp_path / name), show=False)
    assert is_one_line(caught.value)


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
