"""Tables that shrink and grow again, and relations that go and come: nothing old may come back."""

from typing import Literal

import zenith
from fixtures import postgres
from fixtures.verify import Verify

TABLE = """
create extension pg_visibility;
create extension pg_freespacemap;
create table t (n int, v text);
alter table t alter v set storage plain;
insert into t select n, repeat('v', 700) from generate_series(1, 1000) n;
create index on t (n);
vacuum (freeze) t;
"""
# Room that the map promises beyond the table's end, and rows that the maps are wrong about.
UNSOUND = """
select (select count(*) from generate_series(pg_relation_size('t') / 8192, 20000) behind
        where pg_freespace('t', behind) > 0),
       (select count(*) from pg_check_visible('t')),
       (select count(*) from pg_check_frozen('t')),
       (select count(*) from pg_visibility_map('t')
        where blkno >= pg_relation_size('t') / 8192 and (all_visible or all_frozen))
"""
FORKS: tuple[Literal["main", "fsm", "vm", "init"], ...] = ("main", "fsm", "vm", "init")
STATE = "select count(*), coalesce(sum(n), 0), pg_relation_size('t') from t"


def test_a_table_cut_and_grown(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    points = []
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLE)
        # Cut where a page of neither map begins, twice, and grown in between.
        for step in (
            "delete from t where n > 333",
            "vacuum (freeze) t",
            "insert into t select n, repeat('w', 700) from generate_series(1001, 1500) n",
            "vacuum (freeze) t",
            "delete from t where n > 77",
            "vacuum t",
            "insert into t select n, 'short' from generate_series(2001, 2100) n",
            "truncate t",
            "insert into t select n, 'new' from generate_series(1, 10) n",
        ):
            pg.psql(step)
            points.append((step, postgres.received_lsn(pg), pg.psql(STATE)))
        node = int(pg.psql("select pg_relation_filenode('t')"))
        sizes = [int(state.split("|")[2]) for _, _, state in points]
        assert sizes[1] < sizes[0], "vacuum has cut nothing off"
        assert sizes[5] < sizes[4], "vacuum has cut nothing off"
        pg.kill()
        pg.start()
        assert pg.psql(STATE) == points[-1][2]
    for number, (step, lsn, state) in enumerate(points):
        branch = repo.create_branch(f"step{number}", at=("main", lsn))
        with branch.compute() as pg:
            assert pg.psql("set enable_indexscan = off; " + STATE) == state, step
            assert pg.psql(UNSOUND) == "0|0|0|0", step
            # Grown over where old pages were.
            pg.psql("insert into t select n, repeat('x', 700) from generate_series(3001, 4000) n")
            count, total, _ = map(int, state.split("|"))
            more = sum(range(3001, 4001))
            assert pg.psql("select count(*), sum(n) from t") == f"{count + 1000}|{total + more}"
            assert pg.psql(UNSOUND) == "0|0|0|0", step
        if number in (3, 5):
            verify(f"step{number}")
        branch.compute().destroy()
    assert main.rel_size(1663, 5, node) == sizes[-1] // 8192
    verify("main")


def test_relations_that_go_and_come(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    nodes = "select relname, pg_relation_filenode(oid) from pg_class where relname ~ '^gone'"
    with main.compute() as pg:
        pg.psql("create table gone1 as select generate_series(1, 5000) n")
        pg.psql("create index gone1_n on gone1 (n)")
        pg.psql("create unlogged table gone2 as select generate_series(1, 5000) n")
        pg.psql("create materialized view gone3 as select n from gone1")
        pg.psql("create table kept (n int)")
        there = postgres.received_lsn(pg)
        files = [int(line.split("|")[1]) for line in pg.psql(nodes).splitlines()]
        assert len(files) == 4
        with pg.connect() as connection:
            # Made and removed by the same transaction, rolled back, and by a subtransaction.
            connection.execute("create table never1 as select generate_series(1, 1000) n")
            connection.execute("drop table never1")
            connection.execute("savepoint a")
            connection.execute("drop table gone1 cascade")
            connection.execute("create table gone1 as select 1 as n")
            connection.execute("rollback to a")
            connection.execute("truncate gone1")
            connection.execute("insert into kept values (1)")
            connection.rollback()
        kept = postgres.received_lsn(pg)
        pg.psql("drop table gone1 cascade; drop table gone2")
        # Many at once, in one record.
        pg.psql(
            "do $$ begin for i in 1 .. 500 loop execute 'create table x' || i || '(n int)';"
            " end loop; end $$"
        )
        pg.psql("do $$ begin for i in 1 .. 500 loop execute 'drop table x' || i; end loop; end $$")
        gone = postgres.received_lsn(pg)
        pg.kill()
        pg.start()
        pg.psql("create table gone1 as select generate_series(1, 3) n")
        end = postgres.received_lsn(pg)
    for file in files:
        # Of an unlogged table only the fork that it is reset to.
        found = [
            any(main.rel_size(1663, 5, file, fork=fork, lsn=lsn) is not None for fork in FORKS)
            for lsn in (there, gone, end)
        ]
        assert found == [True, False, False]
    for name, lsn in (("there", there), ("kept", kept)):
        with repo.create_branch(name, at=("main", lsn)).compute() as pg:
            assert pg.psql("select count(*) from gone1") == "5000"
            assert pg.psql("select count(*) from gone3") == "5000"
            assert pg.psql("select count(*) from gone2") == "0"
            assert pg.psql("select count(*) from kept") == "0"
    with repo.create_branch("end", at=("main", end)).compute() as pg:
        assert pg.psql("select count(*) from gone1") == "3"
        assert pg.psql("select count(*) from pg_class where relname ~ '^(gone[23]|x[0-9])'") == "0"
    verify(f"main@{kept}", "end")
