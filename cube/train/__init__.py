"""Batches for training: samples, shuffles, assembly, the thin skin of PyTorch. Loads no Dask and no xarray.

In: a URL and what is wanted of it. Out: batches of arrays or tensors, in an order that can be resumed.
``samples`` chooses, ``shuffle`` orders, ``assembly`` and ``shelf`` put tiles together, ``threads`` reads ahead, ``torch``
wraps.
"""
