"""What a command is told of its stores and its cluster, without a config file or with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cube.work.config import ClusterProfile


class Settings(Protocol):
    """How stores are reached and where the work runs."""

    @property
    def cluster(self) -> ClusterProfile | None:
        """The cluster to start; None for this machine."""

    def options(self, url: str) -> dict[str, Any]:
        """Return the fsspec options for a URL."""


@dataclass(frozen=True)
class Defaults:
    """The settings where no config file is named."""

    cluster: None = None

    def options(self, url: str) -> dict[str, Any]:
        """Return no options."""
        return {}
