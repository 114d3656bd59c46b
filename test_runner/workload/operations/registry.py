"""All operations."""

from . import (
    checks,
    databases,
    faults,
    indexes,
    locks,
    objects,
    rows,
    storage,
    tables,
    tablespaces,
    transactions,
    vacuum,
    wal,
)
from .base import Operation

OPERATIONS: list[Operation] = [
    *rows.OPERATIONS,
    *transactions.OPERATIONS,
    *locks.OPERATIONS,
    *tables.OPERATIONS,
    *tablespaces.OPERATIONS,
    *indexes.OPERATIONS,
    *vacuum.OPERATIONS,
    *objects.OPERATIONS,
    *databases.OPERATIONS,
    *wal.OPERATIONS,
    *storage.OPERATIONS,
    *faults.OPERATIONS,
    *checks.OPERATIONS,
]
