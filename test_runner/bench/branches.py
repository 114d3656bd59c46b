"""Making and deleting branches, with one and with many."""

import psycopg
import zenith

from .measure import Figure, durable_files, times
from .report import Row
from .settings import Bench

TURNS = 100


def measure(bench: Bench) -> list[Row]:
    """Rows about branches."""
    with zenith.Repository.init(bench.folder("branches")) as repo:
        with repo.branch("main").compute() as pg:
            pg.psql("create table t as select generate_series(1, 1000) n")
        unit = durable_files(repo.path / "refs" / "branches")
        few_made, few_deleted = _make_and_delete(repo, "few")
        with psycopg.connect(repo.connstr, autocommit=True) as server:
            for number in range(bench.branches):
                server.execute(f"branch_create many{number} main".encode())
        many_made, many_deleted = _make_and_delete(repo, "more")
    many = f"{bench.branches} more"
    against = "durable writes of a small file"
    unit, few_made, few_deleted, many_made, many_deleted = (
        figure.times(1000) for figure in (unit, few_made, few_deleted, many_made, many_deleted)
    )
    return [
        Row("make a branch, of 1", "ms", few_made, against, unit, 8),
        Row(f"make a branch, of {many}", "ms", many_made, "of 1", few_made, 1.5),
        Row(f"make a branch, of {many}", "ms", many_made, "10 ms", Figure(10, 0), 1),
        Row(f"delete a branch, of {many}", "ms", many_deleted, "of 1", few_deleted, 1.5),
    ]


def _make_and_delete(repo: zenith.Repository, prefix: str) -> tuple[Figure, Figure]:
    with psycopg.connect(repo.connstr, autocommit=True) as server:
        made = times(TURNS, lambda n: server.execute(f"branch_create {prefix}{n} main".encode()))
        deleted = times(TURNS, lambda n: server.execute(f"branch_delete {prefix}{n}".encode()))
    return made, deleted
