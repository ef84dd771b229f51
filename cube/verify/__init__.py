"""Is it what it says it is?

In: a cube, and on request its source files. Out: a ``Report`` of named checks with what was seen.
``verification`` checks a whole cube and ``statements`` what its root tells, ``tasks`` are given to workers, ``batch``
checks one group of shards, ``report`` is the value.
"""
