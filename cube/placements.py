"""Where the patches of a scene lie beside each other."""

from cube.read.placements import Placements, placements

__all__ = ["Placements", "placements"]
