"""Makes ``.cube`` known on every xarray dataset, as opening a cube with this package does."""

from cube.read.pictures import Pictures

__all__ = ["Pictures"]
