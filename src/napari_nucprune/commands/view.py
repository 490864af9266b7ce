"""``nucprune view``."""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import InputError


def view(options: argparse.Namespace) -> None:
    """``nucprune view``."""
    try:
        import napari  # noqa: F401
    except ImportError as error:
        raise InputError(
            "napari is not installed here; install it with: pip install 'napari-nucprune[all]'."
        ) from error
    if not _screen():
        raise InputError(
            "There is no screen here for the viewer; `nucprune segment` and `nucprune demo` do the "
            "same without one."
        )
    from ..widgets.window import view as open_window

    open_window(options.image)


def _screen() -> bool:
    """Say whether Qt, which aborts the process without one, will find a screen."""
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
