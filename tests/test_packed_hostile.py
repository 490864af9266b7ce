"""Packed checkpoints: no file, however damaged or hostile, does harm."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, safe_open, save_file

from helpers import QUICK, equal_weights, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import coding, packed
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.doors import BRANCHES
from napari_nucprune.errors import InputError
from packed_helpers import frame, pruned, sparse, written, zstd

__all__ = ["sparse", "written"]


def read(path):
    """Tensors and metadata of a file, with safetensors alone."""
    with safe_open(path, "numpy") as file:
        return load_file(path), dict(file.metadata())


def refused(path):
    """The sentence; 32 MB are more than any of these files has a right to."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
    assert is_one_line(caught.value)
    return str(caught.value)


def changed(path, tensors=None, **header):
    """Rewrite a packed file with some tensors and entries of its packed header changed."""
    old, metadata = read(path)
    about = json.loads(metadata["packed"])
    for key, value in header.items():
        branch, _, entry = key.partition("_")
        about[branch] = {**about[branch], entry: value} if entry else value
    save_file({**old, **(tensors or {})}, path, {**metadata, "packed": json.dumps(about)})


BOMB = 2**30
HEADERS = {
    "no widths": {"semantic_widths": []},
    "gigantic widths": {"semantic_widths": [10**8] * 5},
    "widths that are too large together": {"semantic_widths": [2**13] * 5},
    "negative widths": {"distance_widths": [-4, 8, 8, 8, 8]},
    "widths of text": {"distance_widths": ["4"] * 5},
    "widths in floats": {"distance_widths": [4.0, 8.0, 8.0, 8.0, 8.0]},
    "other widths": {"distance_widths": [4, 8, 8, 8]},
    "too many weights": {"semantic_kept": BOMB},
    "more weights than there are": {"semantic_kept": 4000},
    "fewer weights": {"semantic_kept": 1},
    "negative weights": {"semantic_kept": -1},
    "weights that are true": {"semantic_kept": True},
    "fewer gaps": {"semantic_gaps": 1},
    "too many gaps": {"semantic_gaps": BOMB},
    "a branch that is a number": {"semantic": 5},
    "no branch": {"distance": None},
    "another coder": {"coder": "lzma"},
    "other values": {"values": "float64"},
    "values in a list": {"values": []},
    "values of half the size": {"values": "float16"},
    "bits that are gaps": {"semantic_gaps": None},
    "no coded plane": {"raw": 4},
    "no plain plane": {"raw": 0},
    "a plane that is true": {"raw": True},
    "planes from before": {"raw": None},
}


@pytest.mark.parametrize("case", HEADERS)
def test_hostile_headers(case, written):
    changed(written, **HEADERS[case])
    refused(written)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"coder": "zstd"}', "[" * 100_000])
def test_headers_that_are_none(text, written):
    tensors, metadata = read(written)
    save_file(tensors, written, {**metadata, "packed": text})
    refused(written)


def hostile_tensors(path):
    """By case: what takes the place of some tensors."""
    tensors, metadata = read(path)
    about = json.loads(metadata["packed"])["semantic"]
    kept, entries = about["kept"], about["gaps"]
    gaps, values = tensors["semantic.gaps"], tensors["semantic.values"]
    steps = np.frombuffer(zstd.decompress(gaps.tobytes()), np.uint8)
    assert len(steps) == entries
    nan = np.concatenate([np.zeros(3 * kept, np.uint8), frame(b"\xff" * kept)])
    bomb = np.frombuffer(zstd.compress(bytes(BOMB)), np.uint8)
    window = zstd.CompressionParameter
    wide = zstd.compress(bytes(2**26), options={window.window_log: 26, window.content_size_flag: 0})
    return {
        "gaps over the end": {"gaps": frame([255] * entries)},
        "gaps one over the end": {"gaps": frame([*steps[:-1], int(steps[-1]) + 200])},
        "gaps without weights": {"gaps": frame([0] * entries)},
        "one weight missing": {"gaps": frame([*steps[:-1], 0])},
        "a gap too many": {"gaps": frame([*steps, 1])},
        "a gap missing": {"gaps": frame(steps[:-1])},
        "a bomb for gaps": {"gaps": bomb},
        "a bomb with a wide window": {"gaps": np.frombuffer(wide, np.uint8)},
        "a bomb for values": {"values": np.concatenate([values[: 3 * kept], bomb])},
        "two frames": {"gaps": np.concatenate([gaps, gaps])},
        "bytes after the frame": {"gaps": np.concatenate([gaps, gaps[:3]])},
        "half a frame": {"gaps": gaps[: len(gaps) // 2]},
        "no frame": {"gaps": np.zeros(100, np.uint8)},
        "no bytes": {"gaps": gaps[:0], "values": values[:0]},
        "values cut off": {"values": values[:-9]},
        "values without their frame": {"values": values[:kept]},
        "values that are not numbers": {"values": nan},
        "biases missing": {"biases": tensors["semantic.biases"][:-1]},
        "biases too many": {"biases": np.zeros(10**5, np.float32)},
        "biases that are not numbers": {"biases": tensors["semantic.biases"] * np.nan},
        "biases in integers": {"biases": np.zeros(len(tensors["semantic.biases"]), np.int32)},
        "gaps in floats": {"gaps": gaps.astype(np.float32)},
        "gaps in two axes": {"gaps": gaps[None]},
        "gaps as a number": {"gaps": np.uint8(3).reshape(())},
    }


def test_hostile_tensors(written):
    whole = written.read_bytes()
    said = {}
    for case, tensors in hostile_tensors(written).items():
        written.write_bytes(whole)
        changed(written, {f"semantic.{key}": np.array(a) for key, a in tensors.items()})
        said[case] = refused(written)
    assert "not finite" in said["values that are not numbers"]
    assert "do not lead to" in said["gaps one over the end"]


def test_hostile_bits(tmp_path):
    path = tmp_path / "dense.safetensors"
    save(pruned(make_checkpoint(QUICK, seed=5), 2), path, "lossless")
    tensors, metadata = read(path)
    assert json.loads(metadata["packed"])["semantic"]["gaps"] is None
    bits, whole = tensors["semantic.gaps"], path.read_bytes()
    more = bits.copy()
    more[np.flatnonzero(bits != 255)[0]] = 255
    for wrong in (more, bits[:-1], np.append(bits, np.uint8(0)), ~bits):
        path.write_bytes(whole)
        changed(path, {"semantic.gaps": wrong})
        assert "bits" in refused(path)


def test_files_from_before_the_bits_load(sparse, tmp_path, monkeypatch):
    """They coded the upper half of the planes, and had gaps alone."""
    path, encode = tmp_path / "old.safetensors", coding.encode

    def as_before(flat, dtype):
        gaps, values, kept, entries = encode(flat, dtype)
        third, raw = values[2 * kept : 3 * kept], values[3 * kept :]
        return gaps, np.concatenate([values[: 2 * kept], frame(third), raw]), kept, entries

    monkeypatch.setattr(coding, "DENSE", 1)
    monkeypatch.setattr(packed, "encode", as_before)
    save(sparse, path, "lossless")
    tensors, metadata = read(path)
    about = json.loads(metadata["packed"])
    del about["raw"]
    save_file(tensors, path, {**metadata, "packed": json.dumps(about)})
    assert equal_weights(load(path), sparse)


@pytest.mark.parametrize("name", ["semantic.gaps", "distance.biases"])
def test_tensors_missing_and_unknown(name, written):
    tensors, metadata = read(written)
    save_file({**tensors, "semantic.more": np.zeros(3, np.uint8)}, written, metadata)
    assert "semantic.more" in refused(written)
    del tensors[name]
    save_file(tensors, written, metadata)
    assert name in refused(written)


@pytest.mark.parametrize("change", [{"version": "1"}, {"version": "3"}])
def test_versions(change, written):
    tensors, metadata = read(written)
    save_file(tensors, written, {**metadata, **change})
    assert "update" in refused(written)


def test_a_plain_file_that_says_it_is_packed(sparse, written):
    _, metadata = read(written)
    save(sparse, written)
    tensors, _ = read(written)
    save_file(tensors, written, metadata)
    refused(written)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_load_or_are_refused(sparse, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "p.safetensors"
    save(sparse, path, "lossless")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = load(path)
    except InputError as error:
        assert is_one_line(error)
        return
    for branch in BRANCHES:
        for name, array in found.weights[branch].items():
            assert array.shape == sparse.weights[branch][name].shape
            assert np.isfinite(array).all()


def test_a_network_that_is_too_large_is_not_packed(monkeypatch, tmp_path):
    monkeypatch.setattr(packed, "MOST", 1000)
    with pytest.raises(InputError, match="without packing") as caught:
        save(make_checkpoint(QUICK), tmp_path / "p.safetensors", "lossless")
    assert is_one_line(caught.value)
    assert not list(tmp_path.iterdir())
