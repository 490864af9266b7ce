"""What a first slide would wait for, loaded in the background while nothing is asked yet."""

from __future__ import annotations

import threading

import numpy as np
from qtpy.QtCore import QTimer

_begun = threading.Event()
#: Milliseconds after which it begins: the dock itself is shown first.
_LATER_MS = 300


def _load() -> None:
    # napari's units, thumbnails (scipy.ndimage) and OpenSlide, half a second and more together.
    import openslide  # noqa: F401
    import tifffile  # noqa: F401
    from napari.layers import Image

    Image(np.zeros((4, 4, 3), np.uint8), rgb=True, scale=(0.25, 0.25), units=("um", "um"))


def _start() -> None:
    import pint

    # The registry fills itself when it is first used and is half empty meanwhile: a slide that was
    # opened while the thread did that failed ("'pixel' is not defined in the unit registry").
    pint.get_application_registry().parse_units("pixel")
    threading.Thread(target=_load, name="nucprune-warming").start()


def begin() -> None:
    """Load once a process, in a thread that ends by itself."""
    if not _begun.is_set():
        _begun.set()
        # No bound method: PyQt would not keep its object alive.
        QTimer.singleShot(_LATER_MS, _start)
