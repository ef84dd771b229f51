"""Filters, boxes, choosing patches, the patch table.

In: a filter as the command line takes it, and columns. Out: which patches are meant.
``filters`` is the one grammar, ``choose`` applies it to labels, ``search`` and ``table`` to the table in the catalog.
"""
