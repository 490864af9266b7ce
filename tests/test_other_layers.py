"""Other people's layers: stacks, other types and libraries, and transforms by known points."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

napari = pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers.utils.stack_utils import merge_rgb, stack_to_images

from helpers import is_one_line, noise
from napari_nucprune.errors import InputError
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source, plane_source
from napari_nucprune.slides.values import to_uint8
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.pixel_size import mpp_of


def read(layer, point=()):
    """All pixels that the network would get, at the image's own pixel size."""
    source = layers.source_of(layer, point)
    return take(Source(source.levels, None, source.name), 0.25).field.rgb


def refused(layer, point=()):
    with pytest.raises(InputError) as caught:
        read(layer, point)
    assert is_one_line(caught.value)
    assert layer.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["uint16", "float32", "float64", "float16"])
def test_other_types_show_the_network_what_napari_shows(kind):
    rgb = noise(1, 70, 60)
    data = rgb.astype(np.uint16) * 257 if kind == "uint16" else (rgb / 255).astype(kind)
    np.testing.assert_array_equal(read(Image(data, rgb=True)), rgb)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 65535))
def test_sixteen_bits_are_rounded_to_the_nearest_of_eight(value):
    found = to_uint8(np.array([[[value, 65535, 0]]], np.uint16))
    assert abs(float(found[0, 0, 0]) - value * 255 / 65535) <= 0.5
    assert found[0, 0].tolist()[1:] == [255, 0]


@pytest.mark.parametrize("library", ["numpy", "dask", "zarr"])
@pytest.mark.parametrize("multiscale", [False, True])
def test_the_shown_plane_of_a_stack_is_read(library, multiscale):
    stack = np.stack([noise(seed, 64, 48) for seed in range(5)])
    levels = [stack, stack[:, ::2, ::2]] if multiscale else [stack]
    if library == "dask":
        da = pytest.importorskip("dask.array")
        levels = [da.from_array(level, chunks=(1, 32, 32, 3)) for level in levels]
    elif library == "zarr":
        zarr = pytest.importorskip("zarr")
        levels = [zarr.array(level, chunks=(1, 32, 32, 3)) for level in levels]
    layer = Image(
        levels if multiscale else levels[0], rgb=True, multiscale=multiscale,
        scale=(7.0, 0.5, 0.5), translate=(100, 0, 0),
    )  # fmt: skip
    viewer = ViewerModel()
    viewer.add_layer(layer)
    for plane in (0, 3, 4):
        viewer.dims.set_point(0, 100 + 7.0 * plane)
        np.testing.assert_array_equal(read(layer, viewer.dims.point), stack[plane])


def test_time_and_depth_together():
    stack = np.stack([noise(seed, 40, 40) for seed in range(6)]).reshape(2, 3, 40, 40, 3)
    layer = Image(stack, rgb=True)
    np.testing.assert_array_equal(read(layer, (1, 2, 0, 0)), stack[1, 2])
    # A viewer with further axes in front, of other layers.
    np.testing.assert_array_equal(read(layer, (9, 0, 1, 0, 0)), stack[0, 1])


def test_a_slider_beyond_the_stack_is_refused():
    layer = Image(np.zeros((3, 40, 40, 3), np.uint8), rgb=True, name="t")
    assert "3 planes" in refused(layer, (7, 0, 0))


def test_a_pyramid_that_is_smaller_along_the_stack():
    fine = np.zeros((4, 32, 32, 3), np.uint8)
    coarse = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 16, 16, 3), np.uint8)
    for plane, wanted in enumerate([0, 0, 1, 1]):
        source = plane_source([fine, coarse], (plane,), None, "x")
        assert (np.asarray(source.levels[1][:, :]) == wanted).all()


def test_a_stack_turned_out_of_its_planes_is_refused():
    layer = Image(np.zeros((3, 40, 40, 3), np.uint8), rgb=True, name="t")
    turned = np.eye(4)
    turned[0, 1] = 0.5
    layer.affine = turned
    assert "turned out of its planes" in refused(layer)


def test_channel_first_says_what_to_do_and_that_helps():
    rgb = noise(2, 40, 50)
    layer = Image(np.moveaxis(rgb, -1, 0), name="c")
    said = refused(layer)
    assert "Split Stack" in said
    assert "Merge to RGB" in said
    parts = stack_to_images(layer, 0)
    for part, colour in zip(parts, ["red", "green", "blue"], strict=True):
        assert colour in said
        part.colormap = colour
    merged = merge_rgb(parts)
    np.testing.assert_array_equal(read(merged), rgb)


@pytest.mark.parametrize(
    ("data", "rgb", "words"),
    [
        (np.zeros((40, 40), np.uint8), False, "no colour"),
        (np.zeros((9, 40, 40), np.uint16), False, "no colour"),
        (np.full((70, 70, 3), 4095, np.uint16), True, "16 bits"),
        (np.full((40, 40, 3), 255.0), True, "from 0 to 255"),
        (np.full((40, 40, 3), np.nan), True, "nan"),
        (np.zeros((40, 40, 3), np.int64), True, "int64"),
        (np.zeros((40, 40, 3), bool), True, "bool"),
    ],
)
def test_what_cannot_be_right_is_refused_by_a_sentence(data, rgb, words):
    assert words in refused(Image(data, rgb=rgb, name="odd"))


def random_transform(rng, ndim):
    """Every part of a layer's transform, mixing the last two axes only."""
    angle = rng.uniform(-180, 180)
    rotate = np.eye(ndim)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotate[-2:, -2:] = [[c, -s], [s, c]]
    shear = np.zeros(ndim * (ndim - 1) // 2)
    shear[-1] = rng.uniform(-0.5, 0.5)
    affine = np.eye(ndim + 1)
    affine[-3:-1, -3:-1] += rng.uniform(-0.3, 0.3, (2, 2))
    affine[:-1, -1] = rng.uniform(-50, 50, ndim)
    return {
        "scale": rng.uniform(0.1, 2, ndim),
        "translate": rng.uniform(-99, 99, ndim),
        "rotate": rotate,
        "shear": shear,
        "affine": affine,
    }


@pytest.mark.parametrize("ndim", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_results_lie_on_their_image_by_known_points(ndim, seed):
    rng = np.random.default_rng(seed)
    place = random_transform(rng, ndim)
    units = (*("s", "mm")[: ndim - 2], "um", "um")
    shape = (3,) * (ndim - 2) + (64, 80, 3)
    image = Image(np.zeros(shape, np.uint8), rgb=True, units=units, **place)
    own = mpp_of(image)
    taken = take(layers.source_of(image, image.data_to_world(np.ones(ndim))), 0.25, (9, 7, 60, 70))
    rows, columns = taken.inner
    data = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
    result = Image(data, **layers.placement(image, taken.transform))
    assert tuple(result.units) == tuple(image.units)[-2:]
    # The same points of the world, by the image's transform written out with numpy.
    linear = place["affine"][:-1, :-1] @ place["rotate"]
    upper = np.eye(ndim)
    upper[-2, -1] = place["shear"][-1]
    linear = linear @ upper @ np.diag(place["scale"])
    shift = place["affine"][:-1, :-1] @ place["translate"] + place["affine"][:-1, -1]
    np.testing.assert_allclose(own, np.linalg.norm(linear[-2:, -2:], axis=0))
    for point in [(0.0, 0.0), (17.0, 30.0), (40.5, 3.25)]:
        at_level0 = (taken.transform @ [*point, 1])[:2]
        world = linear[-2:, -2:] @ at_level0 + shift[-2:]
        np.testing.assert_allclose(result.data_to_world(point), world, atol=1e-9)
        full = np.concatenate([np.zeros(ndim - 2), at_level0])
        np.testing.assert_allclose(image.data_to_world(full)[-2:], world, atol=1e-9)


@pytest.mark.parametrize(
    ("units", "scale", "mpp"),
    [
        (("um", "um"), (0.25, 0.25), (0.25, 0.25)),
        (("nm", "nm"), (250, 500), (0.25, 0.5)),
        (("mm", "um"), (0.00025, -0.5), (0.25, 0.5)),
        (("cm", "cm"), (2.5e-5, 2.5e-5), (0.25, 0.25)),
        (("pixel", "pixel"), (0.25, 0.25), None),
        (("pixel", "um"), (0.25, 0.25), None),
    ],
)
def test_units(units, scale, mpp):
    layer = Image(np.zeros((40, 40, 3), np.uint8), rgb=True, units=units, scale=scale)
    found = mpp_of(layer)
    assert (found is None) == (mpp is None)
    if mpp:
        assert found == pytest.approx(mpp)


def test_an_affine_that_scales_counts_and_one_that_turns_does_not():
    turn = np.eye(3)
    turn[:2, :2] = [[0, -1], [1, 0]]
    layer = Image(
        np.zeros((40, 40, 3), np.uint8), rgb=True, units=("um", "um"), scale=(0.5, 0.25),
        affine=turn,
    )  # fmt: skip
    assert mpp_of(layer) == pytest.approx((0.5, 0.25))
    layer.affine = np.diag([3.0, 3.0, 1.0]) @ turn
    assert mpp_of(layer) == pytest.approx((1.5, 0.75))


def test_anisotropic_pixels_are_made_square():
    fine = np.zeros((120, 120, 3), np.uint8)
    fine[60:] = 255
    layer = Image(fine[::2], rgb=True, units=("um", "um"), scale=(0.5, 0.25))
    field = take(layers.source_of(layer), 0.25).field
    assert field.rgb.shape == (120, 120, 3)
    assert (field.rgb[:58] == 0).all()
    assert (field.rgb[62:] == 255).all()


def test_a_rectangle_on_a_stack_is_in_its_pixels():
    viewer = ViewerModel()
    image = viewer.add_image(
        np.zeros((3, 64, 80, 3), np.uint8), rgb=True, scale=(9, 0.5, 0.25), translate=(1, 2, 3)
    )
    region = layers.region_layer(viewer, image)
    region.add_rectangles(np.array([[10, 20], [10, 50], [40, 50], [40, 20]]))
    assert layers.rectangle_box(region, image) == pytest.approx((10, 20, 41, 51))


def like_napari_wsi(rgb, alpha=255, **options):
    """A layer as napari-wsi 1.3 makes it of a slide: levels of dask, RGBA from OpenSlide."""
    da = pytest.importorskip("dask.array")
    rgba = np.dstack([rgb, np.broadcast_to(np.uint8(alpha), rgb.shape[:2])])
    levels = [da.from_array(rgba[::n, ::n], chunks=(50, 60, 4)) for n in (1, 4)]
    said = {"path": "/slides/a.svs", "resolution": (0.5, 0.499), "color_space": "raw"}
    return Image(levels, **({"rgb": None, "name": "a", "metadata": said} | options))


def test_napari_wsi_layers_have_the_slides_pixel_size_and_white_where_nothing_was_scanned():
    rgb = noise(3, 200, 240)
    alpha = np.full(rgb.shape[:2], 255)
    alpha[:70] = 0
    layer = like_napari_wsi(np.where(alpha[..., None], rgb, 0).astype(np.uint8), alpha)
    assert mpp_of(layer) == (0.5, 0.499)
    assert layers.source_of(layer).downsamples == [(1, 1), (4, 4)]
    found = read(layer)
    assert (found[:70] == 255).all()
    np.testing.assert_array_equal(found[70:], rgb[70:])
    # Results lie on it although its world counts in pixels.
    taken = take(layers.source_of(layer), 0.25, (40, 60, 90, 100))
    result = Image(np.zeros((9, 9)), **layers.placement(layer, taken.transform))
    np.testing.assert_allclose(result.data_to_world((4, 6)), (taken.transform @ [4, 6, 1])[:2])


@pytest.mark.parametrize("said", [None, "0.5", (0.5,), (352.8, 352.8), (0, 0), ("a", "b")])
def test_a_resolution_that_is_none_is_assumed(said):
    metadata = {"path": None, "resolution": said, "color_space": "raw"}
    rgb = noise(1, 64, 64)
    assert mpp_of(like_napari_wsi(rgb, metadata=metadata)) is None
    # With its spatial transform on, it says one um a pixel of such a slide.
    layer = like_napari_wsi(rgb, metadata=metadata, affine=np.eye(3), units="micrometer")
    assert mpp_of(layer) is None


def test_a_resolution_that_somebody_else_wrote_is_not_taken():
    layer = Image(noise(1, 64, 64), metadata={"resolution": (0.5, 0.5)})
    assert mpp_of(layer) is None


def test_napari_wsi_layers_with_the_transform_of_a_dicom_slide():
    # As its WSIDicom backend writes it: axes changed, one turned round, micrometres of offset.
    matrix = np.array([[0.0, -0.5, 20000.0], [0.25, 0.0, 5000.0], [0.0, 0.0, 1.0]])
    layer = like_napari_wsi(noise(4, 200, 240), affine=matrix, units="micrometer")
    assert mpp_of(layer) == (0.25, 0.5)
    taken = take(layers.source_of(layer), 0.25, (0, 0, 100, 100))
    result = Image(np.zeros((9, 9)), **layers.placement(layer, taken.transform))
    for point in ((0.0, 0.0), (5.0, 7.5)):
        at_level0 = taken.transform @ [*point, 1]
        np.testing.assert_allclose(result.data_to_world(point), (matrix @ at_level0)[:2])


def test_napari_tiff_layers_of_an_svs_pyramid():
    da = pytest.importorskip("dask.array")
    rgb = noise(5, 200, 240)
    levels = [da.from_array(rgb[::n, ::n], chunks=(64, 64, 3)) for n in (1, 4)]
    layer = Image(
        levels, rgb=True, scale=(0.499, 0.499), units=("µm", "µm"),
        metadata={"SVS_metadata": {"MPP": 0.499}},
    )  # fmt: skip
    assert mpp_of(layer) == pytest.approx((0.499, 0.499))
    np.testing.assert_array_equal(read(layer), rgb)


def test_a_printers_resolution_is_no_pixel_size():
    # napari-tiff makes micrometres of any resolution tag: of 72 dpi too.
    layer = Image(noise(6, 64, 64), scale=(25400 / 72,) * 2, units=("µm", "µm"))
    assert mpp_of(layer) is None
    taken = take(layers.source_of(layer), 0.25)
    assert taken.field.mpp_assumed
    assert taken.field.rgb.shape == (64, 64, 3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_napari_tiff_parts_of_16_bit_or_planar_images_say_what_to_do_and_that_helps(kind):
    rgb = noise(7, 64, 64)
    values = rgb if kind is np.uint8 else rgb.astype(np.uint16) * 257
    place = {"scale": (0.5, 0.5), "units": ("µm", "µm")}
    # napari itself splits what the plugin hands over with a channel axis.
    parts = ViewerModel().add_image(
        values, channel_axis=2, colormap=["red", "green", "blue"], name=["Red", "Green", "Blue"],
        blending=["additive"] * 3, contrast_limits=[(0, np.iinfo(kind).max)] * 3, **place,
    )  # fmt: skip
    assert "Merge to RGB" in refused(parts[1])
    merged = merge_rgb(parts)
    np.testing.assert_array_equal(read(merged), rgb)
    assert mpp_of(merged) == (0.5, 0.5)


# The plugins themselves, where they are installed (weekly in CI) ---------------------------------


@pytest.fixture
def cmu(shared_data):
    path = shared_data / "WSI" / "CMU-1-Small-Region.svs"
    return path if path.exists() else pytest.skip(f"no {path}")


def opened_by(package, reader, path):
    """The layer that a plugin's reader function gives."""
    function = getattr(pytest.importorskip(package), reader)(str(path))
    data, options, kind = function(str(path))[0]
    assert kind == "image"
    return ViewerModel()._add_layer_from_data(data, options, kind)[0]


def test_a_slide_that_napari_wsi_itself_opened(cmu):
    layer = opened_by("napari_wsi.reader", "wsi_reader_openslide", cmu)
    assert mpp_of(layer) == pytest.approx((0.499, 0.499))
    with tifffile.TiffFile(cmu) as tif:
        wanted = tif.pages[0].asarray()[500:600, 700:820]
    np.testing.assert_array_equal(read(layer)[500:600, 700:820], wanted)


def test_a_slide_that_napari_tiff_itself_opened(cmu):
    layer = opened_by("napari_tiff.napari_tiff_reader", "napari_get_reader", cmu)
    assert mpp_of(layer) == pytest.approx((0.499, 0.499))
    with tifffile.TiffFile(cmu) as tif:
        wanted = tif.pages[0].asarray()[500:600, 700:820]
    np.testing.assert_array_equal(read(layer)[500:600, 700:820], wanted)
