"""ImageJ's outlines: the published pixels, a box by hand, holes, and damage."""

import logging
import zipfile

import numpy as np
import pytest
import tifffile
from roifile import ROI_TYPE, ImagejRoi

from layouts_helpers import BOX, SIDE, rois
from napari_nucprune.datasets.imagej import labels_from_rois
from napari_nucprune.errors import InputError
from test_datasets import foreground_iou


def test_rois_fill_the_published_pixels(shared_data):
    """The publisher's own maps; ``label masks`` are right where nuclei do not overlap."""
    folder = shared_data / "NuInsSeg" / "human bladder"
    for name, count in (("human_bladder_01", 24), ("human_bladder_02", 3)):
        published = tifffile.imread(folder / "label masks" / f"{name}.tif").astype(int)
        path = folder / "Imagej_zips" / f"{name}.zip"
        found = labels_from_rois(path, published.shape)
        assert found.max() == count == len(np.unique(found)) - 1
        assert np.count_nonzero(found != published) <= 0.01 * np.count_nonzero(published)
        for i in range(1, count + 1):  # nucleus by nucleus, with the same numbers
            assert foreground_iou(found == i, published == i) > 0.93, i
        raw, right = (
            foreground_iou(labels_from_rois(path, published.shape, offset), published)
            for offset in (0.0, -1.0)
        )
        assert right > 0.995 > 0.96 > raw


def test_a_box_by_hand(tmp_path):
    rois(tmp_path / "r.zip", a=BOX)
    labels = labels_from_rois(tmp_path / "r.zip", (SIDE, SIDE))
    wanted = np.zeros((SIDE, SIDE), np.int32)
    wanted[3:12, 2:8] = 1  # x and y are edges in ImageJ; what its offset of -0.5 draws
    exact = labels_from_rois(tmp_path / "r.zip", (SIDE, SIDE), offset=-0.5)
    np.testing.assert_array_equal(exact, wanted)
    assert labels.dtype == np.int32
    # poly2mask keeps one side of the border: the same box, no larger.
    assert labels.sum() == wanted.sum()


def test_later_rois_lie_on_top_in_the_order_of_their_names(tmp_path, caplog):
    inner = [(4, 5), (6, 5), (6, 8), (4, 8)]
    rois(tmp_path / "r.zip", b=BOX, a=inner)
    with caplog.at_level(logging.WARNING):
        labels = labels_from_rois(tmp_path / "r.zip", (SIDE, SIDE))
    assert set(np.unique(labels)) == {0, 2}
    assert "1 ROIs lie wholly under" in caplog.text
    rois(tmp_path / "r.zip", a=BOX, b=inner)
    assert set(np.unique(labels_from_rois(tmp_path / "r.zip", (SIDE, SIDE)))) == {0, 1, 2}


def test_what_encloses_nothing_is_said(tmp_path, caplog):
    point = ImagejRoi.frompoints([[5, 5]])
    point.roitype = ROI_TYPE.POINT
    rois(tmp_path / "r.zip", a=BOX, outside=[(900, 900), (910, 900), (910, 910)])
    with zipfile.ZipFile(tmp_path / "r.zip", "a") as archive:
        archive.writestr("p.roi", point.tobytes())
        archive.writestr("__MACOSX/._a.roi", b"not a ROI")
    with caplog.at_level(logging.WARNING):
        labels = labels_from_rois(tmp_path / "r.zip", (SIDE, SIDE))
    assert set(np.unique(labels)) == {0, 1}
    assert "2 of 3 ROIs enclose no pixel" in caplog.text
    assert "outside.roi" in caplog.text


def test_shapes_with_holes(tmp_path):
    ring = ImagejRoi.frompoints(np.array([(0, 0), (20, 20)]))
    ring.roitype, ring.integer_coordinates = ROI_TYPE.RECT, None
    path = []
    for low, high in ((2, 18), (6, 12)):
        corners = [(low, low), (high, low), (high, high), (low, high)]
        path += [0, *corners[0], *(v for c in corners[1:] for v in (1, *c)), 4]
    ring.multi_coordinates = np.array(path, np.float32)
    ring.shape_roi_size = len(path)
    ring.left, ring.top, ring.right, ring.bottom = 2, 2, 18, 18
    (tmp_path / "ring.roi").write_bytes(ring.tobytes())
    labels = labels_from_rois(tmp_path / "ring.roi", (SIDE, SIDE), offset=-0.5)
    wanted = np.zeros((SIDE, SIDE), np.int32)
    wanted[2:18, 2:18] = 1
    wanted[6:12, 6:12] = 0
    np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"words"])
def test_damaged_zips(content, tmp_path):
    path = tmp_path / "bad.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.zip"):
        labels_from_rois(path, (9, 9))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.roi", content)
    with pytest.raises(InputError, match=r"bad\.zip"):
        labels_from_rois(path, (9, 9))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", content)
    with pytest.raises(InputError, match=r"no \.roi"):
        labels_from_rois(path, (9, 9))
