"""Filters, boxes, choosing patches, the patch table.

In: a filter as the command line takes it, and columns. Out: which patches are meant.
``grammar`` reads a filter, ``filters`` holds it against columns, ``choose`` applies it to labels, ``search`` and ``table``
to the table in the catalog.
"""
