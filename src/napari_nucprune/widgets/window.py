"""``nucprune view``: the viewer with the dock and an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari

from ..errors import InputError, NucpruneError
from ..slides.image import first_line
from ..slides.reader import SUFFIXES

SAMPLE = "tissue"


def open_viewer(image: str | None = None, show: bool = True) -> tuple[napari.Viewer, Any]:
    """Open a viewer with the dock docked.

    Parameters
    ----------
    image
        A file; None opens the sample tissue.
    show
        Whether the window is shown at once.

    Returns
    -------
    viewer, dock
        Both alive until the window closes.

    Raises
    ------
    InputError
        Where the image is missing, or nothing that is installed can read it.
    """
    if image is not None and not Path(image).exists():
        raise InputError(f"{image} does not exist; give the path of an image or a slide.")
    viewer = napari.Viewer(title="napari · nucprune", show=show)
    _, dock = viewer.window.add_plugin_dock_widget("napari-nucprune")
    try:
        if image is None:
            viewer.open_sample("napari-nucprune", SAMPLE)
        elif Path(image).suffix.lower() in SUFFIXES:
            viewer.open(image, plugin="napari-nucprune")
        else:
            viewer.open(image)
    except Exception as error:
        viewer.close()
        if isinstance(error, NucpruneError):
            raise
        raise InputError(
            f"{image} cannot be opened ({first_line(error).rstrip('.')}); give an image or a slide "
            "that the viewer can read, or copy the file again."
        ) from error
    return viewer, dock


def view(image: str | None = None) -> None:
    """Open the viewer and stay until it is closed."""
    open_viewer(image)
    napari.run()
