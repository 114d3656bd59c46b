"""Branches and time travel for stock PostgreSQL.

See the project's README for a tour.
"""

from ._native import Lsn
from .exceptions import Error, InvalidLsn

__all__ = ["Error", "InvalidLsn", "Lsn"]
