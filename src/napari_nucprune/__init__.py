"""See on your own slide how far a nuclei-segmentation network can be pruned before it fails."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-nucprune")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
