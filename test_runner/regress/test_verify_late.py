"""``zenith verify`` where WAL was removed: a stock server begins where the WAL does that is kept.

What it begins with is what the page server has there, in the midst of everything: transactions that
run or are prepared, with subtransactions; databases, tablespaces and relations about to go.
"""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zenith
from fixtures import initdb, postgres
from fixtures.cli import DIFFERENT, DONE, Cli
from fixtures.subtransactions import INSERT_IN_SUBTRANSACTIONS
from fixtures.verify import verified

# Small segments, so that little WAL makes many.
SMALL_SEGMENTS = '"$bin/pg_resetwal" --wal-segsize=1 -D "$pgdata"\n'
# What is removed is what layers have, but for the last 2 MB.
SETTINGS = "[layers]\nstretch_bytes = 300000\n[wal]\nkeep = 2000000\n"

BEFORE = f"""
create table rows as select n as id, md5(n::text) as tag from generate_series(1, 3000) n;
alter table rows add primary key (id);
create index on rows using gin (to_tsvector('simple', tag));
create table parent (id int primary key);
create table child (id int references parent);
insert into parent select generate_series(1, 300);
create table t (n int primary key, how text);
{INSERT_IN_SUBTRANSACTIONS}
create table shrinking with (autovacuum_enabled = off) as select generate_series(1, 500) n;
create table emptied as select generate_series(1, 5000) n;
create table dropped as select generate_series(1, 5000) n;
create unlogged table fleeting as select generate_series(1, 1000) n;
create unlogged table gone as select generate_series(1, 1000) n;
create sequence numbers;
create database lost strategy file_copy;
create tablespace kept location '{{0}}';
create tablespace leaving location '{{1}}';
create table outside (n int) tablespace kept;
insert into outside select generate_series(1, 1000);
create table moved (n int) tablespace leaving;
insert into moved select generate_series(1, 1000);
select pg_replication_origin_create('elsewhere');
begin;
insert into t values (1, 'prepared');
savepoint a;
insert into t values (2, 'prepared');
select insert_in_subtransactions(100, 250, 'prepared');
create table born as select generate_series(1, 500) n;
prepare transaction 'committed';
begin;
insert into t values (3, 'prepared');
select count(*) from (select * from parent where id > 250 for share) s;
prepare transaction 'undecided';
vacuum;
begin;
insert into shrinking select generate_series(1, 20000);
rollback;
"""

# Enough for what is before to be removed.
FILLER = """
create table filler as select n, repeat('x', 1000) from generate_series(1, 5000) n;
"""

AFTER = """
commit prepared 'committed';
update rows set tag = tag || 'y' where id < 200;
delete from rows where id between 300 and 500;
insert into child select n % 300 + 1 from generate_series(1, 600) n;
vacuum (truncate) shrinking;
truncate emptied;
drop table dropped;
drop table gone;
insert into fleeting values (1);
select nextval('numbers') from generate_series(1, 40);
drop database lost;
create database copied template template1 strategy file_copy;
insert into outside values (0);
alter table moved set tablespace kept;
drop tablespace leaving;
begin;
select pg_replication_origin_session_setup('elsewhere');
select pg_replication_origin_xact_setup('0/7777', now());
insert into t values (5, 'replicated');
commit;
select pg_replication_origin_session_reset();
"""


class History:
    """A history of which the beginning is gone, and points of it."""

    def __init__(self, folder: Path) -> None:
        self.repo = initdb.init_with(folder, SMALL_SEGMENTS)
        with (self.repo.path / "zenith.toml").open("a") as config:
            config.write(SETTINGS)
        self.places = [folder / name for name in ("kept", "left")]
        for place in self.places:
            place.mkdir()
            postgres.give_away(place)

    def write(self, pg: zenith.Compute) -> None:
        """Writes it, on the branch ``main``."""
        pg.psql("alter system set track_commit_timestamp = on")
        pg.restart()
        postgres.script(pg.dsn, BEFORE.format(*self.places))
        with psycopg.connect(pg.dsn) as running, psycopg.connect(pg.dsn) as sharing:
            running.execute("insert into t values (4, 'running')")
            running.execute("savepoint a")
            running.execute("insert into t select n, 'running' from generate_series(300, 400) n")
            # Two lockers of a row are a multixact.
            for session in (running, sharing):
                session.execute("select * from parent where id < 100 for key share")
            self.before = postgres.received_lsn(pg)
            postgres.script(pg.dsn, FILLER)
            pg.psql("checkpoint")
            self.between = postgres.received_lsn(pg)
            postgres.script(pg.dsn, AFTER)
            sharing.execute("select * from parent where id < 50 for share")
            running.execute("update parent set id = id where id between 200 and 240")
            running.commit()
            self.middle = postgres.received_lsn(pg)
            sharing.rollback()
        pg.psql("insert into rows select n, 'late' from generate_series(5000, 5100) n")
        pg.psql("vacuum rows")
        self.end = postgres.received_lsn(pg)
        self.repo.branch("main").checkpoint()

    def numbers(self, pg: zenith.Compute, relation: str) -> str:
        """A relation's tablespace, database and file."""
        return pg.psql(
            f"select 1663 || '/' || oid || '/' || pg_relation_filenode('{relation}') "
            "from pg_database where datname = 'postgres'"
        )


def check(found: Any, code: int, low: zenith.Lsn, high: zenith.Lsn) -> None:
    """Expects no difference, and that recovery began between these."""
    assert (code, found["different"], found["differences"]) == (DONE, 0, []), found
    assert low <= zenith.Lsn(found["since"]) <= high, (found["since"], low, high)
    assert found["pages"]["compared"] > 2000
    assert set(found["pages"]["masked"]) <= {"lsn", "checksum"}, found


@pytest.mark.timeout(300)
def test_it_begins_where_the_wal_does(
    scratch: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(scratch)
    with history.repo as repo:
        main = repo.branch("main")
        first = main.last_record_lsn
        with main.compute() as pg:
            history.write(pg)
            rows, index = (history.numbers(pg, name) for name in ("rows", "rows_pkey"))
            at_end = pg.psql("select count(*), sum(id) from rows")
        before, between, middle = history.before, history.between, history.middle
        # All of it, with what servers say that run there.
        done = cli.run("verify", "--deep", "main", "-o", "json")
        check(json.loads(done.stdout), done.returncode, before, between)
        # A branch with WAL of its own and the end of its parent's, and one that stands on it.
        dev = repo.create_branch("dev", at=("main", middle))
        with dev.compute() as pg:
            pg.psql("rollback prepared 'undecided'")
            pg.psql("delete from rows where id % 2 = 0")
            pg.psql("vacuum rows")
        repo.create_branch("later", at="dev")
        code, found = verified(cli, "later")
        check(found, code, before, middle)
        # Detached, a branch has no WAL but its own. No checkpoint of a server is at its beginning.
        cli("branch", "--detach", "dev", "--wait")
        code, found = verified(cli, "later")
        check(found, code, middle, middle)
        # Not even where the first root has one.
        zero = repo.create_branch("zero", at=("main", first))
        cli("branch", "--detach", "zero", "--wait")
        with zero.compute() as pg:
            pg.psql("create table t as select generate_series(1, 1000)")
        code, found = verified(cli, "zero")
        check(found, code, first, first)
        # One whose parent's WAL is gone altogether begins with its own.
        old = repo.create_branch("old", at=("main", before))
        line = cli.refused("verify", "old")
        assert f"{before} cannot be verified" in line
        assert "[wal] keep" in line
        with old.compute() as pg:
            assert pg.psql("select count(*) from dropped") == "5000"
            pg.psql("commit prepared 'undecided'")
            pg.psql("drop database lost")
        code, found = verified(cli, "old")
        check(found, code, before, before)

        # What is too old is one line that says from where on.
        line = cli.refused("verify", f"main@{before}")
        kept = zenith.Lsn(line.split("begins at ")[1].split()[0])
        assert before < kept <= between, line
        assert not (repo.path / "verify").exists()

        # The other checks.
        for point in ("main", "old"):
            found = repo.verify_records(point)
            assert (found["different"], found["differences"]) == (0, []), found
            assert found["records"] > 10
        assert repo.verify_records(("main", between), since=before)["different"] == 0
        # What never needed WAL.
        pages = "select pg_relation_size('shrinking') / 8192"
        shrinking = [cli("psql", p, "-XAtc", pages).strip() for p in (f"main@{before}", "main")]
        assert shrinking == ["91", "3"]
        assert cli("psql", "main", "-XAtc", "select count(*), sum(id) from rows").strip() == at_end

        # A fault is found if it came about where the stock server knows better.
        faults = {
            f"flip relation {rows} 0 8180 1": ("page", rows, "main"),
            f"short relation {index}": ("size", index, "main"),
            f"forget relation {rows}_vm": ("relation", rows, "vm"),
            "flip pg_xact/0000 0 200 1": ("file", None, None),
        }
        monkeypatch.setenv("ZENITH_DAMAGE", ";".join(f"since {middle} {f}" for f in faults))
        repo.restart()
        code, found = verified(cli, "main")
        told = [(d["kind"], d["relation"], d["fork"]) for d in found["differences"]]
        assert (code, sorted(told, key=str)) == (DIFFERENT, sorted(faults.values(), key=str)), found
