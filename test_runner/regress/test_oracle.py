"""Every page of every relation, compared with what stock PostgreSQL makes of the same WAL."""

from pathlib import Path

import pytest
from fixtures import oracle, pgbench, postgres
from zenith import Lsn

EVERYTHING = """
create table things as
    select n as id, md5(n::text) as tag, (n % 100) as kind, repeat('x', n % 200) as filler,
           to_tsvector('simple', md5(n::text) || ' ' || md5((n % 100)::text)) as words,
           point(n % 1000, n / 1000) as place, int4range(n, n + 10) as span,
           timestamptz '2026-01-01' + n * interval '1 second' as seen
    from generate_series(1, 20000) as n;
create index on things using btree (id);
create index on things using hash (tag);
create index on things using gin (words);
create index on things using gist (span);
create index on things using spgist (place);
create index on things using brin (seen) with (pages_per_range = 4);
insert into things
    select id + 20000, tag || 'x', kind, filler, words, place, span, seen from things;
update things set tag = tag || 'y', kind = kind + 1 where id % 7 = 0;
delete from things where id % 5 = 0;
vacuum things;
insert into things select id + 60000, tag, kind, filler, words, place, span, seen from things
    where id % 3 = 0;
vacuum (freeze) things;
update things set kind = 0 where id < 1000;

create table wide (id serial primary key, big text);
alter table wide alter column big set storage external;
insert into wide (big) select repeat(md5(n::text), 500) from generate_series(1, 100) n;
update wide set big = big || 'more' where id % 2 = 0;
delete from wide where id % 3 = 0;
vacuum wide;

create table parent (id int primary key);
create table child (id int references parent);
insert into parent select generate_series(1, 500);
insert into child select n % 500 + 1 from generate_series(1, 2000) n;
begin;
select count(*) from (select * from parent for share) s;
savepoint a;
select count(*) from (select * from parent for update) s;
rollback to a;
update parent set id = id where id < 50;
commit;

create table gone as select generate_series(1, 1000);
create unlogged table fleeting as select generate_series(1, 1000);
truncate gone;
insert into gone select generate_series(1, 10);
create table dropped as select generate_series(1, 1000);
drop table dropped;
begin;
create table never as select generate_series(1, 1000);
rollback;
cluster things using things_id_idx;
vacuum full wide;
reindex table parent;
create materialized view seen as select kind, count(*) from things group by kind;
refresh materialized view seen;
analyze;
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("consistency_checking", [False, True])
def test_every_page_of_every_relation(scratch: Path, consistency_checking: bool) -> None:
    repo, base = oracle.init_and_keep(scratch)
    with repo:
        main = repo.branch("main")
        with main.compute() as pg:
            if consistency_checking:
                pg.psql("alter system set wal_consistency_checking = 'all'")
                pg.restart()
            pgbench.initialise(pg.dsn)
            postgres.script(pg.dsn, EVERYTHING)
            pg.psql("create database logged strategy wal_log")
            pg.psql("create database copied strategy file_copy")
            for database in ("logged", "copied"):
                pg.psql("create table t as select generate_series(1, 1000)", dbname=database)
            pg.psql("create database lost")
            pg.psql("drop database lost")
            pgbench.run(pg.dsn, "-c", "2", "-t", "1000")
            middle = postgres.received_lsn(pg)
            relations = oracle.catalog(pg)
            pg.psql("checkpoint")
            pgbench.run(pg.dsn, "-c", "2", "-t", "500")
            pg.psql("drop table wide")
            pg.psql("vacuum pgbench_accounts")
            relations |= oracle.catalog(pg)
        end = main.last_record_lsn
        oracle.make_archive(repo, main, base, scratch / "archive")
        with oracle.page_mask(scratch / "mask", base) as mask:
            for lsn, until in ((end, None), (middle, middle)):
                stock = scratch / f"stock-{int(lsn)}"
                oracle.recover(base, scratch / "archive", stock, until)
                result = oracle.compare(stock, main, lsn, relations, mask)
                print(f"compared {result.pages} pages at {lsn}")
                assert not result.differences, f"{len(result.differences)} of {result.pages} differ"
                assert result.pages > 5000
            # And a comparison that must fail, to know that it can.
            result = oracle.compare(stock, main, end, relations, mask)
            assert len(result.differences) > 100
