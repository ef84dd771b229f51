"""The flows: build, copy, subset, clean.

In: a request. Out: what was done, as a value.
Each flow calls the stages in order and decides nothing that a stage could decide. ``portions`` is what ``copy`` moves.
"""

SAMPLE = 100
"""Patches a build reads beforehand to predict what it will take."""
