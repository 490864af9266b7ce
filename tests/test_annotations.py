"""Dropped outlines: Aperio XML and ImageJ ROIs become Labels that lie on their image."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import tifffile
from roifile import ImagejRoi

from helpers import is_one_line, noise
from napari_nucprune import annotations
from napari_nucprune.errors import InputError

napari = pytest.importorskip("napari")
from napari.components import ViewerModel

from napari_nucprune.widgets import annotated

MONUSEG = "MoNuSeg/MoNuSegTrainingData"


def aperio(*polygons, mpp=""):
    """An Aperio XML of polygons [(x, y), ...]."""
    regions = "".join(
        "<Region><Vertices>"
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in polygon)
        + "</Vertices></Region>"
        for polygon in polygons
    )
    about = f' MicronsPerPixel="{mpp}"' if mpp else ""
    return (
        f"<Annotations{about}><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"
    )


def square(x, y, side):
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def roi_set(path, *squares):
    with zipfile.ZipFile(path, "w") as archive:
        for i, (x, y, side) in enumerate(squares):
            roi = ImagejRoi.frompoints(np.array(square(x, y, side)))
            archive.writestr(f"{i:04d}.roi", roi.tobytes())


@pytest.fixture
def viewer(monkeypatch):
    """A viewer without a window that the reader takes for the current one."""
    model = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: model)
    return model


def drop(viewer, path):
    """What napari does with a dropped file that only we read."""
    reader = annotated.get_reader(str(path))
    ((labels, attributes, kind),) = reader(str(path))
    assert kind == "labels"
    return viewer.add_labels(labels, **attributes)


@pytest.mark.parametrize("kind", ["xml", "zip", "roi"])
def test_outlines_alone_reach_as_far_as_they_reach(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "xml":
        path.write_text(aperio(square(5, 3, 10), square(30, 20, 8), mpp=0.25))
    elif kind == "zip":
        roi_set(path, (5, 3, 10), (30, 20, 8))
    else:
        path.write_bytes(ImagejRoi.frompoints(np.array(square(30, 20, 8))).tobytes())
    ((labels, attributes, _),) = annotations.read_annotation(path)
    assert labels.shape == (28, 38)
    # The published convention: vertices less 1.
    assert labels[23, 33] == labels.max() == (1 if kind == "roi" else 2)
    assert labels[18, 28] == 0
    if kind == "xml":
        assert attributes["scale"] == (0.25, 0.25)
        assert attributes["units"] == ("um", "um")
    else:
        assert "scale" not in attributes


@pytest.mark.parametrize("folder", [".", "Tissue Images"])
def test_the_image_beside_gives_the_size(tmp_path, folder):
    own = tmp_path / "Annotations"
    (own.parent / folder if folder != "." else own).mkdir(parents=True)
    own.mkdir(exist_ok=True)
    path = own / "a.xml"
    path.write_text(aperio(square(5, 3, 10), mpp=0.25))
    image = (own if folder == "." else tmp_path / folder) / "a.tif"
    tifffile.imwrite(image, noise(0, 50, 60))
    ((labels, attributes, _),) = annotations.read_annotation(path)
    assert labels.shape == (50, 60)
    assert attributes["metadata"]["nucprune"]["image"] == str(image)
    assert attributes["metadata"]["nucprune"]["mpp"] == 0.25
    # napari opens such a TIFF with one pixel as unit: the labels lie on it.
    assert "scale" not in attributes


def test_a_roi_set_takes_the_only_image_beside_it(tmp_path):
    roi_set(tmp_path / "RoiSet.zip", (5, 3, 10))
    tifffile.imwrite(tmp_path / "slide7.tif", noise(0, 50, 60))
    assert annotations.read_annotation(tmp_path / "RoiSet.zip")[0][0].shape == (50, 60)
    tifffile.imwrite(tmp_path / "slide8.tif", noise(0, 40, 40))
    assert annotations.read_annotation(tmp_path / "RoiSet.zip")[0][0].shape == (13, 15)


@pytest.mark.parametrize("named", ["by name", "only one", "neither"])
def test_the_layer_in_the_viewer_gives_size_and_transform(tmp_path, viewer, named):
    path = tmp_path / ("a.xml" if named != "only one" else "RoiSet.zip")
    if named == "only one":
        roi_set(path, (5, 3, 10))
    else:
        path.write_text(aperio(square(5, 3, 10)))
    image = viewer.add_image(
        noise(0, 50, 60), name="a" if named == "by name" else "b", rgb=True,
        scale=(0.5, 0.4), units=("um", "um"), translate=(30, -7), rotate=25, shear=[0.1],
        affine=[[1, 0.2, 3], [0, 1, 4], [0, 0, 1]],
    )  # fmt: skip
    layer = drop(viewer, path)
    if named == "neither":
        assert layer.data.shape == (13, 15)
        return
    assert layer.data.shape == (50, 60)
    assert layer.units == image.units
    for point in [(0, 0), (0, 59), (49, 0), (20.5, 31.25)]:
        np.testing.assert_allclose(layer.data_to_world(point), image.data_to_world(point))


def test_a_stack_gives_its_planes_size(tmp_path, viewer):
    (tmp_path / "a.xml").write_text(aperio(square(5, 3, 10)))
    image = viewer.add_image(
        np.zeros((4, 50, 60, 3), np.uint8), rgb=True, name="a", scale=(7, 0.5, 0.4),
        translate=(1, 2, 3),
    )  # fmt: skip
    layer = drop(viewer, tmp_path / "a.xml")
    assert layer.data.shape == (50, 60)
    np.testing.assert_allclose(layer.data_to_world((8, 9)), image.data_to_world((0, 8, 9))[-2:])


def test_far_outlines_of_a_slide_are_refused_by_a_sentence(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(aperio(square(90_000, 70_000, 10)))
    with pytest.raises(InputError) as caught:
        annotations.read_annotation(path)
    assert is_one_line(caught.value)
    assert "megapixels" in str(caught.value)
    # A slide whose outlines lie near its corner gives that part.
    path.write_text(aperio(square(900, 700, 10)))
    assert annotations.read_annotation(path, (90_000, 80_000))[0][0].shape == (710, 910)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xml", b"<svg/>"),
        ("a.xml", b""),
        ("a.xml", b"no xml"),
        ("a.zip", b"PK\x03\x04 cut off"),
        ("a.zip", b""),
        ("a.roi", b"ROIs"),
        ("a.png", b"<Annotations/>"),
    ],
)
def test_what_is_not_ours_is_left_to_others(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert annotated.get_reader(str(tmp_path / name)) is None
    assert annotated.get_reader([str(tmp_path / name)]) is None


def test_a_zip_without_rois_is_left_to_others(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    assert annotated.get_reader(str(tmp_path / "a.zip")) is None
    assert annotated.get_reader(str(tmp_path / "missing.xml")) is None


@pytest.mark.parametrize("kind", ["cut off", "no regions", "roi of zeros", "lines"])
def test_damaged_annotations_are_one_sentence(tmp_path, kind):
    path = tmp_path / "a.xml"
    path.write_text(aperio(square(5, 3, 10))[: 40 if kind == "cut off" else None])
    if kind == "no regions":
        path.write_text(aperio())
    elif kind in ("roi of zeros", "lines"):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            line = ImagejRoi.frompoints(np.array([(1, 1), (9, 9)])).tobytes()
            archive.writestr("a.roi", bytes(64) if kind == "roi of zeros" else line)
    reader = annotated.get_reader(str(path))
    with pytest.raises(InputError) as caught:
        reader(str(path))
    assert is_one_line(caught.value)
    assert path.name in str(caught.value)


def test_a_monuseg_xml_gives_the_published_map(shared_data, viewer):
    folder = shared_data / MONUSEG
    xmls = sorted((folder / "Annotations").glob("*.xml"))
    if not xmls:
        pytest.skip("no XML in ../shared/data/MoNuSeg")
    path = xmls[0]
    layer = drop(viewer, path)
    published = next((folder / "labels").glob(f"{path.stem}.*"))
    if published.suffix == ".png":
        from PIL import Image

        truth = np.asarray(Image.open(published))
    else:
        truth = tifffile.imread(published)
    assert layer.data.shape == truth.shape == (1000, 1000)
    both = np.count_nonzero((layer.data > 0) & (truth > 0))
    assert both / np.count_nonzero((layer.data > 0) | (truth > 0)) > 0.97
    assert abs(len(np.unique(layer.data)) - len(np.unique(truth))) <= 3


def test_a_cryonuseg_roi_set(shared_data):
    path = shared_data / "CryoNuSeg_early" / "TCGA-S4-A8RO" / "RoiSet.zip"
    if not path.is_file():
        pytest.skip("no CryoNuSeg in ../shared/data")
    ((labels, _, _),) = annotations.read_annotation(path)
    assert labels.shape == (512, 512)
    assert labels.max() > 20


def test_annotations_of_a_slide_have_its_scale(shared_data):
    path = shared_data / "MoNuSAC_samples" / "A9K0_1.xml"
    if not path.is_file():
        pytest.skip("no MoNuSAC in ../shared/data")
    from napari_nucprune.slides.reader import Slide

    slide = Slide.open(path.with_suffix(".svs"))
    ((labels, attributes, _),) = annotations.read_annotation(path)
    assert labels.shape == slide.shapes[0]
    assert attributes["scale"] == slide.mpp
    assert labels.max() > 3


@pytest.mark.parametrize("kind", ["xml", "zip"])
def test_an_outline_of_the_whole_tissue_is_no_nucleus(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "xml":
        path.write_text(aperio(square(0, 0, 9000), square(30, 20, 8)))
    else:
        roi_set(path, (0, 0, 9000), (30, 20, 8))
    ((labels, _, _),) = annotations.read_annotation(path)
    assert labels.shape == (28, 38)
    assert np.count_nonzero(labels) in (64, 81)
