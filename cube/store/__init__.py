"""Bytes by key, on a disk or in an object store. The only room that knows S3.

In: a URL and fsspec options. Out: a ``Store`` (``store.protocol``), opened by ``store.urls.open_store``.
``failures`` decides what is tried again and whose fault a failure is; ``local`` and ``objects`` are the two stores;
``flushing`` has files on the disk, ``parquet`` reads parts of a Parquet file. Nothing here knows what a cube is.
"""
