"""The user's files: listing, pairing, decoding. The only room that decodes patch files.

In: a recipe and a folder or prefix. Out: an ``Inventory`` (one row a patch) and, file by file, a ``Raster``.
``files`` reaches files in folders, stores and archives (``members``, ``gzip_index``, ``inflate``), ``scan`` pairs them,
``rasters`` decodes, ``expectations`` says what a file must be, ``demo`` makes files to try with.
What cannot be used becomes a named rejection, never a filled gap.
"""
