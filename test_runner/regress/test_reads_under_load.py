"""Pages of the past, read while much is written and with caches of all sizes, are what they were
and what stock PostgreSQL makes of the WAL.

``ZENITH_LOAD_SECONDS`` sets how long each of them takes (``make load SECONDS=300``),
``ZENITH_TEST_SEED`` its chances.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures import pgbench
from fixtures.cli import Cli
from fixtures.past import Readers
from fixtures.verify import Verify

SECONDS = float(os.environ.get("ZENITH_LOAD_SECONDS", 3))

# What pgbench's updates do not do: files that come and go, are cut and written anew, and maps.
# Little at a time: with the page in each record it is much WAL.
CHURN = [
    "create table churned{n} as select n, repeat('x', n * 9) as x from generate_series(1, 60) n",
    "create index on churned{n} (x)",
    "delete from churned{n} where n % 3 = 0",
    "vacuum churned{n}",
    "begin; savepoint a; update churned{n} set x = 'z' where n < 9; rollback to a; commit",
    "truncate churned{n}",
    "insert into churned{n} select n, md5(n::text) from generate_series(1, 20) n",
    "vacuum full churned{n}",
    "drop table churned{n}",
]
RELATIONS = """
    select pg_relation_filepath(oid) from pg_class
    where relkind in ('r', 'i') and (relname like any ('{pgbench%,churned%}') or oid < 1300)
          and pg_relation_filepath(oid) like 'base/%'
"""


@contextmanager
def churn(dsn: str) -> Iterator[None]:
    """Runs those statements again and again while the block lasts."""
    over = threading.Event()

    def run() -> None:
        with psycopg.connect(dsn, autocommit=True) as server:
            number = 0
            while not over.is_set():
                for statement in CHURN:
                    server.execute(statement.format(n=number).encode())
                    over.wait(0.02)
                number += 1

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        try:
            yield
        finally:
            over.set()
        done.result()


def tell(readers: Readers, server: psycopg.Connection) -> None:
    """Tells of this moment."""
    paths = [str(path).split("/") for (path,) in server.execute(RELATIONS)]
    found = server.execute("select pg_current_wal_flush_lsn()").fetchone()
    assert found is not None
    readers.tell(zenith.Lsn(found[0]), [(1663, int(db), int(rel)) for _, db, rel in paths])


def look(repo: zenith.Repository, readers: Readers, name: str, lsn: zenith.Lsn) -> None:
    """A compute on a branch that leaves in the past: its tables agree with each other, and its
    pages are main's.
    """
    branch = repo.create_branch(name, ("main", lsn))
    with branch.compute() as pg:
        pgbench.check_sums(pg.psql(pgbench.SUMS))
        pg.psql("update pgbench_accounts set abalance = abalance where aid % 10 = 0")
    known = [request for request in list(readers.requests) if request.lsn <= lsn]
    for request in known[:10]:
        assert request.read(branch) == readers.requests[request], request
    pg.destroy()


@pytest.mark.usefixtures("all_wal")
@pytest.mark.parametrize(
    "cache_bytes", [1 << 20, 64 << 20, 1 << 40], ids=["1MB", "64MB", "unlimited"]
)
def test_under_load(fresh: Path, cli: Cli, verify: Verify, cache_bytes: int) -> None:
    seed = int(os.environ.get("ZENITH_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"ZENITH_TEST_SEED={seed}")
    chance = random.Random(seed)
    with (fresh / ".zenith" / "zenith.toml").open("a") as config:
        config.write(f"[cache]\nbytes = {cache_bytes}\n")
        # Layers are written, merged and read all the time.
        config.write(f"[layers]\ncache_bytes = {cache_bytes}\nstretch_bytes = 1000000\n")
    with zenith.Repository.open(fresh) as repo:
        main = repo.branch("main")
        with main.compute() as pg:
            pg.psql("alter system set wal_consistency_checking = 'all'")
            pg.psql("alter system set checkpoint_timeout = '30s'")
            pg.psql("select pg_reload_conf()")
            pgbench.initialise(pg.dsn)
            readers = Readers(main, seed)
            with psycopg.connect(pg.dsn, autocommit=True) as server:
                tell(readers, server)
                load = pgbench.Background(pg.dsn, arguments=("--rate=50",))
                with churn(pg.dsn), load, readers:
                    began, rounds = time.monotonic(), 0
                    while time.monotonic() - began < SECONDS or rounds < 2:
                        until = time.monotonic() + 0.3
                        while time.monotonic() < until:
                            tell(readers, server)
                            time.sleep(0.05)
                        lsn, _ = chance.choice(readers.moments)
                        if rounds % 2:
                            # Against stock PostgreSQL, while everything goes on.
                            verify(f"main@{lsn}")
                        else:
                            look(repo, readers, f"past{rounds}", lsn)
                        readers.check()
                        rounds += 1
                        assert load.is_running(), load.output()
        readers.check()
        assert readers.repeated > 0
        # Nothing of it in memory, and then all in memory.
        repo.restart()
        main = repo.branch("main")
        for share in (400, 100):
            readers.read_again(main, int(share * SECONDS))
        verify("main")
        found = repo.verify_records("main")
        assert found["different"] == 0, found
        assert found["images"]["compared"] > 1000, found
        stats = repo.status()
        assert int(stats["cache_bytes"]) <= cache_bytes
