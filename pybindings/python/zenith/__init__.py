"""Branches and time travel for stock PostgreSQL.

    import zenith

    with zenith.Repository.init("/var/tmp/shop") as repo:  # its page server runs inside the with
        main = repo.branch("main")
        with main.compute() as pg:  # a stock PostgreSQL server, stopped at the end
            pg.psql("create table t as select generate_series(1, 1000) as n")
            lsn = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
            pg.psql("drop table t")
        dev = repo.create_branch("dev", at=("main", lsn))
        with dev.compute() as pg:
            print(pg.psql("select count(*) from t"))  # 1000

Everything that waits lets other threads run. Whatever goes wrong is a ``zenith.Error``.
"""

from ._native import Branch, Compute, Lsn, Repository, Tag
from .exceptions import (
    AlreadyExists,
    BelowHorizon,
    Conflict,
    ConnectionFailed,
    Corrupt,
    Error,
    InvalidArgument,
    InvalidLsn,
    LsnTimeout,
    NotFound,
    PageServerError,
    PageServerNotRunning,
    ProgramFailed,
    QueryFailed,
    SetupError,
    SystemFailed,
    Timeout,
)

__all__ = [
    "AlreadyExists",
    "BelowHorizon",
    "Branch",
    "Compute",
    "Conflict",
    "ConnectionFailed",
    "Corrupt",
    "Error",
    "InvalidArgument",
    "InvalidLsn",
    "Lsn",
    "LsnTimeout",
    "NotFound",
    "PageServerError",
    "PageServerNotRunning",
    "ProgramFailed",
    "QueryFailed",
    "Repository",
    "SetupError",
    "SystemFailed",
    "Tag",
    "Timeout",
]
