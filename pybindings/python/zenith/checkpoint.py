"""What ``Branch.checkpoint`` gives: the values that ``zenith checkpoint -o json`` prints."""

from __future__ import annotations

from typing import TypedDict


class Layer(TypedDict):
    """A layer that was written."""

    name: str
    """Name of its file."""
    bytes: int
    """Size of its file."""
    wal_bytes: int
    """How many bytes of WAL it stands for."""


class Checkpoint(TypedDict):
    """Result of ``Branch.checkpoint``."""

    branch: str
    timeline: str
    lsn: str
    """Up to where its history is in layers."""
    layers: list[Layer]
    """Those written for it, oldest first; none if all of it was in layers already."""
