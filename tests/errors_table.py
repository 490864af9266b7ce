"""The table of bad input: how each file is made, and words of the sentence."""

from __future__ import annotations

import pickle
import zipfile

import h5py
import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from errors_helpers import picture
from helpers import TINY, branch_weights, make_checkpoint
from napari_nucprune.checkpoint.format import save

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(range(256)) * 9


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
