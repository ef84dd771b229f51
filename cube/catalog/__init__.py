"""STAC, the patch table and the page.

In: a finished cube, its recipe and a survey. Out: documents beside the cube, and their check.
``describe`` makes them, ``publish`` writes them, ``collection`` and ``patch_items`` are the STAC documents, ``patch_table``
the Parquet, ``page`` the web page, ``check`` and ``schemas`` judge.
"""

FORMATS = ("ids", "table", "geojson", "parquet")
"""What a search can give back."""
PAGE = "index.html"
"""The page, in the folder of a catalog."""
