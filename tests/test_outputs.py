"""Results as files: whole or not there, and with their values."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import is_one_line
from napari_nucprune.errors import EnvironmentStopped, InputError
from napari_nucprune.slides import outputs


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_staged_files_arrive_together(tmp_path):
    folder = tmp_path / "a" / "b"
    with outputs.staged(folder) as scratch:
        (scratch / "one.txt").write_text("1")
        (scratch / "two.txt").write_text("2")
        assert not (folder / "one.txt").exists()
    assert contents(tmp_path) == {"a/b/one.txt": b"1", "a/b/two.txt": b"2"}
    assert sorted(os.listdir(folder)) == ["one.txt", "two.txt"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("bug"), ValueError),
        (InputError("yours"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), EnvironmentStopped),
        (PermissionError(13, "Permission denied"), EnvironmentStopped),
    ],
)
def test_staged_leaves_nothing_on_failure(error, raised, tmp_path):
    (tmp_path / "one.txt").write_text("old")

    def write():
        with outputs.staged(tmp_path) as scratch:
            (scratch / "one.txt").write_text("new")
            (scratch / "sub").mkdir()
            (scratch / "sub" / "deep.txt").write_text("new")
            raise error

    with pytest.raises(raised) as caught:
        write()
    assert sorted(os.listdir(tmp_path)) == ["one.txt"]
    assert (tmp_path / "one.txt").read_text() == "old"
    if raised is EnvironmentStopped:
        assert is_one_line(caught.value)
        assert ("full" in str(caught.value)) == (error.errno == 28)


def test_staged_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder, kind in (
        (tmp_path / "file", InputError),
        (tmp_path / "file/x", EnvironmentStopped),
    ):
        with pytest.raises(kind) as caught, outputs.staged(folder):
            raise AssertionError("must not be entered")
        assert is_one_line(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


def test_labels_keep_their_values_and_pixel_size(tmp_path):
    import tifffile

    from napari_nucprune.slides.image import _tiff_mpp

    labels = np.random.default_rng(0).integers(0, 70_000, (40, 50)).astype(np.int32)
    path = tmp_path / "labels.tif"
    outputs.save_labels(labels, path, 0.2738)
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[0].asarray()
        assert _tiff_mpp(tif) == pytest.approx(0.2738, rel=1e-5)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)
    outputs.save_labels(labels, path)
    with tifffile.TiffFile(path) as tif:
        assert _tiff_mpp(tif) is None
    assert os.listdir(tmp_path) == ["labels.tif"]


def test_labels_that_cannot_be_written(tmp_path, monkeypatch):
    labels = np.zeros((4, 4), np.int32)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "missing/x.tif", tmp_path / "file/x.tif"):
        with pytest.raises(EnvironmentStopped) as caught:
            outputs.save_labels(labels, path)
        assert is_one_line(caught.value)
    path = tmp_path / "labels.tif"
    outputs.save_labels(labels, path)
    before = contents(tmp_path)

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_tiff", full)
    with pytest.raises(EnvironmentStopped, match="full"):
        outputs.save_labels(labels + 1, path)
    assert contents(tmp_path) == before


def test_json_without_nan(tmp_path):
    outputs.write_json(tmp_path / "a.json", {"µ": 1.5, "none": None})
    import json

    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"µ": 1.5, "none": None}
    with pytest.raises(ValueError, match="JSON"):
        outputs.write_json(tmp_path / "b.json", {"x": float("nan")})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14), st.integers(1, 14))
def test_overlay_draws_the_nuclei_s_own_border(seed, height, width):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width)).repeat(2, 0).repeat(2, 1).astype(np.int32)
    rgb = rng.integers(0, 200, (*labels.shape, 3)).astype(np.uint8)
    before = rgb.copy()
    drawn = outputs.overlay(rgb, labels, (255, 254, 3))
    np.testing.assert_array_equal(rgb, before)
    wanted = rgb.copy()
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            around = labels[max(y - 1, 0) : y + 2, x].tolist()
            around += labels[y, max(x - 1, 0) : x + 2].tolist()
            if labels[y, x] and any(n != labels[y, x] for n in around):
                wanted[y, x] = (255, 254, 3)
    np.testing.assert_array_equal(drawn, wanted)
    np.testing.assert_array_equal(drawn[labels == 0], rgb[labels == 0])
