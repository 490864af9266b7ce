"""What the distance branch learns: the map that scores compare it with."""

from ..nuclei.distance import distance_target

__all__ = ["distance_target"]
