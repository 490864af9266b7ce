"""Sources of an image, for the tests of fields."""

from napari_nucprune.slides.source import Source

MPP = 0.25


def source_of(rgb, mpp=MPP, **options):
    pair = mpp if mpp is None or isinstance(mpp, tuple) else (mpp, mpp)
    return Source([rgb], pair, **options)


def inner_rgb(taken):
    return taken.field.rgb[taken.inner]
