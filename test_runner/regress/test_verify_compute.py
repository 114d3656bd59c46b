"""A compute's data directory, as its server left it, against what the page server has."""

import contextlib
import os
import shutil
import signal
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zenith
from fixtures import pgbench, postgres, processes
from fixtures.cli import DIFFERENT, Cli

WORK = """
create table things as
    select n as id, md5(n::text) as tag, point(n % 100, n / 100) as place
    from generate_series(1, 3000) as n;
create index on things using btree (id);
create index on things using hash (tag);
create index on things using spgist (place);
delete from things where id % 3 = 0;
vacuum things;
insert into things select id + 5000, tag, place from things;
create unlogged table fleeting as select generate_series(1, 1000);
create sequence numbers;
select nextval('numbers') from generate_series(1, 50);
begin;
create table half as select generate_series(1, 1000);
prepare transaction 'half';
create database logged strategy wal_log;
create database copied strategy file_copy;
begin;
select count(*) from (select * from things where id < 50 for share) s;
savepoint a;
update things set tag = 'x' where id < 20;
rollback to a;
commit;
"""


def told(found: Any) -> set[tuple[str, str | None]]:
    """What differs, briefly."""
    return {(d["kind"], d["relation"] or d["name"]) for d in found["differences"]}


@pytest.mark.timeout(300)
def test_as_its_server_left_it(repo: zenith.Repository, cli: Cli) -> None:
    main = repo.branch("main")
    pg = main.compute()
    with pg:
        pgbench.initialise(pg.dsn)
        postgres.script(pg.dsn, WORK)
        pgbench.run(pg.dsn, "-c", "2", "-t", "100")
        assert "runs; stop it first" in cli.refused("verify", "--compute", "main")
    found = pg.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    assert found["compute"] == "main"
    assert found["pages"]["compared"] > 2000
    assert found["wal_bytes"] > 10_000_000
    permitted = found["pages"]["permitted"]
    assert permitted["settings"] >= 5
    assert permitted["sequence_values_ahead"] >= 1
    assert permitted["spgist_room"] == 1
    assert {"row_hints", "command_id", "unused_space"} <= set(found["pages"]["masked"])

    # After a crash, with everything that is known made anew from the disk.
    with pg:
        pg.psql("insert into things select * from things")
        pg.kill()
        pg.start()
        pg.psql("vacuum things")
    assert pg.verify()["different"] == 0
    pg.destroy()
    # One made anew has hardly any page of its own.
    with main.compute() as pg:
        pg.psql("select nextval('numbers')")
    found = pg.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    assert found["pages"]["absent"] > found["pages"]["compared"]


def test_what_is_wrong_is_told(
    repo: zenith.Repository, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = repo.branch("main")
    pg = main.compute()
    with pg:
        pg.psql("create table t as select generate_series(1, 400) as a")
        pg.psql("vacuum (freeze) t")
        pg.psql("delete from t where a = 1")
        table = pg.psql("select pg_relation_filepath('t')").strip()
        database = table.split("/")[1]
        node = table.split("/")[2]
        rel = f"1663/{database}/{node}"
    assert pg.verify()["different"] == 0

    def with_fault(fault: str) -> Any:
        monkeypatch.setenv("ZENITH_DAMAGE", fault)
        repo.restart()
        return pg.verify()

    for fault, expected in (
        # A row's data.
        (f"flip relation {rel} 0 8184 1", {("page", rel)}),
        # `PD_ALL_VISIBLE`, and the mark of a locker: PostgreSQL's mask hides both.
        (f"flip relation {rel} 0 10 4", {("page", rel)}),
        (f"flip relation {rel} 0 8180 128", {("page", rel)}),
        # A commit; and room in page 100, which the table has not.
        (
            f"flip pg_xact/0000 0 40 1;flip relation {rel}_fsm 2 4223 255",
            {("file", "pg_xact/0000"), ("page", rel)},
        ),
        ("short pg_xact/0000", {("file", "pg_xact/0000")}),
        # And a page whose header makes no sense, on which no mask can be laid.
        (f"short relation {rel};flip relation {rel} 0 17 255", {("size", rel), ("page", rel)}),
    ):
        found = with_fault(fault)
        assert told(found) == expected, (fault, found)
        assert found["different"] == len(expected)
    # The maps of catalogs are wrong then, too.
    found = with_fault("keep-visibility")
    assert ("page", rel) in told(found)
    assert {d["fork"] for d in found["differences"]} == {"vm"}
    monkeypatch.delenv("ZENITH_DAMAGE")
    repo.restart()

    def changed(path: Path, at: int) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    stray = pg.pgdata / "global" / "stray"
    stray.touch()
    done = cli.run("verify", "--compute", "main", "-o", "json")
    assert done.returncode == DIFFERENT, done.stderr
    assert told(pg.verify()) == {("file", "global/stray")}
    stray.unlink()
    for name, wrong in (
        (f"base/{database}/pg_filenode.map", ("file", f"base/{database}/pg_filenode.map")),
        (f"base/{database}/PG_VERSION", ("file", f"base/{database}/PG_VERSION")),
    ):
        changed(pg.pgdata / name, 2)
        assert told(pg.verify()) == {wrong}
        changed(pg.pgdata / name, 2)
    made_at = begun_at(pg)
    segment = pg.pgdata / "pg_wal" / f"{1:08X}{0:08X}{made_at // (16 << 20):08X}"
    at = made_at % (16 << 20) + 100
    changed(segment, at)
    assert {kind for kind, _ in told(pg.verify())} == {"wal"}
    changed(segment, at)
    assert pg.verify()["different"] == 0


TABLESPACE = """
create table in_it (id int primary key using index tablespace there, v text) tablespace there;
insert into in_it select n, repeat(md5(n::text), 20) from generate_series(1, 3000) n;
create index on in_it using gin (to_tsvector('simple', v)) tablespace there;
create unlogged table fleeting tablespace there as select generate_series(1, 1000);
create table moved as select generate_series(1, 1000) as n;
alter table moved set tablespace there;
create database logged tablespace there strategy wal_log;
\\c logged
create table inside as select generate_series(1, 1000) as n;
create table outside tablespace pg_default as select generate_series(1, 1000) as n;
\\c postgres
create database copied template logged tablespace there strategy file_copy;
vacuum in_it;
"""


def test_with_tablespaces(fresh: Path, main: zenith.Branch) -> None:
    """Behind a link on the compute that made it, in place on the one that is made anew."""
    location = fresh / "there"
    location.mkdir()
    postgres.give_away(location)
    pg = main.compute()
    with pg:
        pg.psql(f"create tablespace there location '{location}'")
        postgres.script(pg.dsn, TABLESPACE)
        table = pg.psql("select pg_relation_filepath('in_it')")
    found = pg.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    # What is in it is looked at.
    file = pg.pgdata / table
    assert file.resolve().is_relative_to(location)
    spc, _, db, node = table.removeprefix("pg_tblspc/").split("/")
    stray = location / "stray"
    stray.touch()
    assert told(pg.verify()) == {("file", f"pg_tblspc/{spc}/stray")}
    stray.unlink()
    with file.open("r+b") as data:
        data.seek(8190)
        data.write(b"!!")
    assert told(pg.verify()) == {("page", f"{spc}/{db}/{node}")}
    pg.destroy()
    pg = main.compute()
    with pg:
        pg.psql("update in_it set v = v || 'x' where id % 100 = 0")
        pg.psql("insert into inside values (0)", dbname="copied")
        pg.kill()
        pg.start()
        pg.psql("alter table moved set tablespace pg_default")
        pg.psql("drop database logged")
    found = pg.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    assert found["pages"]["absent"] > 0


def test_replaced_and_advanced(repo: zenith.Repository, main: zenith.Branch, cli: Cli) -> None:
    """One that took over from another, and reads at an LSN that was moved while it ran; and the
    one it took over from.
    """
    pg = main.compute(durability="pageserver")
    with pg:
        pgbench.initialise(pg.dsn)
        pgbench.run(pg.dsn, "-c", "2", "-t", "50")
        made_at = pg.base_lsn
        assert pg.advance_base() > made_at
        pg.psql("create table by_first as select generate_series(1, 500) as n")
    folder = repo.path / "computes" / "main"
    folder.rename(repo.path / "lost")
    cli("pg", "start", "main", "--durability", "pageserver")
    new = repo.compute("main")
    took_over_at = new.base_lsn
    assert took_over_at > made_at
    with new:
        # Pages come while it moves: of what was there when it was made, and of what came since.
        with pgbench.Background(new.dsn):
            for table in ("pgbench_accounts", "by_first", "pg_proc"):
                new.psql(f"select count(*) from {table}")
                durable = postgres.received_lsn(new)
                assert new.advance_base(durable) == durable
        new.kill()
        new.start()
        new.psql("delete from by_first where n > 250")
        new.psql("vacuum by_first")
        assert new.advance_base() > took_over_at
        pgbench.check_sums(new.psql(pgbench.SUMS))
    found = new.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    assert found["pages"]["absent"] > 0
    assert found["pages"]["compared"] > 500

    # The first comes back. It is not wrong, but there is nothing to compare it with.
    (repo.path / "lost").rename(repo.path / "computes" / "old")
    refusal = cli.refused("verify", "--compute", "old")
    assert f'compute "main" has taken over at {took_over_at}' in refusal
    assert new.verify()["different"] == 0


def begun_at(pg: zenith.Compute) -> int:
    """Where a compute's own WAL begins. The LSN at which it reads pages has moved on since."""
    text = (pg.pgdata.parent / "zenith-compute.toml").read_text()
    return int(zenith.Lsn(tomllib.loads(text)["base_lsn"]))


# Pages and records are written when their buffers are needed, and not by the way.
ORPHANS_CONF = """
autovacuum = off
bgwriter_lru_maxpages = 0
wal_buffers = 1MB
"""
LOCATOR = """
select concat_ws('/', case when c.relisshared then 1664 else 1663 end,
                 case when c.relisshared then 0 else d.oid end, pg_relation_filenode(c.oid))
from pg_class c, pg_database d where c.oid = '{}'::regclass and datname = current_database()
"""


def leave_orphans(pg: zenith.Compute) -> dict[str, str]:
    """Kills a server with open transactions, whose last records are in its memory only.

    Gives the files, by what they are, that no catalog will ever name.
    """
    pg.psql("create table things as select md5(n::text) as tag from generate_series(1, 50000) n")
    connections = [pg.connect() for _ in range(3)]
    made, built, gone = connections
    files = {}

    def path(name: str, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute(f"select pg_relation_filepath('{name}')").fetchone()
        assert row
        files[name] = row[0]

    gone.execute("create table gone as select generate_series(1, 1000)")
    path("gone", gone)
    postgres.received_lsn(pg)
    # So that the next start does not make it again.
    pg.psql("checkpoint")
    writer = pg.psql("select pid from pg_stat_activity where backend_type = 'walwriter'")
    os.kill(int(writer), signal.SIGSTOP)
    # Writes its pages itself, but of their records only what the WAL buffers cannot hold.
    built.execute("create index built on things (tag)")
    path("built", built)
    made.execute("create unlogged table fleeting as select generate_series(1, 1000)")
    made.execute("create table logged as select generate_series(1, 1000)")
    path("fleeting", made)
    path("logged", made)
    # Takes the file away, and nobody else ever hears of that.
    gone.rollback()
    assert pg.pid is not None
    processes.kill_server(pg.pid)
    pg.kill()
    for connection in connections:
        connection.close()
    return files


def test_only_what_nothing_names_may_be_on_one_side(
    repo: zenith.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg = repo.branch("main").compute()
    with (pg.pgdata / "postgresql.conf").open("a") as file:
        file.write(ORPHANS_CONF)
    with pg:
        orphans = leave_orphans(pg)
        pg.start()
        for name in ("kept", "dropped_later"):
            pg.psql(f"create table {name} as select 1 as a")
        attributes = pg.psql(LOCATOR.format("pg_attribute"))
        named = {
            pg.psql(LOCATOR.format(name))
            # The numbers of the last two are in maps.
            for name in ("kept", "dropped_later", "pg_toast.pg_toast_1255", "pg_shdescription")
        }
        with contextlib.closing(pg.connect(autocommit=True)) as later:
            later.execute("begin")
            later.execute("create table made_later as select 1 as a")
            later.execute("drop table dropped_later")
            row = later.execute(LOCATOR.format("made_later")).fetchone()
            assert row
            named.add(row[0])
            later.execute("prepare transaction 'later'")
    on_disk = {name for name, path in orphans.items() if (pg.pgdata / path).exists()}
    assert on_disk >= {"built", "fleeting", "logged"}
    # As a crash leaves the folder of a database or a tablespace that is being made, and a session's
    # a temporary table.
    shutil.copytree(pg.pgdata / "base" / "1", pg.pgdata / "base" / "99999")
    (pg.pgdata / "pg_tblspc" / "99998").mkdir()
    (pg.pgdata / "base" / "1" / "t3_99997").touch()
    postgres.give_away(pg.pgdata)

    found = pg.verify()
    assert (found["different"], found["differences"]) == (0, []), found
    tables = [file for file in (pg.pgdata / "base" / "99999").iterdir() if file.name.isdigit()]
    # Those, the database's two files, the tablespace, the temporary table; and the four relations.
    assert found["pages"]["permitted"]["orphaned_file"] >= len(tables) + 4 + len(orphans)

    # The same with relations and files missing that something does name.
    forgotten = ";".join(f"forget relation {locator}" for locator in named)
    monkeypatch.setenv("ZENITH_DAMAGE", forgotten)
    repo.restart()
    version = pg.pgdata / "base" / "1" / "PG_VERSION"
    version.unlink()
    again = pg.verify()
    differences = {("relation", locator) for locator in named}
    differences |= {("file", "base/1/PG_VERSION")}
    assert told(again) == differences, again
    assert again["different"] == len(differences)
    orphaned = [f["pages"]["permitted"]["orphaned_file"] for f in (found, again)]
    assert orphaned[0] == orphaned[1]

    # A database that cannot be asked: everything is a difference but the temporary table.
    monkeypatch.setenv("ZENITH_DAMAGE", f"forget relation {attributes}")
    repo.restart()
    unanswered = pg.verify()
    assert unanswered["different"] == orphaned[0] - 1 + 2, unanswered
    assert all("is not known" in found["detail"] for found in unanswered["differences"])
