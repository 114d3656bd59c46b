"""Base backups of a stretch of the log, as PostgreSQL's own tools and servers take them.

What is in them at every single record is compared in ``pageserver/tests/ingest_oracle``.
"""

import io
import random
import re
import shutil
import tarfile
from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures import postgres
from fixtures.verify import Verify
from zenith import Lsn

# Something of everything: maps, multixacts, databases, what is prepared, switches, long records.
STRETCH = """
create table t (n int primary key, v text);
insert into t values (1, 'one'), (2, 'two');
begin; select 1 from t for key share; savepoint a; update t set v = 'x' where n = 1; commit;
begin; insert into t values (3, 'three'); prepare transaction 'p';
create unlogged table u (n int);
select pg_switch_wal();
create sequence s;
select nextval('s');
checkpoint;
vacuum (freeze) t;
commit prepared 'p';
select pg_logical_emit_message(false, 'x', repeat('x', 20000));
truncate t;
insert into t values (4, 'four');
drop table u;
vacuum full pg_am;
create database d strategy file_copy;
insert into t values (5, 'five');
"""
ENDS = "select end_lsn, xid from pg_get_wal_records_info('{}', '{}') order by start_lsn"


def base_backup(repo: zenith.Repository, lsn: Lsn | str, folder: Path) -> list[str]:
    """Unpacks one, without the relations; gives the list of those."""
    with (
        psycopg.connect(repo.connstr, autocommit=True) as connection,
        connection.cursor().copy(f"basebackup main {lsn}") as copy,
    ):
        data = b"".join(bytes(piece) for piece in copy)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="fully_trusted")
    folder.chmod(0o700)
    postgres.give_away(folder)
    return (folder / "zenith.relations").read_text().splitlines()


def field(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}: +(\S.*)$", text, re.MULTILINE)
    assert found, (name, text)
    return found[1]


@pytest.mark.timeout(300)
def test_at_records(
    repo: zenith.Repository, main: zenith.Branch, scratch: Path, verify: Verify
) -> None:
    with main.compute() as pg:
        pg.psql("create extension pg_walinspect")
        # The stretch has a checkpoint, and is looked through at its end.
        pg.psql("alter system set wal_keep_size = '1GB'")
        pg.psql("select pg_reload_conf()")
        start = postgres.insert_lsn(pg)
        postgres.script(pg.dsn, STRETCH)
        pg.psql("select pg_logical_emit_message(true, '', '')")
        end = postgres.received_lsn(pg)
        records = [line.split("|") for line in pg.psql(ENDS.format(start, end)).splitlines()]
    assert len(records) > 200
    chance = random.Random(0)
    # Most records are of the catalogs' indexes; the first and the last ones stay.
    sample = sorted(chance.sample(range(len(records)), 15))
    newest, before = 0, 0
    for number, (lsn, xid) in enumerate(records):
        newest = max(newest, int(xid))
        if number not in sample:
            continue
        pgdata = scratch / "backup"
        pgdata.mkdir()
        relations = base_backup(repo, lsn, pgdata)
        assert len(relations) > 200
        shown = postgres.run("pg_controldata", "-D", pgdata).stdout
        assert field(shown, "Database cluster state") == "shut down", lsn
        # The checkpoint is where the next record was: behind a page's header if it begins one.
        base = int(Lsn(field(shown, "Latest checkpoint location")))
        assert base - int(Lsn(lsn)) in (0, 24, 40), (lsn, shown)
        assert field(shown, "Latest checkpoint's REDO location") == str(Lsn(base))
        next_xid = int(field(shown, "Latest checkpoint's NextXID").split(":")[1])
        assert max(newest + 1, before) <= next_xid <= int(records[-1][1] or 0) + 100_000
        before = next_xid
        segment = field(shown, "Latest checkpoint's REDO WAL file")
        dumped = postgres.run(
            "pg_waldump", "-p", pgdata / "pg_wal", "-s", str(Lsn(base)), "-n", "1", segment
        ).stdout
        assert "CHECKPOINT_SHUTDOWN" in dumped, lsn
        assert f"redo {Lsn(base)};" in dumped
        postgres.run("pg_resetwal", "-n", "-D", pgdata)
        shutil.rmtree(pgdata)
    # Some are started.
    for number in chance.sample(range(len(records)), 4):
        lsn = records[number][0]
        with main.compute(f"at{number}", lsn=lsn) as pg:
            assert pg.psql("select count(*) from pg_class") > "0", lsn
            pg.psql("create table mine as select generate_series(1, 100) n")
            pg.restart(immediate=True)
            assert pg.psql("select count(*) from mine") == "100", lsn
    # And here is what a stock server makes of the log up to there.
    verify(*(f"main@{records[number][0]}" for number in sample[::6]))


def test_before_the_beginning(repo: zenith.Repository, main: zenith.Branch, scratch: Path) -> None:
    (scratch / "backup").mkdir()
    first = main.last_record_lsn
    base_backup(repo, first, scratch / "backup")
    for lsn in (Lsn(int(first) - 8), Lsn(int(first) - 200), "0/28", "0/0"):
        with pytest.raises(psycopg.Error, match="before the beginning"):
            base_backup(repo, lsn, scratch / "never")
    dev = repo.create_branch("dev")
    assert dev.ancestor is not None
