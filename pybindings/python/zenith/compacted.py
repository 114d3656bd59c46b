"""What ``Branch.compact`` gives: the values that ``zenith compact -o json`` prints."""

from __future__ import annotations

from typing import TypedDict


class KnownLayer(TypedDict):
    """A layer."""

    name: str
    """Name of its file."""
    bytes: int
    """Size of its file."""


class Compacted(TypedDict):
    """Result of ``Branch.compact``."""

    branch: str
    timeline: str
    lsn: str
    """Up to where its history is in layers."""
    made: list[KnownLayer]
    """Those that were made; none if there was nothing to be done."""
    replaced: list[KnownLayer]
    """Those in whose place they are."""
    layers: int
    """How many layers of its own there are now."""
    bytes: int
    """Bytes of all of them."""
