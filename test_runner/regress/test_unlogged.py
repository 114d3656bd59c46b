"""Unlogged tables, indexes and sequences: empty on a branch, and of use there."""

import pytest
import zenith
from fixtures import postgres
from fixtures.verify import Verify

THINGS = """
create extension bloom;
create unlogged table things (
    id int generated always as identity primary key,
    tag text, words tsvector, place point, span int4range, big text
);
alter table things alter big set storage external;
create index on things using hash (tag);
create index on things using gin (words);
create index on things using gist (span);
create index on things using spgist (place);
create index on things using brin (id) with (pages_per_range = 4);
create index on things using bloom (id);
create function fill(how_many int) returns void as $$
    insert into things (tag, words, place, span, big)
        select md5(n::text), to_tsvector('simple', md5(n::text)), point(n, n), int4range(n, n + 10),
               repeat(md5(n::text), 100)
        from generate_series(1, how_many) n;
$$ language sql;
select fill(1000);
create unlogged sequence numbers;
select nextval('numbers') from generate_series(1, 50);
create table logged as select generate_series(1, 1000) n;
create index on logged (n);
create unlogged table bare as select generate_series(1, 1000) n;
"""
COUNTS = "select (select count(*) from things), (select count(*) from bare)"
# One question for each index, which must be answered by it.
BY_INDEX = {
    "btree": "select count(*) from things where id <= {base} + 10",
    "hash": "select count(*) from things where tag = md5('7')",
    "gin": "select count(*) from things where words @@ to_tsquery('simple', md5('7'))",
    "gist": "select count(*) from things where span @> 7",
    "spgist": "select count(*) from things where place ~= point(7, 7)",
    "brin": "select count(*) from things where id between {base} + 5 and {base} + 6",
}
ANSWERS = {"btree": 10, "hash": 1, "gin": 1, "gist": 7, "spgist": 1, "brin": 2}


def check_use(pg: zenith.Compute) -> None:
    """Fills the table, which must be empty, anew and asks through every index."""
    assert pg.psql(COUNTS) == "0|0"
    assert pg.psql("select fill(500)") == ""
    base = int(pg.psql("select min(id) from things")) - 1
    for kind, query in BY_INDEX.items():
        answer = pg.psql("set enable_seqscan = off; " + query.format(base=base))
        assert answer == str(ANSWERS[kind]), kind
    assert pg.psql(f"select length(big) from things where id = {base} + 500") == "3200"
    pg.psql("insert into bare values (1)")
    pg.psql("vacuum analyze things")
    assert pg.psql(COUNTS) == "500|1"


def test_empty_on_a_branch(repo: zenith.Repository, main: zenith.Branch, verify: Verify) -> None:
    with main.compute() as pg:
        postgres.script(pg.dsn, THINGS)
        made = postgres.received_lsn(pg)
        assert pg.psql(COUNTS) == "1000|1000"
        pg.restart()
        # Here it has its contents, after a clean stop as with any server.
        assert pg.psql(COUNTS) == "1000|1000"
        pg.kill()
        pg.start()
        check_use(pg)
        assert pg.psql("select nextval('numbers')") == "1"
        pg.psql("drop table bare; drop sequence numbers; create unlogged table bare (n int)")
        dropped = postgres.received_lsn(pg)
    with repo.create_branch("made", at=("main", made)).compute() as pg:
        check_use(pg)
        assert pg.psql("select nextval('numbers')") == "1"
        pg.restart()
        assert pg.psql(COUNTS) == "500|1"
        assert pg.psql("select nextval('numbers')") == "2"
        pg.kill()
        pg.start()
        check_use(pg)
        pg.psql("truncate things; truncate bare")
        pg.restart(immediate=True)
        check_use(pg)
    with repo.create_branch("dropped", at=("main", dropped)).compute() as pg:
        check_use(pg)
        pg.psql("create unlogged sequence numbers")
    verify(f"main@{made}", "main", "made", "dropped")
    # And of a branch's end: what its compute had is gone with it.
    repo.compute("made").destroy()
    with repo.branch("made").compute() as pg:
        check_use(pg)


def test_set_logged_and_back(repo: zenith.Repository, main: zenith.Branch, verify: Verify) -> None:
    with main.compute() as pg:
        postgres.script(pg.dsn, THINGS)
        pg.psql("alter table things set logged")
        pg.psql("alter table logged set unlogged")
        pg.psql("alter sequence numbers set logged")
        there = postgres.received_lsn(pg)
        pg.psql("alter table things set unlogged")
        pg.psql("alter table logged set logged")
        pg.psql("alter sequence numbers set unlogged")
        back = postgres.received_lsn(pg)
        with pg.connect() as connection:
            connection.execute("alter table things set logged")
            connection.execute("drop table bare")
            connection.rollback()
        pg.psql("drop table if exists nothing")
        end = postgres.received_lsn(pg)
        assert pg.psql(COUNTS) == "1000|1000"
    with repo.create_branch("there", at=("main", there)).compute() as pg:
        assert pg.psql("select count(*) from things") == "1000"
        assert pg.psql("set enable_seqscan = off; " + BY_INDEX["gist"]) == "7"
        assert pg.psql("select count(*) from logged") == "0"
        assert int(pg.psql("select nextval('numbers')")) > 50
        pg.psql("insert into logged select generate_series(1, 10)")
        pg.psql("alter table logged set logged")
    for name, lsn in (("back", back), ("end", end)):
        with repo.create_branch(name, at=("main", lsn)).compute() as pg:
            assert pg.psql("select count(*) from logged") == "1000"
            # What it was when it became unlogged is what it is reset to.
            assert pg.psql("select nextval('numbers')") == "51"
            check_use(pg)
    verify(f"main@{there}", "there", "end")
    repo.compute("there").destroy()
    with repo.branch("there").compute() as pg:
        assert pg.psql("select count(*) from logged") == "10"


@pytest.mark.parametrize("commit", [True, False])
def test_made_in_a_transaction_under_way(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify, commit: bool
) -> None:
    with main.compute() as pg:
        with pg.connect() as connection:
            connection.execute("create unlogged table fleeting (n serial primary key)")
            connection.execute("insert into fleeting select from generate_series(1, 100)")
            under_way = postgres.received_lsn(pg)
            connection.commit() if commit else connection.rollback()
        pg.psql("create table other (n int)")
    with repo.create_branch("under_way", at=("main", under_way)).compute() as pg:
        assert pg.psql("select count(*) from pg_class where relname = 'fleeting'") == "0"
        pg.psql("create unlogged table fleeting as select 1 as n")
        pg.restart(immediate=True)
        assert pg.psql("select count(*) from fleeting") == "0"
    verify("main", "under_way")


def test_in_copied_databases(repo: zenith.Repository, main: zenith.Branch, verify: Verify) -> None:
    """A copy by files has not a record of the relations in it."""
    count = "select (select count(*) from fleeting), (select count(*) from kept)"
    with main.compute() as pg:
        pg.psql("create database pattern")
        pg.psql("create unlogged table fleeting (n serial primary key)", dbname="pattern")
        pg.psql("insert into fleeting select from generate_series(1, 500)", dbname="pattern")
        pg.psql("create table kept as select generate_series(1, 500) n", dbname="pattern")
        for strategy in ("file_copy", "wal_log"):
            pg.psql(f"create database by_{strategy} template pattern strategy {strategy}")
            assert pg.psql(count, dbname=f"by_{strategy}") == "500|500"
        made = postgres.received_lsn(pg)
        pg.psql("drop database pattern")
        pg.psql("drop table fleeting", dbname="by_file_copy")
        dropped = postgres.received_lsn(pg)
    with repo.create_branch("made", at=("main", made)).compute() as pg:
        for name in ("pattern", "by_file_copy", "by_wal_log"):
            assert pg.psql(count, dbname=name) == "0|500", name
            pg.psql("insert into fleeting select from generate_series(1, 9)", dbname=name)
            assert pg.psql("set enable_seqscan = off; " + count, dbname=name) == "9|500", name
    with repo.create_branch("dropped", at=("main", dropped)).compute() as pg:
        assert pg.psql(count, dbname="by_wal_log") == "0|500"
        there = "select count(*) from pg_class where relname = 'fleeting'"
        assert pg.psql(there, dbname="by_file_copy") == "0"
    verify(f"main@{made}", "dropped")
