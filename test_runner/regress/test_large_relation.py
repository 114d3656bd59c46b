"""A table of more than a gibibyte, which costs next to nothing: it is nearly all holes."""

import os
from pathlib import Path

import zenith
from fixtures import postgres

PAGE_SIZE = 8192
PAGES_PER_FILE = 131072


def insert(pg: zenith.Compute, number: int) -> str:
    """Adds a row that fills a page; returns which page."""
    return pg.psql(
        f"insert into t values ({number}, repeat('x', 5000)) returning (ctid::text::point)[0]"
    )


def row(pg: zenith.Compute, block: int) -> str:
    """The number of the row in a page, found without looking at any other."""
    return pg.psql(f"select id from t where ctid = '({block},1)'")


def test_over_the_end_of_a_file(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql(
            "create table t (id int, pad text) with (fillfactor = 50, autovacuum_enabled = off);"
            " alter table t alter pad set storage plain"
        )
        assert insert(pg, 1) == "0"
        path = pg.psql("select pg_relation_filepath('t')")
        rel = 1663, int(path.split("/")[1]), int(path.split("/")[2])
        # As a crash leaves a file that was made longer, and nothing written there.
        os.truncate(pg.pgdata / path, PAGES_PER_FILE * PAGE_SIZE)
        assert insert(pg, 2) == str(PAGES_PER_FILE - 1)
        assert insert(pg, 3) == str(PAGES_PER_FILE)
        full = postgres.received_lsn(pg)
        dev = repo.create_branch("dev", at=("main", full))
        pg.psql("delete from t where id > 1")
        pg.psql("vacuum t")
        assert pg.psql("select pg_relation_size('t')") == str(PAGE_SIZE)
        cut = postgres.received_lsn(pg)
    assert main.rel_size(*rel, lsn=full) == PAGES_PER_FILE + 1
    assert main.rel_size(*rel, lsn=cut) == 1
    with dev.compute() as pg:
        files = [pg.pgdata / path, pg.pgdata / f"{path}.1"]
        sizes = [file.stat().st_size for file in files]
        assert sizes == [PAGES_PER_FILE * PAGE_SIZE, PAGE_SIZE]
        assert row(pg, PAGES_PER_FILE) == "3"
        assert row(pg, PAGES_PER_FILE - 1) == "2"
        assert row(pg, 1) == ""
        assert insert(pg, 4) == str(PAGES_PER_FILE + 1)
        pg.kill()
        pg.start()
        assert [row(pg, PAGES_PER_FILE + n) for n in (0, 1)] == ["3", "4"]
        assert sum(file.stat().st_blocks for file in files) * 512 < 1 << 20
    after = repo.create_branch("after", at=("main", cut))
    with after.compute() as pg:
        assert pg.psql("select id from t") == "1"
        # What is grown again is not what was cut off.
        os.truncate(pg.pgdata / path, PAGES_PER_FILE * PAGE_SIZE)
        assert insert(pg, 5) == str(PAGES_PER_FILE - 1)
        assert insert(pg, 6) == str(PAGES_PER_FILE)
        assert row(pg, PAGES_PER_FILE) == "6"
        grown = postgres.received_lsn(pg)
        pg.psql("drop table t")
        assert not list(Path(pg.pgdata / path).parent.glob(f"{rel[2]}.1"))
    with after.compute("look", lsn=grown) as pg:
        assert row(pg, PAGES_PER_FILE - 1) == "5"
        assert row(pg, PAGES_PER_FILE) == "6"
        assert row(pg, 1000) == ""
