"""An OME-TIFF whose levels differ, for the tests of slides."""

import numpy as np
import pytest
import tifffile

from helpers import is_one_line, noise
from napari_nucprune.errors import InputError
from napari_nucprune.slides.reader import open_slide

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


def refused(path):
    with pytest.raises(InputError, match=path.name) as caught:
        open_slide(path)
    assert is_one_line(caught.value)
    return str(caught.value)
