"""Outlines as ImageJ writes them, for the tests of layouts."""

import zipfile

import numpy as np
from roifile import ImagejRoi

SIDE = 24


def rois(path, **outlines):
    """Write a zip of polygons, each a list of (x, y), as ImageJ does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, points in outlines.items():
            roi = ImagejRoi.frompoints(np.array(points))
            archive.writestr(f"{name}.roi", roi.tobytes())


BOX = [(2, 3), (8, 3), (8, 12), (2, 12)]  # x 2..8, y 3..12
