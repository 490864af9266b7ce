"""Whole slides that are damaged or go away, and runs that cannot begin."""

import numpy as np
import pytest
import tifffile

from napari_nucprune.errors import EnvironmentStopped, InputError
from napari_nucprune.slides.lazy import LazyLevel
from napari_nucprune.slides.stages import Hooks
from napari_nucprune.slides.whole import segment_slide
from whole_helpers import ask, bytes_of, reference, same, slide

__all__ = ["reference", "slide"]


def test_a_folder_that_cannot_be_written(slide, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        segment_slide(ask(slide, tmp_path / "file"))
    with pytest.raises(EnvironmentStopped):
        segment_slide(ask(slide, tmp_path / "file" / "below"))


def test_a_bad_tile_is_glass_and_counted(slide, reference, tmp_path):
    path = tmp_path / "bad.tif"
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] >= 1
    labels = bytes_of(tmp_path / "out")[0]["0"]
    assert not labels[:100, :100].any()
    assert labels[512:].any() == bytes_of(reference)[0]["0"][512:].any()


def test_a_slide_that_goes_away_in_mid_run_is_no_glass(slide, reference, tmp_path):
    """A disk that was unplugged: what is left must be done when it is back."""
    path = tmp_path / "away.tif"
    whole = slide.read_bytes()
    path.write_bytes(whole)
    hooks, done = Hooks(), []

    def away(stage, core, about):
        done.append(stage)
        if len(done) == 2:
            path.write_bytes(b"")

    hooks.done = away
    with pytest.raises(EnvironmentStopped, match="cannot be read any more"):
        segment_slide(ask(path, tmp_path / "out"), hooks=hooks)
    path.write_bytes(whole)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] == 0
    same(bytes_of(tmp_path / "out"), bytes_of(reference))


def test_what_a_damaged_square_gives_depends_on_the_request_alone():
    class Damaged:
        """Rows from 700 on cannot be read."""

        shapes, background = [(2048, 600)], (240, 241, 242)

        def read(self, level, y, x, height, width):
            if y + height > 700 and y < 1024:
                raise InputError("damaged")
            return np.full((height, width, 3), 7, np.uint8)

    requests = [np.s_[0:640, 0:300], np.s_[600:1100, 0:300], np.s_[512:660, :], np.s_[1000:1200, :]]
    found = []
    for order in (requests, requests[::-1]):
        level = LazyLevel(Damaged(), 0)
        got = {str(request): level[request] for request in order}
        found.append(got)
        assert level.bad == {(1, 0), (1, 1)}
    for request in map(str, requests):
        np.testing.assert_array_equal(found[0][request], found[1][request])
    assert (found[0][str(requests[2])] == 7).all()


def test_a_damaged_small_level_hides_no_tissue(slide, reference, tmp_path, caplog):
    path = tmp_path / "bad.tif"
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) > 1
        offsets = [offset for page in tif.pages[1:] for offset in page.dataoffsets]
        counts = [count for page in tif.pages[1:] for count in page.databytecounts]
    with path.open("r+b") as file:
        for offset, count in zip(offsets, counts, strict=True):
            file.seek(offset)
            file.write(b"\xff" * count)
    run = segment_slide(ask(path, tmp_path / "out"))
    assert run["bad_tiles"] >= 1
    assert bytes_of(tmp_path / "out")[0]["0"].tobytes() == bytes_of(reference)[0]["0"].tobytes()


def test_a_network_whose_distances_are_in_pixels_is_refused(slide, tmp_path):
    asked = ask(slide, tmp_path / "out")
    asked.opened.weights["distance"]["head.weight"][:] *= 1e4
    with pytest.raises(InputError, match="distance"):
        segment_slide(asked)
