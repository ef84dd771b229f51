"""Grids, outlines, polygons: pure geometry.

In: transforms and CRS definitions. Out: rings, boxes and footprints in degrees.
``grid`` knows where patches lie, ``polygons`` and ``contours`` trace what they cover, ``footprints`` carries that to
degrees.
"""
