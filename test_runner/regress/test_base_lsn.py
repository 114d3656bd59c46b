"""Moving the LSN at which a compute reads the pages it does not have."""

import time
from pathlib import Path

import pytest
import zenith
from fixtures import pgbench, postgres
from fixtures.cli import Cli
from zenith import Lsn


def flushed(pg: zenith.Compute) -> Lsn:
    """How far its WAL is durable."""
    return postgres.received_lsn(pg)


def configure(pg: zenith.Compute, *lines: str) -> None:
    """Adds to its ``postgresql.conf``."""
    with Path(pg.pgdata, "postgresql.conf").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_base_moves_under_load(repo: zenith.Repository, main: zenith.Branch, cli: Cli) -> None:
    with main.compute() as pg:
        pgbench.initialise(pg.dsn, scale=2)
        pg.psql(
            "create table gone as select n, repeat('x', 500) v from generate_series(1, 5000) n;"
            "create table cut as select * from gone; create index on cut (n);"
        )
        pg.psql("create database origin")
        pg.psql("create table t as select * from generate_series(1, 1000) n", dbname="origin")
    branch = repo.create_branch("dev")
    pg = branch.compute()
    # Pages come and go.
    configure(pg, "shared_buffers = 1MB", "autovacuum_naptime = 1s")
    pg.start()
    bases = [pg.base_lsn]
    with pgbench.Background(pg.dsn) as load:
        for step in range(5):
            if step == 1:
                pg.psql("delete from cut where n > 100")
                pg.psql("vacuum cut")
            if step == 2:
                pg.psql("drop table gone")
                pg.psql("create database copied template origin strategy file_copy")
            if step == 3:
                pg.kill()
                load.stop()
                pg.start()
            if step == 4:
                pg.psql("drop database origin")
            time.sleep(0.3)
            durable = flushed(pg)
            assert pg.advance_base(durable) == durable
            bases.append(pg.advance_base())
            assert bases[-2] < durable <= bases[-1] <= flushed(pg)
            assert str(pg.base_lsn) in cli("pg", "list")
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    assert pg.psql("select count(*), sum(n) from cut") == "100|5050"
    assert pg.psql("select count(*) from t", dbname="copied") == "1000"
    pg.kill()
    pg.start()
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    where = ("-h", "127.0.0.1", "-p", str(pg.port), "-U", "postgres")
    postgres.run("pg_amcheck", *where, "-a", "--install-missing", "--heapallindexed")
    pg.stop()
    # All of it was received, so that nothing older is needed.
    assert pg.base_lsn == branch.last_record_lsn
    cli("verify", "dev")
    pg.start()
    pgbench.check_sums(pg.psql(pgbench.SUMS))
    assert pg.psql("select sum(n) from cut") == "5050"
    assert "PANIC" not in Path(pg.log).read_text()
    pg.stop()


def test_base_stays_where_it_must(repo: zenith.Repository, main: zenith.Branch, cli: Cli) -> None:
    pg = main.compute()
    made_at = pg.base_lsn
    with pg:
        pg.psql("create table t as select 1 as n")
        beyond = Lsn(int(flushed(pg)) + 0x1000000)
        with pytest.raises(zenith.Error, match="cannot be"):
            pg.advance_base(beyond)
        with pytest.raises(zenith.Error, match="does not go back"):
            pg.advance_base(Lsn(int(made_at) - 8))
        cli("pg", "advance", "main", str(flushed(pg)))
        assert made_at < pg.base_lsn <= flushed(pg)
        before = pg.base_lsn
        pg.psql("insert into t values (2)")
        pg.stop(immediate=True)
        assert pg.base_lsn == before
        with pytest.raises(zenith.Error, match="start it first"):
            pg.advance_base()
        # A crash is mended by a start, after which the page server receives the rest.
        pg.start()
        assert pg.advance_base() > before
        assert pg.psql("select sum(n) from t") == "3"
    cli("pg", "create", "old", "--at", f"main@{made_at}")
    assert "detached" in cli.refused("pg", "advance", "old")
    assert repo.compute("old").base_lsn == made_at
