"""Splits of a cube: made without leaks, and looked through for ground that several parts share."""

from cube.read.splits import Leak, split_leaks
from cube.train.splitting import Split, make_split, read_split

__all__ = ["Leak", "Split", "make_split", "read_split", "split_leaks"]
