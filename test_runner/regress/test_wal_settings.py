"""Settings that change what is in the log: compression, hint bits, checksums, page images."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zenith
from fixtures import initdb, postgres
from fixtures.verify import Verify

TABLE = """
create extension if not exists pg_walinspect;
create table t as select n, md5(n::text) as v, 0 as changes from generate_series(1, 5000) n;
create index on t (v);
"""
STATE = "select count(*), sum(changes), count(distinct v) from t"


@pytest.mark.parametrize("method", ["pglz", "lz4", "zstd", "off"])
def test_compressed_page_images(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify, method: str
) -> None:
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLE)
        pg.psql(f"alter system set wal_compression = {method}")
        pg.psql("select pg_reload_conf()")
        pg.psql("checkpoint")
        start = postgres.insert_lsn(pg)
        pg.psql("update t set changes = changes + 1 where n % 10 = 0")
        pg.psql("vacuum t")
        end = postgres.received_lsn(pg)
        state = pg.psql(STATE)
        images = "select count(*) from pg_get_wal_records_info('{}', '{}') where fpi_length > 0"
        assert int(pg.psql(images.format(start, end))) > 50
        pg.kill()
    with repo.create_branch("dev", at=("main", end)).compute() as pg:
        assert pg.psql(STATE) == state
    verify(f"main@{end}")


@pytest.fixture
def without_checksums(scratch: Path) -> Iterator[zenith.Repository]:
    """A running repository whose pages have no checksums."""
    script = '"$bin/pg_checksums" --disable -D "$pgdata" >/dev/null\n'
    with initdb.init_with(scratch, script) as repository:
        yield repository


@pytest.mark.parametrize("log_hints", [True, False])
def test_without_checksums(
    without_checksums: zenith.Repository, verify: Verify, log_hints: bool
) -> None:
    repo = without_checksums
    main = repo.branch("main")
    with main.compute() as pg:
        pg.psql(f"alter system set wal_log_hints = {'on' if log_hints else 'off'}")
        pg.restart()
        assert pg.psql("show data_checksums") == "off"
        postgres.script(pg.dsn, TABLE)
        pg.psql("delete from t where n % 3 = 0")
        pg.psql("checkpoint")
        start = postgres.insert_lsn(pg)
        # The first to read a row notes on its page what became of who wrote it.
        state = pg.psql(STATE)
        pg.psql("insert into t values (0, '', 0)")
        end = postgres.received_lsn(pg)
        hints = "select count(*) from pg_get_wal_records_info('{}', '{}')"
        hints += " where record_type = 'FPI_FOR_HINT'"
        assert (int(pg.psql(hints.format(start, end))) > 20) == log_hints
        pg.kill()
    assert state == "3334|0|3334"
    with repo.create_branch("dev", at=("main", end)).compute() as pg:
        assert pg.psql("show data_checksums") == "off"
        assert pg.psql("select count(*) from t") == "3335"
        assert pg.psql("select count(*) from t where n % 3 = 0") == "1"
    verify(f"main@{end}", "dev")


def test_page_images_switched_off_and_on(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    """And the settings that a standby has to follow, which are in the log, too."""
    points = []
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLE)
        for connections in (50, 150):
            pg.psql(f"alter system set max_connections = {connections}")
            pg.psql(f"alter system set max_locks_per_transaction = {connections}")
            pg.psql(f"alter system set max_prepared_transactions = {connections}")
            pg.restart(immediate=connections == 50)
            pg.psql("checkpoint")
            pg.psql("update t set changes = changes + 1 where n % 7 = 0")
            points.append((postgres.received_lsn(pg), pg.psql(STATE)))
    for number, (lsn, state) in enumerate(points):
        with repo.create_branch(f"dev{number}", at=("main", lsn)).compute() as pg:
            assert pg.psql(STATE) == state
            assert pg.psql("show max_connections") == "100"
            pg.psql("begin; delete from t where n = 1; prepare transaction 'x'")
            pg.restart(immediate=True)
            pg.psql("commit prepared 'x'")
    verify("main", "dev0")
