"""``nucprune view``."""

from __future__ import annotations

import argparse

from ..errors import InputError


def view(options: argparse.Namespace) -> None:
    """``nucprune view``."""
    try:
        import napari  # noqa: F401
    except ImportError as error:
        raise InputError(
            "napari is not installed here; install it with: pip install 'napari-nucprune[all]'."
        ) from error
    from ..widgets.window import view as open_window

    open_window(options.image)
