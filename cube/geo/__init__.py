"""Grids, outlines, polygons: pure geometry.

In: transforms and CRS definitions. Out: boxes, polygons and footprints in degrees.
``grid`` knows where patches lie, ``boxes`` and ``polygons`` are those of single patches, many at once, ``footprints`` traces
what patches cover together and carries it to degrees.
"""
