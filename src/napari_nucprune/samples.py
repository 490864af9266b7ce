"""Sample images: a synthetic field, a repainted tissue, a small slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .slides.image import first_line
from .slides.reader import LayerData, read_slide
from .synthetic import synthetic

SLIDE_URL = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
TISSUE_NAME = "immunohistochemistry, DAB repainted as eosin"


def tissue() -> NDArray[np.uint8]:
    """Real tissue that looks like H&E: scikit-image's immunohistochemistry, its DAB as eosin.

    Returns
    -------
    NDArray
        (512, 512, 3) uint8; the pixel size is not known.
    """
    from skimage import color, data

    hed = color.rgb2hed(data.immunohistochemistry()).clip(0)
    # Between Ruifrok's and Macenko's vectors, and strong enough to look like routine H&E.
    stains = np.array([(0.60, 0.72, 0.35), (0.17, 0.87, 0.40), (0.0, 0.0, 0.0)])
    stains[2] = np.cross(stains[0], stains[1])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    blue, pink = 1.4 * hed[..., 0], hed[..., 1] + 0.38 * hed[..., 2]
    rgb = color.combine_stains(np.stack([blue, pink, 0 * blue], axis=-1), stains)
    return (rgb.clip(0, 1) * 255 + 0.5).astype(np.uint8)


#: What recovery on `calibration_crops` is said to be on.
BUNDLED_TISSUE = "the bundled tissue"


def calibration_crops() -> NDArray[np.uint8]:
    """Return crops of `tissue` that recovery takes where there is no tissue of the user's own.

    Crops of the image itself do far better (docs/recovery.md), `synthetic` and Gram statistics of
    training images worse.

    Returns
    -------
    NDArray
        (16, 128, 128, 3) uint8.
    """
    side = 128
    cut = tissue().reshape(4, side, 4, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(-1, side, side, 3))


def fetch_slide() -> Path:
    """Download OpenSlide's CMU-1-Small-Region.svs (1.9 MB, CC0) once, and give its path.

    Raises
    ------
    InputError
        Where it cannot be had.
    """
    import pooch

    try:
        # The file gets its name only after its hash was checked: nothing half is left.
        found = pooch.retrieve(
            SLIDE_URL,
            f"sha256:{SLIDE_SHA256}",
            fname=SLIDE_URL.rsplit("/", 1)[1],
            path=pooch.os_cache("napari-nucprune"),
            downloader=pooch.HTTPDownloader(timeout=20),
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"The sample slide could not be downloaded ({first_line(error)}); get "
            f"{SLIDE_URL} by other means and open it with Open slide..."
        ) from error
    return Path(found)


def tissue_sample() -> list[LayerData]:
    """Layers of `tissue`; no scale, because nobody knows it."""
    return [(tissue(), {"name": TISSUE_NAME, "rgb": True}, "image")]


def synthetic_sample() -> list[LayerData]:
    """Layers of `synthetic`: the image and, hidden, its ground truth."""
    mpp = 0.25
    rgb, labels = synthetic(mpp=mpp)
    place = {"scale": (mpp, mpp), "units": ("um", "um")}
    about = {"nucprune": {"mpp": (mpp, mpp), "path": None, "objective": None}}
    return [
        (rgb, {"name": "synthetic H&E", "rgb": True, "metadata": about, **place}, "image"),
        (labels, {"name": "ground truth", "visible": False, **place}, "labels"),
    ]


def slide_sample() -> list[LayerData]:
    """Layer of OpenSlide's small slide, downloaded once."""
    return read_slide(str(fetch_slide()))
