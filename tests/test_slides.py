"""The slide reader against OpenSlide itself, tifffile, and files that are broken."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from napari_nucprune.errors import InputError
from napari_nucprune.slides import reader
from napari_nucprune.slides import slide as slides
from napari_nucprune.slides.lazy import LazyLevel
from napari_nucprune.slides.reader import get_reader, read_slide
from napari_nucprune.slides.slide import BAD_TILE, Slide

DATA = Path(__file__).parents[2] / "shared" / "data"
CMU = DATA / "WSI" / "CMU-1-Small-Region.svs"
MONUSAC = sorted((DATA / "MoNuSAC_samples").glob("*.svs"))
needs_cmu = pytest.mark.skipif(not CMU.exists(), reason=f"{CMU} is not here")


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth in places and with noise of every pixel, so that any shift shows."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 80, height)[:, None, None]
    return (ramp + rng.integers(0, 55, (height, width, 3))).astype(np.uint8)


def write_pyramid(
    path: Path, levels: list[np.ndarray], unit: str = "CENTIMETER", per: float = 4e4
) -> None:
    with tifffile.TiffWriter(path) as tif:
        for i, level in enumerate(levels):
            tif.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                subfiletype=int(i > 0),
                compression="deflate",
                resolution=(per, per),
                resolutionunit=unit,
                metadata=None,
            )


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """Three levels of unrelated content; the last two at downsamples that are no integers."""
    levels = [texture(1501, 2003), texture(750, 1001, 1), texture(94, 125, 2)]
    path = tmp_path_factory.mktemp("slide") / "pyramid.tif"
    write_pyramid(path, levels)
    return path, levels


def crop(level: np.ndarray, y: int, x: int, h: int, w: int) -> np.ndarray:
    """The same region on white, by other means."""
    padded = np.pad(level, ((200, 200), (200, 200), (0, 0)), constant_values=255)
    return padded[200 + y : 200 + y + h, 200 + x : 200 + x + w]


def test_pyramid_properties(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    slide = Slide.open(pyramid[0])
    assert slide.vendor == "generic-tiff"
    assert slide.level_count == 3
    assert slide.shapes == ((1501, 2003), (750, 1001), (94, 125))
    assert slide.downsamples[0] == 1
    assert slide.downsamples[1] == pytest.approx(2, rel=2e-3)
    assert slide.mpp == pytest.approx((0.25, 0.25))
    assert slide.background == (255, 255, 255)


@pytest.mark.parametrize(
    "region",
    [(0, 0, 64, 64), (13, 57, 100, 33), (-20, -30, 90, 80), (1450, 1950, 200, 200), (5, 9, 1, 1)],
)
def test_level_0_is_exact_at_any_place(
    pyramid: tuple[Path, list[np.ndarray]], region: tuple[int, int, int, int]
) -> None:
    path, levels = pyramid
    np.testing.assert_array_equal(Slide.open(path).read(0, *region), crop(levels[0], *region))


def test_regions_far_outside_are_background(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    slide = Slide.open(pyramid[0])
    for y, x in ((-500, 0), (0, -500), (9000, 0), (0, 9000), (2500, 300), (700, 2100)):
        assert (slide.read(0, y, x, 40, 50) == 255).all()
    assert slide.read(0, 5, 5, 0, 10).shape == (0, 10, 3)
    with pytest.raises(IndexError):
        slide.read(3, 0, 0, 1, 1)


@pytest.mark.parametrize("level", [1, 2])
def test_whole_upper_levels(pyramid: tuple[Path, list[np.ndarray]], level: int) -> None:
    path, levels = pyramid
    slide = Slide.open(path)
    whole = slide.read(level, 0, 0, *slide.shapes[level]).astype(int)
    # The grid's origin is exact; later squares start up to half a level 0 pixel off.
    np.testing.assert_array_equal(whole[:90, :90], levels[level][:90, :90])
    assert np.abs(whole - levels[level]).mean() < 8


def test_a_pixel_is_the_same_in_any_region(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    slide = Slide.open(pyramid[0])
    whole = slide.read(1, 0, 0, 750, 1001)
    for y, x, h, w in ((0, 0, 50, 50), (500, 500, 60, 70), (511, 3, 9, 900), (677, 940, 73, 61)):
        np.testing.assert_array_equal(slide.read(1, y, x, h, w), whole[y : y + h, x : x + w])


def test_large_regions_are_read_in_blocks(
    pyramid: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, levels = pyramid
    monkeypatch.setattr(slides, "BLOCK", 200)
    got = Slide.open(path).read(0, -7, 11, 900, 1000)
    np.testing.assert_array_equal(got, crop(levels[0], -7, 11, 900, 1000))


def test_many_threads_and_pickling(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    path, levels = pyramid
    slide = pickle.loads(pickle.dumps(Slide.open(path)))
    places = [(37 * i % 1400, 91 * i % 1900) for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(lambda p: slide.read(0, *p, 90, 90), places))
    for (y, x), tile in zip(places, tiles, strict=True):
        np.testing.assert_array_equal(tile, crop(levels[0], y, x, 90, 90))


@pytest.mark.parametrize(
    "key",
    [
        (slice(10, 60), slice(20, 90)),
        (slice(10, 60), slice(20, 90), slice(None)),
        (slice(None, None, 64), slice(None, None, 31)),
        (slice(1400, 100, -7), slice(90, 20, -3)),
        (slice(5, 6, -1), slice(None)),
        (slice(9, 8, -1), slice(9, 8, -1), slice(None, None, -1)),
        (7, slice(0, 9)),
        (7, 8),
        (7, 8, 2),
        (-1, -1, -1),
        (Ellipsis, 1),
        (slice(3, 9), Ellipsis),
        (Ellipsis, slice(3, 9), 0),
        (slice(3, 9), Ellipsis, slice(3, 9), slice(0, 2)),
        12,
        slice(0, 2),
        (slice(4, 4), slice(0, 9)),
        (slice(1490, 9999), slice(1999, 9999)),
        (np.int64(3), slice(np.int64(1), np.int64(4))),
    ],
)
def test_lazy_level_indexes_like_numpy(pyramid: tuple[Path, list[np.ndarray]], key: object) -> None:
    path, levels = pyramid
    lazy = LazyLevel(Slide.open(path), 0)
    assert lazy.shape == levels[0].shape
    assert lazy.ndim == 3
    assert lazy.dtype == np.uint8
    np.testing.assert_array_equal(lazy[key], levels[0][key])


def test_lazy_level_whole(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    path, levels = pyramid
    lazy = LazyLevel(Slide.open(path), 0)
    np.testing.assert_array_equal(np.asarray(lazy), levels[0])
    assert np.asarray(lazy, dtype=float).dtype == float
    assert len(lazy) == 1501
    with pytest.raises(IndexError):
        lazy[1501]


def test_transparent_places_take_the_background(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    class Glass:
        def read_region(self, where: object, level: int, size: tuple[int, int]) -> Image.Image:
            image = Image.new("RGBA", size, (100, 50, 0, 128))
            image.putpixel((0, 0), (9, 9, 9, 0))
            image.putpixel((1, 0), (9, 8, 7, 255))
            return image

    slide = Slide.open(pyramid[0])
    slide._handle = Glass()
    slide.background = (10, 20, 200)
    got = slide.read(0, 0, 0, 2, 3)
    assert got[0, 0].tolist() == [10, 20, 200]
    assert got[0, 1].tolist() == [9, 8, 7]
    assert got[1, 1].tolist() == [55, 35, 100]


@pytest.mark.parametrize(
    ("text", "rgb"),
    [("000AFF", (0, 10, 255)), ("", (255, 255, 255)), ("nonsense", (255, 255, 255))],
)
def test_background_colour(text: str, rgb: tuple[int, int, int]) -> None:
    assert slides._colour(text) == rgb


@pytest.mark.parametrize(("unit", "per"), [("INCH", 72), ("NONE", 1)])
def test_a_printing_resolution_is_no_pixel_size(tmp_path: Path, unit: str, per: float) -> None:
    write_pyramid(tmp_path / "a.tif", [texture(300, 300)], unit, per)
    assert Slide.open(tmp_path / "a.tif").mpp is None


# ---------------------------------------------------------------- broken files


def damaged(path: Path, levels: list[np.ndarray]) -> tuple[int, int]:
    """Write a slide whose one tile is rubbish; return the tile's (row, column)."""
    write_pyramid(path, levels)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        across = -(-page.shape[1] // 128)
        offset, count = page.dataoffsets[2 * across + 3], page.databytecounts[2 * across + 3]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    return 2, 3


def test_a_damaged_tile_is_one_sentence_and_leaves_the_rest(tmp_path: Path) -> None:
    level = texture(1400, 1400)
    row, col = damaged(tmp_path / "bad.tif", [level])
    slide = Slide.open(tmp_path / "bad.tif")
    for _ in range(2):
        with pytest.raises(InputError, match=r"bad\.tif is damaged at level 0"):
            slide.read(0, row * 128 + 3, col * 128 + 3, 20, 20)
        # OpenSlide's own object refuses everything after a failure; ours does not.
        np.testing.assert_array_equal(slide.read(0, 900, 900, 50, 50), level[900:950, 900:950])


def test_a_lazy_level_never_raises_on_damage(tmp_path: Path) -> None:
    level = texture(1400, 1400)
    damaged(tmp_path / "bad.tif", [level])
    lazy = LazyLevel(Slide.open(tmp_path / "bad.tif"), 0)
    for _ in range(2):
        got = np.asarray(lazy)
        assert lazy.bad == {(0, 0)}
        assert (got[:BAD_TILE, :BAD_TILE] == 255).all()
        np.testing.assert_array_equal(got[BAD_TILE:], level[BAD_TILE:])
        np.testing.assert_array_equal(got[:, BAD_TILE:], level[:, BAD_TILE:])


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 500


@pytest.mark.parametrize("keep", [0, 4, 200, 3000, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["aperio", "pyramid"])
def test_cut_off_files(
    tmp_path: Path, pyramid: tuple[Path, list[np.ndarray]], kind: str, keep: float
) -> None:
    if kind == "aperio" and not CMU.exists():
        pytest.skip(f"{CMU} is not here")
    whole = (CMU if kind == "aperio" else pyramid[0]).read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(InputError, match=r"cut\.svs") as error:
        Slide.open(path)
    one_sentence(error)


def test_files_that_are_no_slides(tmp_path: Path) -> None:
    Image.fromarray(texture(64, 64)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.svs")
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "folder.svs").mkdir()
    for name in ("photo.svs", "text.svs", "folder.svs", "absent.svs"):
        with pytest.raises(InputError, match=name) as error:
            read_slide(str(tmp_path / name))
        one_sentence(error)


# ---------------------------------------------------------------- real slides


@needs_cmu
def test_cmu_against_tifffile_and_openslide() -> None:
    slide = Slide.open(CMU)
    assert slide.shapes == ((2967, 2220),)
    assert slide.mpp == (0.499, 0.499)
    assert slide.objective == 20
    assert slide.vendor == "aperio"
    assert slide.properties["aperio.MPP"] == "0.4990"
    # Label, macro and thumbnail are in the file, and no part of the layer.
    assert set(openslide.OpenSlide(CMU).associated_images) == {"label", "macro", "thumbnail"}
    (layer,) = read_slide(str(CMU))
    assert layer[0].shape == (2967, 2220, 3)
    assert layer[1]["metadata"]["slide"] == slide.properties
    y, x, h, w = 700, 481, 500, 600
    got = slide.read(0, y, x, h, w)
    direct = openslide.OpenSlide(CMU).read_region((x, y), 0, (w, h)).convert("RGB")
    np.testing.assert_array_equal(got, np.asarray(direct))
    other = tifffile.imread(CMU, key=0)[y : y + h, x : x + w].astype(int)
    # Two JPEG decoders: a pixel may differ by rounding, a shift would differ by far more.
    assert np.abs(got - other).mean() < 1
    assert np.abs(got[1:] - other[:-1]).mean() > 3


@pytest.mark.skipif(not MONUSAC, reason=f"{DATA / 'MoNuSAC_samples'} is not here")
@pytest.mark.parametrize("path", MONUSAC, ids=lambda p: p.stem)
def test_monusac_against_tifffile(path: Path) -> None:
    slide = Slide.open(path)
    assert slide.mpp == pytest.approx((0.19448, 0.19448))
    assert slide.objective == 40
    other = tifffile.imread(path, key=0)
    assert slide.shapes == (other.shape[:2],)
    got = np.asarray(LazyLevel(slide, 0)).astype(int)
    assert np.abs(got - other).mean() < 1


def test_monuseg_tiff_is_read_by_tifffile() -> None:
    """They are LZW: napari's builtin reader needs imagecodecs, one of our dependencies."""
    found = sorted(DATA.glob("MoNuSeg/*/Tissue Images/*.tif"))
    if not found:
        pytest.skip(f"{DATA / 'MoNuSeg'} is not here")
    with tifffile.TiffFile(found[0]) as tif:
        assert tif.pages[0].compression.name == "LZW"
    image = tifffile.imread(found[0])
    assert image.shape[:2] == (1000, 1000)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., :3], np.asarray(Image.open(found[0]))[..., :3])


# ---------------------------------------------------------------- napari's contract


def test_get_reader() -> None:
    for suffix in set(reader.SUFFIXES) - {".dcm"}:
        assert get_reader(f"a{suffix}") is read_slide
        assert get_reader([f"A{suffix.upper()}"]) is read_slide
        assert get_reader(Path(f"a.b{suffix}")) is read_slide
    for other in ("a.tif", "a.png", "svs", "a.svs.txt", ["a.svs", "b.svs"], []):
        assert get_reader(other) is None


def test_layers_of_a_pyramid(tmp_path: Path, pyramid: tuple[Path, list[np.ndarray]]) -> None:
    path = tmp_path / "many.svs"
    path.write_bytes(pyramid[0].read_bytes())
    ((levels, attributes, kind),) = read_slide([str(path)])
    assert kind == "image"
    assert [level.shape for level in levels] == [a.shape for a in pyramid[1]]
    assert attributes["multiscale"] is True
    assert attributes["rgb"] is True
    assert attributes["name"] == "many"
    assert attributes["scale"] == pytest.approx((0.25, 0.25))
    assert attributes["units"] == ("um", "um")
    about = attributes["metadata"]["nucprune"]
    assert about["path"] == str(path)
    assert about["mpp"] == pytest.approx((0.25, 0.25))
    with pytest.raises(InputError, match="one at a time"):
        read_slide([str(path), str(path)])


def test_layer_without_a_pixel_size_has_no_unit(tmp_path: Path) -> None:
    image = texture(300, 400)
    write_pyramid(tmp_path / "a.svs", [image], "INCH", 72)
    ((data, attributes, _),) = read_slide(str(tmp_path / "a.svs"))
    assert attributes["multiscale"] is False
    assert attributes["scale"] == (1, 1)
    assert "units" not in attributes
    assert attributes["metadata"]["nucprune"]["mpp"] is None
    np.testing.assert_array_equal(data[10:20, 30:50], image[10:20, 30:50])


def test_manifest_claims_what_the_reader_takes() -> None:
    npe2 = pytest.importorskip("npe2")
    path = Path(reader.__file__).parents[1] / "napari.yaml"
    manifest = npe2.PluginManifest.from_file(path)
    assert manifest.name == "napari-nucprune"
    patterns = manifest.contributions.readers[0].filename_patterns
    assert set(patterns) == {
        f"*{s}" for suffix in reader.SUFFIXES for s in (suffix, suffix.upper())
    }
    top = Path(__file__).parents[1] / "napari.yaml"
    assert not top.exists() or top.read_text() == path.read_text()


def test_nothing_here_needs_napari() -> None:
    code = (
        "import sys, napari_nucprune.slides.reader, napari_nucprune.samples\n"
        "bad = {'napari', 'qtpy', 'magicgui', 'superqt', 'torch', 'openslide', 'pooch'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
