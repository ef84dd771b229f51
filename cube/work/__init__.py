"""Who does it: processes and clusters, and who watches.

In: a scheduler's address, a number of workers or a config file. Out: a Dask client that runs tasks (``work.clusters``).
``config`` reads ``--config``, ``dashboard`` shows the work, ``watch`` is the protocol of whoever is told of progress.
"""
