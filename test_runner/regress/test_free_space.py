"""Free space maps: room in old tables is used again, and no map leads behind a table's end."""

import os

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.verify import Verify

# Autovacuum would note room of its own. A map over 4069 pages has two pages at the bottom.
TABLES = """
create extension pg_freespacemap;
create table t (n int, v text) with (autovacuum_enabled = off);
create table half (n int, v text) with (autovacuum_enabled = off, fillfactor = 50);
create table pointers () with (autovacuum_enabled = off);
create table long (n int, v text) with (autovacuum_enabled = off, toast.autovacuum_enabled = off);
create table sparse (n int, v text) with (autovacuum_enabled = off);
alter table long alter v set storage external;
alter table sparse alter v set storage plain;
create index on pointers ((1));
insert into t select n, repeat('v', 500) from generate_series(1, 3000) n;
insert into half select n, repeat('v', n) from generate_series(1, 500) n;
insert into pointers select from generate_series(1, 2000);
insert into long select n, repeat('v', 5000) from generate_series(1, 300) n;
create materialized view stored with (autovacuum_enabled = off) as select * from t;
create unique index on stored (n);
delete from t where n % 2 = 0;
delete from half where n % 7 = 0;
delete from pointers where ctid < '(4,0)' or ctid > '(4,100)';
delete from long where n % 3 = 0;
refresh materialized view concurrently stored;
-- Pages of nothing but pointers to rows that are gone.
vacuum (index_cleanup off, truncate off) pointers;
vacuum (disable_page_skipping) t;
vacuum (disable_page_skipping) half;
vacuum (disable_page_skipping) long;
vacuum (disable_page_skipping) stored;
create table files as
    select oid::regclass r from pg_class
    where relname in ('t', 'half', 'pointers', 'long', 'sparse', 'stored')
    union select reltoastrelid::regclass from pg_class where relname = 'long';
"""
MAPS = """
select r::regclass, count(*), sum(avail), sum(avail * (blkno + 1))
from files, pg_freespace(r) group by r order by r
"""
SIZE = "select pg_relation_size('t')"
AGAIN = "insert into t select n, repeat('w', 500) from generate_series(4001, 5400) n"
# What maps say of the hundred pages behind each relation.
BEHIND = """
select coalesce(sum(pg_freespace(r, pg_relation_size(r) / 8192 + n)), 0)
from files, generate_series(0, 99) n
"""
SPARSE_PAGES = 5000


def test_room_is_used_again(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, verify: Verify
) -> None:
    with main.compute() as pg:
        began = postgres.received_lsn(pg)
        postgres.script(pg.dsn, TABLES)
        # As a crash leaves a file that was made longer: pages of zeros, which vacuum offers.
        path = pg.pgdata / pg.psql("select pg_relation_filepath('sparse')")
        pg.psql("insert into sparse values (1, repeat('x', 5000))")
        os.truncate(path, SPARSE_PAGES * 8192)
        pg.psql("insert into sparse values (2, repeat('x', 5000))")
        pg.psql("vacuum (disable_page_skipping) sparse")
        maps, size = pg.psql(MAPS), pg.psql(SIZE)
        assert f"sparse|{SPARSE_PAGES}|" in maps
        full = postgres.received_lsn(pg)
        # Without an image there is a map from here and there, if any.
        with repo.create_branch("control", at=("main", full)).compute() as control:
            assert control.psql(MAPS) != maps
            control.psql(AGAIN)
            assert int(control.psql(SIZE)) > int(size)
            assert control.psql(BEHIND) == "0"
        made = main.compact()["made"]
        assert made[-1]["name"].startswith("image__"), made
        with repo.create_branch("now", at="main").compute() as branch:
            assert branch.psql(MAPS) == maps
            assert branch.psql(BEHIND) == "0"
            branch.psql(AGAIN)
            assert branch.psql(SIZE) == size
            assert branch.psql("select count(*), min(length(v)) from t") == "2900|500"
            branch.kill()
            branch.start()
            branch.psql("insert into pointers select from generate_series(1, 2000)")
            assert branch.psql(BEHIND) == "0"
        # The server itself does not do better.
        pg.psql(AGAIN)
        assert pg.psql(SIZE) == size
        # No image knows of this: the tables are shorter than the maps.
        pg.psql("delete from t where n > 100")
        pg.psql("vacuum t")
        pg.psql("truncate half")
        node = int(pg.psql("select pg_relation_filenode('long')"))
        database = int(pg.psql("select oid from pg_database where datname = current_database()"))
        pg.psql("drop table long; delete from files where r::oid not in (select oid from pg_class)")
        assert int(pg.psql(SIZE)) < int(size) // 2
        cut = postgres.received_lsn(pg)
    with repo.create_branch("cut", at=("main", cut)).compute() as branch:
        assert branch.psql(BEHIND) == "0"
        branch.psql(AGAIN)
        assert branch.psql("select count(*) from t") == "1450"
    assert main.rel_size(1663, database, node, fork="fsm", lsn=full) == 3
    assert main.rel_size(1663, database, node, fork="fsm", lsn=cut) is None
    verify("main")
    found = repo.verify_records(("main", cut), since=began)
    assert (found["different"], found["differences"]) == (0, []), found
