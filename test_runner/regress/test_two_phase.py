"""Prepared transactions: over restarts, crashes, branches and new computes."""

import zenith
from fixtures import postgres
from fixtures.subtransactions import INSERT_IN_SUBTRANSACTIONS
from fixtures.verify import Verify

BEFORE = f"""
create table t (n int primary key, how text);
insert into t select n, 'old' from generate_series(1, 100) n;
create table doomed as select generate_series(1, 1000) n;
create table altered as select generate_series(1, 1000) n;
{INSERT_IN_SUBTRANSACTIONS}
"""

# One with everything that a commit can carry: subtransactions, one of them rolled back, a relation
# dropped and one made, invalidation messages, statistics, strong locks.
RICH = """
begin;
insert into t values (1001, 'rich');
savepoint a;
insert into t values (1002, 'rich');
savepoint b;
insert into t values (1003, 'undone');
rollback to b;
drop table doomed;
alter table altered add column extra int default 7;
create table born as select generate_series(1, 500) n;
create unlogged table fleeting as select generate_series(1, 500) n;
prepare transaction 'rich';
"""

# So many subtransactions that shared memory cannot hold them: their parent is in pg_subtrans.
WIDE = """
begin;
select insert_in_subtransactions(2000, 2299, 'wide');
update t set how = 'wide' where n = 1;
prepare transaction 'wide';
"""

PREPARED = """
select gid, transaction, owner, database, prepared from pg_prepared_xacts order by gid
"""
LOCKS = """
select locktype, coalesce(relation::regclass::text, transactionid::text), mode
from pg_locks where pid is null and (relation is null or relation >= 16384) order by 1, 2, 3
"""
COUNTS = "select how, count(*) from t group by how order by how"
OLD = "old|100"
TABLES = """
select string_agg(relname, ',' order by relname) from pg_class
where relkind = 'r' and oid >= 16384
"""


def test_decided_differently_on_a_branch(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute() as pg:
        postgres.script(pg.dsn, BEFORE + RICH + WIDE)
        between = postgres.received_lsn(pg)
        prepared, locks = pg.psql(PREPARED), pg.psql(LOCKS)
        assert len(prepared.splitlines()) == 2
        assert "doomed|AccessExclusiveLock" in locks
        pg.restart(immediate=True)
        assert (pg.psql(PREPARED), pg.psql(LOCKS)) == (prepared, locks)
        pg.psql("rollback prepared 'rich'")
        pg.psql("commit prepared 'wide'")
        end = postgres.received_lsn(pg)

    dev = repo.create_branch("dev", at=("main", between))
    with dev.compute() as pg:
        assert (pg.psql(PREPARED), pg.psql(LOCKS)) == (prepared, locks)
        # Running ones are looked up: in shared memory, and in pg_subtrans.
        assert pg.psql(COUNTS) == OLD
        pg.kill()
        pg.start()
        assert (pg.psql(PREPARED), pg.psql(LOCKS), pg.psql(COUNTS)) == (prepared, locks, OLD)
        pg.psql("commit prepared 'rich'")
        pg.psql("rollback prepared 'wide'")
        assert pg.psql(COUNTS) == f"{OLD}\nrich|2"
    verify(f"main@{between}", f"main@{end}", "dev")

    for branch in (main, dev):
        branch.compute().destroy()
    with main.compute() as pg:
        assert pg.psql(PREPARED) == ""
        assert pg.psql(COUNTS) == "old|99\nwide|301"
        assert pg.psql(TABLES) == "altered,doomed,t"
        assert pg.psql("select count(*) from doomed") == "1000"
        assert pg.psql("select * from altered where n = 5") == "5"
    with dev.compute() as pg:
        assert pg.psql(PREPARED) == ""
        assert pg.psql(COUNTS) == f"{OLD}\nrich|2"
        assert pg.psql(TABLES) == "altered,born,fleeting,t"
        assert pg.psql("select count(*) from born") == "500"
        # Not logged: empty on another machine.
        assert pg.psql("select count(*) from fleeting") == "0"
        assert pg.psql("select * from altered where n = 5") == "5|7"


def test_decided_by_a_compute_that_did_not_prepare(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute(durability="pageserver") as pg:
        pg.psql("create database other")
        postgres.script(pg.dsn, BEFORE + RICH + WIDE)
        with pg.connect(dbname="other", autocommit=True) as elsewhere:
            elsewhere.execute("begin")
            elsewhere.execute("create table there as select generate_series(1, 10) n")
            elsewhere.execute("prepare transaction 'elsewhere'")
        prepared = pg.psql(PREPARED)
        pg.kill()
    for _ in range(2):
        main.compute().destroy()
        with main.compute(durability="pageserver") as pg:
            # Ids go on behind all subtransactions.
            pg.psql("insert into t values ((select max(n) + 1 from t), 'new')")
            assert pg.psql(PREPARED) == prepared
            pg.psql("checkpoint")
    with main.compute() as pg:
        pg.psql("commit prepared 'rich'")
        pg.psql("commit prepared 'wide'")
        pg.psql("commit prepared 'elsewhere'", dbname="other")
    main.compute().destroy()
    verify("main")
    with main.compute() as pg:
        assert pg.psql(COUNTS) == "new|2\nold|99\nrich|2\nwide|301"
        assert pg.psql("select count(*) from there", dbname="other") == "10"
        assert pg.psql(TABLES) == "altered,born,fleeting,t"


def test_prepared_where_a_segment_begins(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        with pg.connect() as connection:
            connection.execute("insert into t select generate_series(1, 10)")
            pg.psql("select pg_switch_wal()")
            start = postgres.insert_lsn(pg)
            connection.execute("prepare transaction 'first'")
        assert int(start) % (1 << 24) in (0, 40)
        end = postgres.received_lsn(pg)
        # The state is read from the WAL where the server wrote it, and moved to a file.
        pg.psql("checkpoint")
    with repo.create_branch("at_start", at=("main", start)).compute() as pg:
        assert pg.psql(PREPARED) == ""
        # The first record that this compute writes into its own first segment, or nearly so.
        pg.psql("begin; insert into t values (1); prepare transaction 'own'")
        pg.psql("checkpoint")
        pg.restart(immediate=True)
        pg.psql("commit prepared 'own'")
        assert pg.psql("select count(*) from t") == "1"
    with repo.create_branch("behind", at=("main", end)).compute() as pg:
        pg.psql("commit prepared 'first'")
        assert pg.psql("select count(*) from t") == "10"
    verify("main", "at_start", "behind")
