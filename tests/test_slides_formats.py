"""OME-TIFF by tifffile, the offset of what was scanned, and the bounds of what is kept."""

import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import is_one_line, noise, smooth
from napari_nucprune.errors import InputError
from napari_nucprune.slides import slide as slides
from napari_nucprune.slides.identity import input_sha256
from napari_nucprune.slides.lazy import LazyLevel
from napari_nucprune.slides.reader import get_reader, is_slide, open_slide, read_slide
from napari_nucprune.slides.slide import BAD_TILE, Slide
from napari_nucprune.slides.source import open_source
from napari_nucprune.slides.tiff import TiffSlide, TileCache
from oracle import CASES, HALF, gaps, make, segmented, table_of

MPP = (0.5, 0.25)


def write(path, levels, planar=False, compression="deflate", metadata=True, **options):
    """An OME-TIFF whose smaller levels are SubIFDs."""
    about = {
        "axes": "CYX" if planar else "YXS",
        "PhysicalSizeX": MPP[1],
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": MPP[0] * 1000,
        "PhysicalSizeYUnit": "nm",
    }
    options = {"tile": (128, 256), "compression": compression, **options}
    if not planar:
        options["photometric"] = "rgb"
    with tifffile.TiffWriter(path, ome=metadata, bigtiff=True) as tif:
        for i, level in enumerate(levels):
            tif.write(
                np.moveaxis(level, -1, 0) if planar else level,
                subifds=0 if i else len(levels) - 1,
                subfiletype=int(i > 0),
                metadata=about if metadata and not i else None,
                **options,
            )


@pytest.fixture(scope="module")
def levels():
    """Unrelated content, so that no level can stand for another."""
    return [noise(0, 1003, 1401), noise(1, 502, 701), noise(2, 251, 351)]


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


def refused(path):
    with pytest.raises(InputError, match=path.name) as caught:
        open_slide(path)
    assert is_one_line(caught.value)
    return str(caught.value)


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


def write_dicom(path, rgb, mpp, series, number):
    """A level of a slide in DICOM: JPEG tiles, row by row."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    side, (height, width) = 256, rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % side), (0, -width % side), (0, 0)), constant_values=255)
    frames = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            file = io.BytesIO()
            tile = Image.fromarray(padded[y : y + side, x : x + side])
            tile.save(file, "JPEG", quality=95, subsampling=0)
            frames.append(file.getvalue())
    head = FileMetaDataset()
    head.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    head.MediaStorageSOPInstanceUID = generate_uid()
    head.TransferSyntaxUID = JPEGBaseline8Bit
    measures, shared, optics, data = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [um / 1000 for um in mpp]
    shared.PixelMeasuresSequence = [measures]
    optics.OpticalPathIdentifier, optics.ObjectiveLensPower = "1", 20
    data.file_meta = head
    about = {
        "SOPClassUID": head.MediaStorageSOPClassUID,
        "SOPInstanceUID": head.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": series, "StudyInstanceUID": series, "FrameOfReferenceUID": series,
        "Modality": "SM", "InstanceNumber": number,
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if number == 1
        else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"],
        "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0, "Rows": side, "Columns": side, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": len(frames),
        "TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height,
        "TotalPixelMatrixFocalPlanes": 1, "DimensionOrganizationType": "TILED_FULL",
        "NumberOfOpticalPaths": 1, "SharedFunctionalGroupsSequence": [shared],
        "OpticalPathSequence": [optics],
    }  # fmt: skip
    for name, value in about.items():
        setattr(data, name, value)
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


def test_dicom(tmp_path):
    """A file a level; any of them opens the slide."""
    pytest.importorskip("pydicom")
    from pydicom.uid import generate_uid

    # Low frequencies, which JPEG keeps.
    full, series = smooth(5, 700, 1000), generate_uid()
    half = full.reshape(350, 2, 500, 2, 3).mean((1, 3)).astype(np.uint8)
    write_dicom(tmp_path / "a.dcm", full, (0.5, 0.25), series, 1)
    write_dicom(tmp_path / "b.dcm", half, (1.0, 0.5), series, 2)
    for name in ("a.dcm", "b.dcm"):
        assert get_reader(str(tmp_path / name)) is read_slide
        slide = open_slide(tmp_path / name)
        assert slide.vendor == "dicom"
        assert slide.shapes == ((700, 1000), (350, 500))
        assert slide.mpp == pytest.approx((0.5, 0.25))
        assert slide.objective == 20
        for level, wanted in enumerate((full, half)):
            got = slide.read(level, 37, 41, 300, 400).astype(int)
            assert np.abs(got - wanted[37:337, 41:441]).max() < 12
    ((data, attributes, _),) = read_slide(str(tmp_path / "a.dcm"))
    assert [level.shape for level in data] == [(700, 1000, 3), (350, 500, 3)]
    assert attributes["scale"] == pytest.approx((0.5, 0.25))
    before = input_sha256(tmp_path / "a.dcm")
    write_dicom(tmp_path / "b.dcm", 255 - half, (1.0, 0.5), series, 2)
    assert input_sha256(tmp_path / "a.dcm") != before


def test_a_dropped_dicom_file_is_ours_only_where_it_is_a_slide(tmp_path):
    path = tmp_path / "heart.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(900))
    assert get_reader(str(path)) is None
    refused(path)


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


def test_the_hash_is_of_all_files_of_a_slide(tmp_path):
    def dicom(name, series, pixels):
        uid = b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + uid + pixels)

    dicom("level0.dcm", b"1.2.3", b"a")
    dicom("level1.dcm", b"1.2.3", b"b")
    dicom("other.dcm", b"1.2.4", b"c")
    before = input_sha256(tmp_path / "level0.dcm")
    dicom("other.dcm", b"1.2.4", b"changed")
    assert input_sha256(tmp_path / "level0.dcm") == before
    dicom("level1.dcm", b"1.2.3", b"changed")
    assert input_sha256(tmp_path / "level0.dcm") != before

    for name in ("s.vms", "s(0,0).jpg", "t.jpg"):
        (tmp_path / name).write_bytes(b"1")
    before = input_sha256(tmp_path / "s.vms")
    (tmp_path / "t.jpg").write_bytes(b"2")
    assert input_sha256(tmp_path / "s.vms") == before
    (tmp_path / "s(0,0).jpg").write_bytes(b"2")
    assert input_sha256(tmp_path / "s.vms") != before


# ---------------------------------------------------------------- what was scanned


@pytest.fixture
def scanned(monkeypatch):
    """OpenSlide on any slide as on an .mrxs: part of the glass was scanned, the rest is nothing."""
    box = (96, 64, 500, 700)  # y, x, height, width
    names = [f"openslide.bounds-{name}" for name in ("y", "x", "height", "width")]
    real = openslide.OpenSlide

    class Mirax(real):
        @property
        def properties(self):
            own = dict(super().properties) | dict(zip(names, map(str, box), strict=True))
            return own | {"openslide.background-color": "F0E8DC"}

        def read_region(self, location, level, size):
            rgba = np.array(super().read_region(location, level, size))
            scale = self.level_downsamples[level]
            y, x = (
                location[i] + np.arange(size[i]) * scale for i in (1, 0)
            )  # level-0 pixel of each
            inside = (y >= box[0])[:, None] & (x >= box[1])[None]
            rgba[~inside] = 0
            return rgba

    monkeypatch.setattr(openslide, "OpenSlide", Mirax)
    return box


def test_what_was_not_scanned_is_background(scanned, tmp_path):
    path, *_ = make(tmp_path / "a.svs", *CASES["20x"])
    slide = open_slide(path)
    assert slide.bounds == scanned
    assert slide.read(0, 10, 10, 2, 2).tolist() == [[[0xF0, 0xE8, 0xDC]] * 2] * 2
    ((data, attributes, _),) = read_slide(str(path))
    assert attributes["metadata"]["nucprune"]["bounds"] == scanned
    # The pixels stay where the file has them.
    assert data[0].shape[:2] == slide.shapes[0]
    assert "translate" not in attributes


def test_the_outlines_of_a_whole_slide_count_from_where_it_was_scanned(scanned, tmp_path):
    case = make(tmp_path / "a.svs", *CASES["20x"])
    centres, mpp = case[2], np.array(case[3])
    run = segmented(case, tmp_path / "out")
    wanted = centres[(centres > np.array(scanned[:2]) + 14).all(1)]
    assert run["input"]["corner"] == list(scanned[:2])
    assert len(wanted) <= run["nuclei"] < len(centres)
    # As OpenSlide counts, and so our layer and the labels: over the whole glass.
    assert gaps(table_of(tmp_path / "out"), wanted).max() < HALF
    # As QuPath counts: from the corner.
    shapes = json.loads((tmp_path / "out/nuclei.geojson").read_text())["features"]
    rings = [np.array(shape["geometry"]["coordinates"][0])[:-1, ::-1] for shape in shapes]
    middles = np.array([(ring.min(0) + ring.max(0)) / 2 for ring in rings]) - 0.5
    assert gaps(middles, wanted - scanned[:2]).max() < 1  # of boxes: coarser than centroids
    group = zarr.open_group(str(tmp_path / "out/instances.zarr"), mode="r")
    steps = group.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    labels = group["0"][:]
    found = np.array([np.argwhere(labels == i).mean(0) for i in range(1, run["nuclei"] + 1)])
    world = found * steps[0]["scale"] + np.array(steps[1]["translation"])
    assert (gaps(world, wanted * mpp) < HALF * mpp).all()


# ---------------------------------------------------------------- what is kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60)), max_size=60))
def test_kept_tiles_never_exceed_the_limit_and_are_the_last_used(uses):
    kept, sizes, order = TileCache(100), {}, []
    for key, size in uses:
        found = kept.get(key)
        # By hand: the last used that fit into 100 bytes together.
        if key in order:
            assert found is not None
            assert found.nbytes == sizes[key]
            order.remove(key)
        else:
            assert found is None
            sizes[key] = size
            kept.put(key, np.zeros(size, np.uint8))
        order.append(key)
        while sum(sizes[k] for k in order) > 100:
            order.pop(0)
        assert kept.bytes == sum(sizes[k] for k in order) <= 100
    kept.put("large", np.zeros(101, np.uint8))
    assert kept.get("large") is None


def test_tiles_are_decoded_once_and_kept_within_bounds(levels, tmp_path, monkeypatch):
    write(tmp_path / "a.tif", levels)
    slide = open_slide(tmp_path / "a.tif")
    decoded = []
    own = slide._decoded
    monkeypatch.setattr(slide, "_decoded", lambda *at: decoded.append(at) or own(*at))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: slide.read(1, 0, 0, 128, 256), range(20)))
    # Threads that begin together may each decode it.
    assert len(decoded) <= 4
    slide.read(1, 5, 9, 30, 40)
    assert len(decoded) <= 4


def test_all_slides_share_one_cache_of_openslide(tmp_path, monkeypatch):
    """Of a known size; a handle opened anew after a damaged tile, too."""
    path = make(tmp_path / "a.svs", *CASES["20x"])[0]
    seen = []
    own = openslide.OpenSlide.set_cache
    monkeypatch.setattr(
        openslide.OpenSlide, "set_cache", lambda self, kept: seen.append(kept) or own(self, kept)
    )
    first, second = Slide(path), Slide(path)

    class Broken:
        def read_region(self, *_):
            raise openslide.OpenSlideError("Decoder failed")

    first._handle = Broken()
    np.testing.assert_array_equal(first.read(0, 0, 0, 50, 50), second.read(0, 0, 0, 50, 50))
    assert len(seen) == 3
    assert len({id(kept) for kept in seen}) == 1
    assert isinstance(seen[0], openslide.OpenSlideCache)
    assert seen[0]._capacity == slides.CACHE_BYTES


def test_reading_all_of_a_slide_tells_how_far_it_is_and_can_be_stopped(tmp_path, monkeypatch):
    import hashlib

    from napari_nucprune.errors import Cancelled
    from napari_nucprune.slides import identity

    path = tmp_path / "a.svs"
    path.write_bytes(bytes(range(256)) * 20_000)
    monkeypatch.setattr(identity, "_BLOCK", 1 << 19)
    monkeypatch.setattr(identity, "_SAID", 1 << 20)
    told = []
    found = input_sha256(path, lambda text, done, total: told.append((done, total)))
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == [(i, 4) for i in range(1, 5)]
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        input_sha256(path, should_stop=lambda: next(asked))
