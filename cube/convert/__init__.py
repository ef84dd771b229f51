"""Patch files to shards, receipts and labels; the root document last.

In: a recipe and an inventory. Out: a plan (pure), then what was written.
``plan`` decides, ``estimates`` foretells, ``worker`` writes one batch, ``labels`` joins receipts, ``preparation`` claims
the target, ``writer`` runs it all.
"""
