"""``zenith verify --deep``: what PostgreSQL's own tools say when all is well, and when not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zenith
from fixtures import initdb, postgres
from fixtures.cli import DIFFERENT, DONE, Cli
from fixtures.verify import verified
from zenith.verification import Verification

WORK = """
create role reader;
create table things as
    select n as id, md5(n::text) as tag, int4range(n, n + 10) as span
    from generate_series(1, 3000) as n;
alter table things add primary key (id);
create index on things (tag);
create index on things using hash (tag);
create index on things using gist (span);
grant select on things to reader;
update things set tag = tag || 'x' where id % 7 = 0;
delete from things where id % 3 = 0;
vacuum things;
create table wide as
    select n as id,
           (select string_agg(md5((n * m)::text), '') from generate_series(1, 400) as m) as t
    from generate_series(1, 40) as n;
alter table wide alter t set storage external;
update wide set t = t || t where id % 2 = 0;
create table parts (a int primary key, b timestamptz) partition by range (a);
create table low partition of parts for values from (0) to (100);
create table high partition of parts for values from (100) to (200);
insert into parts
    select n, 'epoch'::timestamptz + n * '1 day'::interval from generate_series(0, 199) as n;
create unlogged table fleeting as select generate_series(1, 100);
create sequence numbers;
select nextval('numbers') from generate_series(1, 50);
select lo_from_bytea(4242, decode(repeat('ab', 5000), 'hex'));
comment on large object 4242 is 'large';
create materialized view summary as select count(*) from things;
create view plain as select id from things where id < 10;
create tablespace other location '{elsewhere}';
create table outside (a int primary key) tablespace other;
insert into outside select generate_series(1, 100);
begin;
alter table wide add c int;
update things set tag = 'half' where id = 1;
prepare transaction 'it''s half';
create database second;
\\connect second
create table there (a int primary key, b money);
insert into there select n, n from generate_series(1, 500) as n;
"""  # fmt: skip


def worked(fresh: Path, repository: zenith.Repository) -> dict[str, str]:
    """Makes things of all kinds; tells the numbers of relations."""
    elsewhere = fresh / "elsewhere"
    elsewhere.mkdir()
    postgres.give_away(elsewhere)
    with repository.branch("main").compute() as pg:
        postgres.script(pg.dsn, WORK.format(elsewhere=elsewhere))
        return {
            name: pg.psql(
                f"select 1663 || '/' || oid || '/' || pg_relation_filenode('{name}') "
                "from pg_database where datname = current_database()"
            )
            for name in ("things", "things_pkey", "things_tag_idx")
        }


def kinds(found: Verification) -> set[str]:
    return {difference["kind"] for difference in found["differences"]}


@pytest.mark.timeout(300)
def test_all_is_well(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    worked(fresh, repo)
    found = repo.verify(deep=True)
    assert (found["different"], found["differences"]) == (0, []), found
    deep = found["deep"]
    assert deep is not None
    assert deep["amcheck"]["relations"] > 500
    assert deep["checksums"]["enabled"]
    assert deep["checksums"]["pages"] > 2500
    assert deep["dump"]["bytes"] > 500_000
    # A moment of the past, and a branch without anything.
    with repo.branch("main").compute() as pg:
        lsn = postgres.received_lsn(pg)
        pg.psql("rollback prepared 'it''s half'")
        pg.psql("drop table wide")
    done = cli.run("verify", "--deep", f"main@{lsn}")
    assert done.returncode == DONE, done.stderr
    assert "no difference" in done.stdout + done.stderr
    assert not (repo.path / "verify").exists()
    assert not list((repo.path / "computes").glob(".*"))
    assert verified(cli, "main")[1]["deep"] is None


def test_wrong_checksums(
    fresh: Path, repo: zenith.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = worked(fresh, repo)
    monkeypatch.setenv("ZENITH_DAMAGE", f"flip relation {numbers['things']} 3 8180 1")
    repo.restart()
    found = repo.verify(deep=True)
    # The compute refuses such a page, which is found three times more.
    assert kinds(found) == {"page", "checksum", "dump", "amcheck"}, found
    deep = found["deep"]
    assert deep is not None
    assert (deep["checksums"]["different"], deep["dump"]["different"]) == (1, 1)
    wrong = next(d for d in found["differences"] if d["kind"] == "checksum")
    assert (wrong["relation"], wrong["block"]) == (numbers["things"], 3)


@pytest.fixture
def without_checksums(scratch: Path) -> Iterator[zenith.Repository]:
    """A running repository whose pages have no checksums, so that servers believe all pages."""
    script = '"$bin/pg_checksums" --disable -D "$pgdata" >/dev/null\n'
    with initdb.init_with(scratch, script) as repository:
        yield repository


# One row is another in the stock server's dump.
SPOILED_DUMP = """#!/bin/sh
case "$PGHOST" in
/*) "{program}" "$@" | sed 's/^177\\t1970-06-27/178\\t1970-06-27/' ;;
*) exec "{program}" "$@" ;;
esac
"""


@pytest.mark.timeout(300)
def test_each_part_finds_its_differences(
    scratch: Path,
    without_checksums: zenith.Repository,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo = without_checksums
    numbers = worked(scratch, repo)

    def with_fault(fault: str) -> Verification:
        monkeypatch.setenv("ZENITH_DAMAGE", fault)
        repo.restart()
        found = repo.verify(deep=True)
        deep = found["deep"]
        assert deep is not None
        assert not deep["checksums"]["enabled"]
        return found

    # A key in an index, which no dump reads.
    found = with_fault(f"flip relation {numbers['things_tag_idx']} 1 8180 1")
    assert kinds(found) == {"page", "amcheck"}, found
    told = [d["name"] for d in found["differences"] if d["kind"] == "amcheck"]
    assert told == ['btree index "postgres.public.things_tag_idx"']
    # A row, of which indexes know, too.
    found = with_fault(f"flip relation {numbers['things']} 0 8180 1")
    assert kinds(found) >= {"page", "dump"}, found
    told = [d["name"] for d in found["differences"] if d["kind"] == "dump"]
    assert told == ["postgres things; Type: TABLE DATA; Schema: public; Owner: postgres"]

    monkeypatch.delenv("ZENITH_DAMAGE")
    repo.restart()
    pg_dumpall = scratch / "bin" / "pg_dumpall"
    pg_dumpall.unlink()
    pg_dumpall.write_text(SPOILED_DUMP.format(program=postgres.bin_dir() / "pg_dumpall"))
    pg_dumpall.chmod(0o755)
    done = cli.run("verify", "--deep")
    assert done.returncode == DIFFERENT, done.stderr
    assert "high; Type: TABLE DATA" in done.stdout
    assert "1 difference" in done.stdout + done.stderr
    pg_dumpall.unlink()
    assert "install the Debian package postgresql-client-15" in cli.refused("verify", "--deep")
