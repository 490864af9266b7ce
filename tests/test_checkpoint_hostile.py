import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from helpers import (
    TINY,
    equal_weights,
    few,
    flat,
    is_one_line,
    make_checkpoint,
    refused,
    shapes_by_hand,
)
from napari_nucprune.checkpoint import format as files
from napari_nucprune.doors import BRANCHES
from napari_nucprune.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_cut_off_anywhere(saved, tmp_path):
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    cuts = {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(data) - 1}
    cuts |= set(np.linspace(0, len(data) - 1, 40).astype(int).tolist())
    path = tmp_path / "cut.safetensors"
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        assert "cut.safetensors" in refused(path), cut


def test_bytes_too_many(saved):
    saved.write_bytes(saved.read_bytes() + b"\0" * 64)
    refused(saved)


@few
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".safetensors", ".pt", ".pth"]))
def test_random_bytes(content, suffix, tmp_path):
    path = tmp_path / f"random{suffix}"
    path.write_bytes(content)
    refused(path)


@settings(few, max_examples=60)
@given(data=st.data())
def test_flipped_header_bytes_load_equal_or_are_refused(data, tiny, tmp_path):
    path = tmp_path / "flip.safetensors"
    files.save(tiny, path)
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = files.load(path)
    except InputError as error:
        assert is_one_line(error)
    else:
        assert loaded.weights["semantic"].keys() == tiny.weights["semantic"].keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".PT"])
def test_a_photograph_with_our_ending(suffix, tmp_path):
    from PIL import Image

    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path, format="JPEG")
    refused(path)
    path.write_bytes(b"")
    refused(path)


def test_what_is_no_checkpoint_file(tmp_path):
    assert "not a file" in refused(tmp_path / "missing.safetensors")
    assert "not a file" in refused(tmp_path)
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"x")
    assert ".safetensors" in refused(path)


def broken(change):
    tensors = flat(make_checkpoint(TINY))
    change(tensors)
    return tensors


def _set(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


def _fill(name, value):
    def change(tensors):
        tensors[name].flat[tensors[name].size // 2] = value

    return change


BREAKS = {
    "transposed": (_set("semantic.up.0.weight", np.zeros((2, 3, 2, 2), np.float32)), "up.0"),
    "flat": (_set("semantic.encoder.0.conv1.weight", np.zeros(54, np.float32)), "semantic"),
    "short-bias": (_set("distance.head.bias", np.zeros(0, np.float32)), "distance.head.bias"),
    "scalar-bias": (_set("distance.head.bias", np.zeros((), np.float32)), "distance.head.bias"),
    "nan": (_fill("semantic.decoder.0.conv2.weight", np.nan), "decoder.0.conv2.weight"),
    "inf": (_fill("distance.head.weight", -np.inf), "distance.head.weight"),
    "integers": (_set("semantic.head.bias", np.zeros(1, np.int64)), "head.bias"),
    "bool": (_set("semantic.head.bias", np.zeros(1, bool)), "head.bias"),
    "overflow": (_set("semantic.head.bias", np.full(1, 1e300)), "head.bias"),
    "missing": (lambda t: t.pop("semantic.head.bias"), "semantic.head.bias"),
    "extra": (_set("momentum", np.zeros(1, np.float32)), "1 tensors of no branch"),
    "extra-inside": (_set("semantic.bn.weight", np.zeros(1, np.float32)), "semantic.bn.weight"),
    "extra-newline": (_set("semantic.b\nn", np.zeros(1, np.float32)), "semantic"),
    "third-level": (
        _set("semantic.encoder.2.conv1.weight", np.zeros((2, 3, 3, 3), np.float32)),
        "semantic",
    ),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("case", list(BREAKS))
def test_wrong_tensors(case, tmp_path):
    change, names = BREAKS[case]
    path = tmp_path / "wrong.safetensors"
    save_file(broken(change), path)
    assert names in refused(path)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_is_missing(branch, tmp_path):
    path = tmp_path / "one.safetensors"
    save_file({k: v for k, v in flat(make_checkpoint(TINY)).items() if branch not in k}, path)
    assert f"no {branch} branch" in refused(path)
    save_file({}, path)
    refused(path)


def test_a_network_without_channels(tmp_path):
    tensors = {
        f"{branch}.{name}": np.zeros(shape, np.float32)
        for branch in BRANCHES
        for name, shape in shapes_by_hand((0, 0)).items()
    }
    path = tmp_path / "empty.safetensors"
    save_file(tensors, path)
    refused(path)


def with_metadata(saved, **changes):
    from safetensors import safe_open

    with safe_open(saved, "numpy") as file:
        header = file.metadata()
    header |= changes
    save_file(load_file(saved), saved, {k: v for k, v in header.items() if v is not None})
    return saved


def test_a_future_version(saved):
    text = refused(with_metadata(saved, version="2"))
    assert "version 2" in text
    assert "update" in text


def changed(saved, **changes):
    from safetensors import safe_open

    with safe_open(saved, "numpy") as file:
        about = json.loads(file.metadata()["nucprune"])
    return json.dumps({**about, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1, 2]",
        "null",
        '"text"',
        '{"name": "x"',
        "{}",
        "[" * 100_000,
        '{"mpp": 1' + "0" * 400 + "}",
        '{"mpp": 1' + "0" * 5000 + "}",
    ],
    ids=lambda text: text[:12] + f"~{len(text)}",
)
def test_metadata_that_is_damaged(text, saved):
    refused(with_metadata(saved, nucprune=text))


@pytest.mark.parametrize(
    "change",
    [
        {"mpp": None},
        {"mpp": 0},
        {"mpp": -1},
        {"mpp": "wide"},
        {"mpp": float("nan")},
        {"mpp": [0.25]},
        {"merge": {"sigma": 1}},
        {"merge": {"sigma_um": "a"}},
        {"merge": {"sigma_um": -1}},
        {"merge": 3},
        {"merge": None},
        {"distance_unit_um": "x"},
        {"distance_unit_um": float("nan")},
        {"distance_unit_um": -4},
        {"provenance": "words"},
        {"provenance": 5},
        {"pruning": "layer-wise"},
        {"pruning": 5},
        {"parent_sha256": 5},
    ],
    ids=str,
)
def test_metadata_of_the_wrong_kind(change, saved):
    refused(with_metadata(saved, nucprune=changed(saved, **change)))


def test_files_without_our_metadata_say_that_the_pixel_size_is_assumed(tmp_path):
    checkpoint = make_checkpoint(TINY)
    path = tmp_path / "plain.safetensors"
    save_file(flat(checkpoint), path)
    loaded = files.load(path)
    assert equal_weights(loaded, checkpoint)
    assert (loaded.name, loaded.mpp) == ("plain", 0.25)
    assert loaded.provenance["mpp_assumed"] is True
    given_mpp = files.load(path, mpp=0.5)
    assert (given_mpp.mpp, given_mpp.provenance["mpp_assumed"]) == (0.5, False)
    refused(path, mpp=-1)


def test_half_and_double_precision_become_float32(tmp_path):
    tensors = flat(make_checkpoint(TINY))
    path = tmp_path / "half.safetensors"
    for kind in (np.float16, np.float64):
        save_file({k: v.astype(kind) for k, v in tensors.items()}, path)
        loaded = files.load(path)
        for branch in BRANCHES:
            for name, array in loaded.weights[branch].items():
                assert array.dtype == np.float32
                wanted = tensors[f"{branch}.{name}"].astype(kind).astype(np.float32)
                np.testing.assert_array_equal(array, wanted)
