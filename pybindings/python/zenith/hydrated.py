"""What ``Compute.hydrate`` gives: of the values that ``zenith pg hydrate -o json`` prints."""

from __future__ import annotations

from typing import TypedDict


class Hydrated(TypedDict):
    """Result of ``Compute.hydrate``."""

    fetched_bytes: int
    """What was fetched. The compute may have fetched other pages meanwhile."""
    left_bytes: int
    """What is still absent, for the compute has crashed in the middle of removing it."""
