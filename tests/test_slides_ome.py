"""OME-TIFF by tifffile: all levels, whatever is cut off, damaged or not written."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile

from helpers import is_one_line, noise
from napari_nucprune.errors import InputError
from napari_nucprune.slides.lazy import LazyLevel
from napari_nucprune.slides.reader import is_slide, open_slide, read_slide
from napari_nucprune.slides.slide import BAD_TILE
from napari_nucprune.slides.source import open_source
from napari_nucprune.slides.tiff import TiffSlide
from oracle import CASES, HALF, gaps, make, segmented, table_of
from slides_helpers import MPP, levels, refused, write

__all__ = ["levels"]


@pytest.fixture(params=["interleaved", "planar", "jpeg", "no OME-XML"])
def ome(request, levels, tmp_path):
    path = tmp_path / "slide.ome.tif"
    kind = request.param
    write(
        path,
        levels,
        planar=kind == "planar",
        compression="jpeg" if kind == "jpeg" else "deflate",
        metadata=kind != "no OME-XML",
    )
    return path, kind


def test_all_levels_of_an_ome_tiff(ome, levels):
    path, kind = ome
    assert openslide.OpenSlide(path).level_count == 1, "else OpenSlide could read it"
    assert is_slide(path)
    slide = pickle.loads(pickle.dumps(open_slide(path)))
    assert isinstance(slide, TiffSlide)
    assert slide.shapes == tuple(level.shape[:2] for level in levels)
    assert slide.mpp == (None if kind == "no OME-XML" else pytest.approx(MPP))
    for number, level in enumerate(levels):
        wanted = level
        if kind == "jpeg":
            wanted = tifffile.imread(path, level=number)
        padded = np.pad(wanted, ((60, 60), (60, 60), (0, 0)), constant_values=255)
        height, width = wanted.shape[:2]
        for y, x, h, w in (
            (0, 0, height, width), (-9, -20, 100, 120), (height - 50, width - 70, 90, 110),
            (61, 97, 40, 3), (height + 3, 0, 5, 5),
        ):  # fmt: skip
            crop = padded[60 + y : 60 + y + h, 60 + x : 60 + x + w]
            np.testing.assert_array_equal(slide.read(number, y, x, h, w), crop)
    with pytest.raises(IndexError):
        slide.read(3, 0, 0, 1, 1)


def test_an_ome_tiff_as_a_layer_and_a_source(ome, levels):
    path, kind = ome
    ((data, attributes, _),) = read_slide(str(path))
    assert [level.shape for level in data] == [level.shape for level in levels]
    if kind != "no OME-XML":
        assert attributes["scale"] == pytest.approx(MPP)
        source = open_source(path, slide=True)
        assert source.mpp == pytest.approx(MPP)
        assert source.downsamples == [(1, 1), (2, 2), (4, 4)]
    # Without being asked it stays a plain image.
    plain = open_source(path)
    assert isinstance(plain.levels[0], np.ndarray)
    assert plain.shape == levels[0].shape[:2]
    if kind == "no OME-XML":
        assert plain.mpp is None
    else:
        assert plain.mpp == pytest.approx(MPP)
        assert "PhysicalSizeX" in attributes["metadata"]["slide"]["tiff.ImageDescription"]
    if kind != "jpeg":
        np.testing.assert_array_equal(plain.levels[0], levels[0])


def test_many_threads_read_an_ome_tiff(levels, tmp_path):
    write(tmp_path / "a.tif", levels)
    slide = open_slide(tmp_path / "a.tif")
    places = [(37 * i % 900, 91 * i % 1300) for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(lambda p: slide.read(0, *p, 90, 90), places))
    for (y, x), tile in zip(places, tiles, strict=True):
        np.testing.assert_array_equal(tile[: 1003 - y, : 1401 - x], levels[0][y:, x:][:90, :90])


@pytest.mark.parametrize("keep", [0, 3, 300, 0.4, 0.999])
def test_ome_tiffs_that_are_cut_off(levels, tmp_path, keep):
    write(tmp_path / "whole.tif", levels)
    whole = (tmp_path / "whole.tif").read_bytes()
    path = tmp_path / "cut.ome.tif"
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    refused(path)


def test_ome_tiffs_that_are_no_slides(levels, tmp_path):
    for name, image, options in (
        ("depth.tif", levels[0].astype(np.uint16), {}),
        ("five.tif", np.dstack([levels[0], levels[0][..., :2]]), {"planar": True}),
    ):
        path = tmp_path / name
        write(path, [image, image[::2, ::2]], **options)
        assert "RGB of 8 bits" in refused(path)


def test_a_damaged_tile_of_an_ome_tiff_is_blank_and_counted(levels, tmp_path):
    path = tmp_path / "bad.ome.tif"
    write(path, levels)
    with tifffile.TiffFile(path) as tif:
        page = tif.series[0].levels[0].pages[0]
        offset, count = page.dataoffsets[9], page.databytecounts[9]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    slide = open_slide(path)
    with pytest.raises(InputError, match=r"bad\.ome\.tif is damaged at level 0") as caught:
        slide.read(0, 0, 0, 1003, 1401)
    assert is_one_line(caught.value)
    # Six tiles of 256 px a row: the tenth is in the second row, from column 768 on.
    lazy = LazyLevel(slide, 0)
    got = np.asarray(lazy)
    assert lazy.bad == {(0, 1)}
    wanted = levels[0].copy()
    wanted[:BAD_TILE, BAD_TILE : 2 * BAD_TILE] = 255
    np.testing.assert_array_equal(got, wanted)


def test_tiles_that_were_not_written_are_background(tmp_path):
    path = tmp_path / "holes.ome.tif"
    write(path, [noise(3, 256, 512), noise(4, 128, 256)], compression=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
        counts[1] = 0
        tag.overwrite(counts)
    got = open_slide(path).read(0, 0, 0, 256, 512)
    assert (got[:128, 256:] == 255).all()
    np.testing.assert_array_equal(got[:, :256], noise(3, 256, 512)[:, :256])


def test_a_whole_ome_tiff(tmp_path):
    """Its levels are used, and its nuclei lie where they were drawn."""
    name = "40x, network at 20x"
    path, shape, centres, *rest = make(tmp_path / "plain.svs", *CASES[name])
    with tifffile.TiffFile(path) as tif:
        pages = [page.asarray() for page in tif.pages]
    # Level 0 is glass: what is found was read from the level of the network's um/px.
    pages[0][:] = 255
    ome = tmp_path / "same.ome.tif"
    with tifffile.TiffWriter(ome, ome=True) as tif:
        size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        for i, page in enumerate(pages):
            tif.write(
                page, tile=(128, 128), photometric="rgb", subifds=0 if i else len(pages) - 1,
                subfiletype=int(i > 0), compression="deflate",
                metadata=None if i else {"axes": "YXS", **size},
            )  # fmt: skip
    run = segmented((ome, shape, centres, *rest), tmp_path / "out")
    assert run["nuclei"] == len(centres)
    assert gaps(table_of(tmp_path / "out"), centres).max() < HALF


def test_an_ome_tiff_by_name_in_the_viewer(levels, tmp_path):
    """napari itself would load level 0 whole, and asks our reader only for what it claims."""
    napari = pytest.importorskip("napari")
    from napari_nucprune.widgets.layers import open_slide
    from napari_nucprune.widgets.pixel_size import mpp_of

    path = tmp_path / "slide.ome.tif"
    write(path, levels)
    viewer = napari.components.ViewerModel()
    open_slide(viewer, str(path))
    (layer,) = viewer.layers
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [level.shape for level in levels]
    assert mpp_of(layer) == pytest.approx(MPP)
    assert layer.metadata["nucprune"]["path"] == str(path)
