"""The cube on disk: documents, arrays, tiles, certificate. Pure: no input or output.

In: a recipe, values, tiles. Out: bytes of documents and shards, and the way back.
``layout`` decides which arrays a cube has, ``arrays`` and ``tiles`` encode them, ``certificate`` vouches for them,
``shape`` looks a root through before ``root`` gives it away, ``target`` says what lies where. ``docs/format.md`` is the
published form of what is decided here.
"""
