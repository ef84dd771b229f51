"""Cube to xarray and NumPy, tile by tile. Loads no Dask.

In: a URL. Out: datasets, scenes, single images; only the tiles that are asked for are read, each once.
``opened`` is an opened cube, ``pixels`` reads tiles by ``ranges``, ``engine`` is xarray's backend, ``scenes`` and
``placements`` lay patches on their ground, ``splits`` looks for leaks, ``pictures`` draws.
"""
