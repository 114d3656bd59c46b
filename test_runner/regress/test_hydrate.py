"""Fetching everything that a compute does not have yet."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zenith
from fixtures import pgbench
from fixtures.cli import Cli
from fixtures.page_counts import PageCounts, asked_for

# Killed, as the kernel would for lack of memory, when half of it has come.
HYDRATE_AND_DIE = """
import os, sys, zenith
compute = zenith.Repository.open(sys.argv[1]).compute(sys.argv[2])
compute.hydrate(lambda done, total: done > total / 2 and os.kill(os.getpid(), 9))
"""
QUERIES = [pgbench.SUMS, "select count(*) from pg_class c, pg_attribute a where attrelid = c.oid"]


def maps_of(pg: zenith.Compute) -> list[Path]:
    """The maps of files of which something may be absent."""
    return [path for path in Path(pg.pgdata.parent, "presence").rglob("*") if path.is_file()]


def pages_of(pg: zenith.Compute) -> int:
    """How many pages it would read in all."""
    return sum(path.stat().st_size // 8192 for path in Path(pg.pgdata, "base").rglob("*"))


@pytest.fixture
def dev(repo: zenith.Repository, main: zenith.Branch) -> zenith.Branch:
    """A branch with some tables in two databases, on which nothing has been read yet."""
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
        pg.psql(
            "create table gone as select n, repeat('x', 500) v from generate_series(1, 5000) n;"
            "create table cut as select * from gone; create index on cut (n)"
        )
        pg.psql("create database other")
        pg.psql("create table t as select * from generate_series(1, 1000) n", dbname="other")
    return repo.create_branch("dev")


def test_a_hydrated_compute_needs_no_page_server(
    repo: zenith.Repository, dev: zenith.Branch, cli: Cli
) -> None:
    pg = dev.compute()
    pages = pages_of(pg)
    shown = cli.json("pg", "hydrate", "dev")
    assert (shown["compute"], shown["left_bytes"]) == ("dev", 0)
    assert shown["fetched_bytes"] >= pages * 8192 * 9 // 10
    assert maps_of(pg) == []

    def use() -> None:
        pg.start()
        for sql in QUERIES:
            pg.psql(sql)
        assert pg.psql("select sum(n) from t", dbname="other") == "500500"

    assert asked_for(repo, use) == PageCounts(0, 0, 0)
    repo.stop()
    assert pg.psql("select sum(n) from t", dbname="other") == "500500"
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    # What it writes meanwhile goes to the page server later.
    pgbench.run(pg.dsn, "-c", "2", "-t", "50")
    repo.start()
    assert cli.json("pg", "hydrate", "dev")["fetched_bytes"] == 0
    pg.start()
    pg.stop()
    cli("verify", "--compute", "dev")


def test_under_load_and_killed(repo: zenith.Repository, dev: zenith.Branch, cli: Cli) -> None:
    pg = dev.compute()
    with (pg.pgdata / "postgresql.conf").open("a") as file:
        # Pages come and go.
        file.write("shared_buffers = 1MB\n")
    pg.start()
    with pgbench.Background(pg.dsn) as load:
        killed = [
            subprocess.Popen([sys.executable, "-c", HYDRATE_AND_DIE, repo.path, "dev"])
            for _ in range(2)
        ]
        pg.psql("delete from cut where n > 100")
        pg.psql("vacuum cut")
        pg.psql("drop table gone")
        pg.psql("drop database other")
        # One of them may have found that the other has fetched the rest.
        ended = [process.wait() for process in killed]
        assert -9 in ended
        assert set(ended) <= {0, -9}
        assert cli.json("pg", "hydrate", "dev")["left_bytes"] == 0
        assert load.is_running(), load.output()
    assert asked_for(repo, lambda: [pg.psql(sql) for sql in QUERIES]) == PageCounts(0, 0, 0)
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    assert pg.psql("select count(*), sum(n) from cut") == "100|5050"
    pg.kill()
    pg.start()
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    pg.stop()
    cli("verify", "--compute", "dev")


def test_while_servers_come_and_go(repo: zenith.Repository, dev: zenith.Branch, cli: Cli) -> None:
    pg = dev.compute()
    steps: list[Callable[[], object]] = [
        lambda: repo.restart(immediate=True),
        pg.start,
        lambda: pg.psql("update pgbench_accounts set abalance = 1 where aid % 100 = 0"),
        pg.kill,
        pg.start,
        lambda: pg.psql("drop table gone"),
        pg.stop,
    ]
    todo = list(steps)

    def meanwhile(done: int, total: int) -> None:
        assert 0 <= done <= total
        # What the compute fetches itself counts, too, so that it may go on by leaps.
        while todo and done * (len(steps) + 1) > total * (len(steps) - len(todo) + 1):
            todo.pop(0)()

    assert pg.hydrate(meanwhile)["fetched_bytes"] > 0
    assert todo == []
    cli("verify", "--compute", "dev")
    pg.start()
    assert asked_for(repo, lambda: [pg.psql(sql) for sql in QUERIES[1:]]) == PageCounts(0, 0, 0)
    assert pg.psql("select sum(abalance) from pgbench_accounts") == "1000"
    pg.stop()


def test_what_ends_it(repo: zenith.Repository, dev: zenith.Branch, cli: Cli) -> None:
    assert 'no compute "dev"' in cli.refused("pg", "hydrate", "dev")
    pg = dev.compute()

    def no_more(done: int, total: int) -> None:
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pg.hydrate(no_more)

    made: list[zenith.Compute] = []

    def replace(done: int, total: int) -> None:
        if done > total / 3 and not made:
            pg.destroy()
            made.append(dev.compute())

    # Nothing of it gets into the new compute of that name.
    with pytest.raises(zenith.NotFound, match="dev"):
        pg.hydrate(replace)
    with made[0]:
        pgbench.check_sums(made[0].psql(pgbench.SUMS))
    cli("verify", "--compute", "dev")
    repo.stop()
    assert "zenith start" in cli.refused("pg", "hydrate", "dev")
