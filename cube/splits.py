"""Whether the splits of a cube share ground."""

from cube.read.splits import Leak, split_leaks

__all__ = ["Leak", "split_leaks"]
