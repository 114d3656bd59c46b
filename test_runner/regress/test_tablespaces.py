"""Tablespaces: made, used, branched and dropped, where their folder is another compute's."""

import contextlib
import hashlib
from pathlib import Path

import pytest
import zenith
from fixtures import postgres
from fixtures.cli import Cli
from zenith import Lsn

FILL = """
create table t (id int primary key using index tablespace first, tag text, long text)
    tablespace first;
alter table t alter long set storage external;
insert into t select n, md5(n::text), repeat(md5(n::text), 100) from generate_series(1, 1000) as n;
create index on t (tag) tablespace first;
create materialized view tags tablespace first as select tag from t;
create unlogged table fleeting tablespace first as select generate_series(1, 100);
create database logged tablespace first strategy wal_log;
\\c logged
create table inside as select generate_series(1, 1000) as n;
create table outside tablespace pg_default as select generate_series(1, 1000) as n;
vacuum full pg_class;
\\c postgres
create database copied template logged tablespace first strategy file_copy;
"""
ASK = "select count(*), sum(hashtext(t::text)) from t"
ASK_INSIDE = "select (select sum(n) from inside), (select sum(n) from outside)"
# Files of temporary results, and of temporary tables.
TEMPORARY = ["pgsql_tmp/*", "t*_*"]
LOCATION = "select pg_tablespace_location(oid) from pg_tablespace where spcname = '{}'"
NAMES = "select spcname from pg_tablespace where oid > 16383 order by 1"


def make_location(folder: Path, name: str) -> Path:
    """A folder for a tablespace."""
    location = folder / name
    location.mkdir()
    postgres.give_away(location)
    return location


def content(folder: Path) -> dict[str, str]:
    """All files in a folder, each with a digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def verify(cli: Cli, point: str) -> None:
    """Whether all at a point is as stock PostgreSQL has it."""
    found = cli.json("verify", point)
    assert found["different"] == 0, found


def kill_and_start(pg: zenith.Compute) -> None:
    """What recovery makes of it."""
    pg.kill()
    pg.start()


@pytest.mark.timeout(300)
def test_every_step(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    location = make_location(fresh, "first")
    other_location = make_location(fresh, "other")
    main = repo.branch("main")
    pg = main.compute()
    with pg:
        before = postgres.received_lsn(pg)
        pg.psql(f"create tablespace first location '{location}'")
        created = postgres.received_lsn(pg)
        # Replayed from the compute's own WAL.
        kill_and_start(pg)
        assert pg.psql(LOCATION.format("first")) == str(location)
        postgres.script(pg.dsn, FILL)
        filled = postgres.received_lsn(pg)
        kill_and_start(pg)
        answer, inside = pg.psql(ASK), pg.psql(ASK_INSIDE, dbname="logged")
        assert pg.psql(ASK_INSIDE, dbname="copied") == inside
        path = Path(pg.psql("select pg_relation_filepath('t')"))
    theirs = content(location)
    assert len(theirs) > 500
    look_at_pages(repo, cli, path, filled)

    dev = repo.create_branch("dev", at=("main", filled))
    with dev.compute() as pg:
        use_in_place(pg, answer, inside)
        verify(cli, "dev")
        drop_in_place(pg)
    verify(cli, "dev")
    assert content(location) == theirs

    # Before there was a tablespace, and when it was empty.
    with main.compute("early", lsn=before) as pg:
        assert pg.psql(NAMES) == ""
        with pytest.raises(zenith.QueryFailed, match="already in use as a tablespace"):
            pg.psql(f"create tablespace first location '{location}'")
    early = repo.compute("early")
    early.start()
    early.psql(f"create tablespace own location '{other_location}'")
    early.psql("create table own tablespace own as select generate_series(1, 100)")
    kill_and_start(early)
    assert early.psql("select count(*) from own") == "100"
    assert f"{other_location} was left as it is" in cli.run("pg", "destroy", "early").stderr
    assert content(other_location)
    with main.compute("empty", lsn=created) as pg:
        assert pg.psql(NAMES) == "first"
        pg.psql("create table t tablespace first as select generate_series(1, 100)")
        pg.psql("drop table t")
        pg.psql("drop tablespace first")
    assert content(location) == theirs

    with main.compute() as pg:
        assert pg.psql(ASK) == answer
        pg.psql("drop database logged")
        pg.psql("drop database copied")
        pg.psql("drop materialized view tags")
        pg.psql("drop table t, fleeting")
        emptied = postgres.received_lsn(pg)
        pg.psql("drop tablespace first")
        dropped = postgres.received_lsn(pg)
        kill_and_start(pg)
        assert pg.psql(NAMES) == ""
        pg.psql("create table t as select 1")
        verify(cli, f"main@{dropped}")
    assert not content(location)
    # The past is not touched by that.
    with repo.create_branch("again", at=("main", filled)).compute() as pg:
        assert (pg.psql(ASK), pg.psql(ASK_INSIDE, dbname="copied")) == (answer, inside)
    with main.compute("late", lsn=dropped) as pg:
        assert pg.psql(NAMES) == ""
    with main.compute("drained", lsn=emptied) as pg:
        assert pg.psql(NAMES) == "first"
        pg.psql("drop tablespace first")


def look_at_pages(repo: zenith.Repository, cli: Cli, path: Path, lsn: Lsn) -> None:
    """By the numbers in the path of a relation in a tablespace."""
    spc, db, rel = path.parts[1], path.parts[3], path.parts[4]
    assert path.parts[0] == "pg_tblspc"
    branch = repo.branch("main")
    size = branch.rel_size(int(spc), int(db), int(rel), lsn=lsn)
    assert size
    page = branch.get_page(int(spc), int(db), int(rel), size - 1, lsn=lsn)
    shown = cli.json("page", f"main@{lsn}", f"{spc}/{db}/{rel}", str(size - 1))
    assert shown["hex"] == page.hex()
    assert any(page)


def use_in_place(pg: zenith.Compute, answer: str, inside: str) -> None:
    """A tablespace that another compute has made, through everything that can be done with it."""
    oid = pg.psql("select oid from pg_tablespace where spcname = 'first'")
    assert pg.psql(LOCATION.format("first")) == f"pg_tblspc/{oid}"
    folder = pg.pgdata / "pg_tblspc" / oid
    assert folder.is_dir()
    assert not folder.is_symlink()
    # Nothing has been fetched yet but what was asked for.
    assert (pg.pgdata.parent / "presence" / "pg_tblspc" / oid).is_dir()
    assert pg.psql(ASK_INSIDE, dbname="logged") == inside
    # Read by copying, not through shared buffers.
    pg.psql("create tablespace beside location ''")
    pg.psql("create database second template copied strategy file_copy")
    pg.psql("create database third template copied tablespace first strategy wal_log")
    pg.psql("alter database copied set tablespace beside")
    kill_and_start(pg)
    for name in ("copied", "second", "third"):
        assert pg.psql(ASK_INSIDE, dbname=name) == inside
    assert pg.psql(ASK) == answer
    assert pg.psql("select count(*) from fleeting") == "0"
    pg.psql("insert into fleeting values (1)")
    pg.psql("update t set tag = 'new' where id % 10 = 0")
    changed = pg.psql(ASK)
    for name in ("pg_default", "first"):
        pg.psql(f"alter table t set tablespace {name}")
        pg.psql(f"alter materialized view tags set tablespace {name}")
        pg.psql(f"alter index t_pkey set tablespace {name}")
    pg.psql("alter database copied set tablespace first")
    pg.psql("create table more tablespace first as select generate_series(1, 1000)")
    with contextlib.closing(pg.connect()) as connection:
        connection.execute("set temp_tablespaces = first")
        connection.execute("set work_mem = '64kB'")
        connection.execute("create temp table temporary as select generate_series(1, 1000)")
        connection.execute(
            "declare c cursor for select n, md5(n::text)"
            " from generate_series(1, 10000) as n order by 2"
        )
        connection.execute("fetch c")
        for pattern in TEMPORARY:
            assert list(folder.rglob(pattern))
        kill_and_start(pg)
    for pattern in TEMPORARY:
        assert not list(folder.rglob(pattern))
    assert pg.psql(ASK) == changed
    assert pg.psql("select count(*) from more") == "1000"
    assert pg.psql(ASK_INSIDE, dbname="copied") == inside


def drop_in_place(pg: zenith.Compute) -> None:
    """To the last of it."""
    with pytest.raises(zenith.QueryFailed, match="is not empty"):
        pg.psql("drop tablespace first")
    for name in ("logged", "copied", "third"):
        pg.psql(f"drop database {name}")
    pg.psql("alter database second set tablespace beside")
    pg.psql("drop table more, fleeting")
    pg.psql("drop materialized view tags")
    pg.psql("alter table t set tablespace pg_default")
    pg.psql("alter index t_pkey set tablespace pg_default")
    pg.psql("alter index t_tag_idx set tablespace pg_default")
    pg.psql("drop tablespace first")
    kill_and_start(pg)
    assert pg.psql(NAMES) == "beside"
    assert len(list((pg.pgdata / "pg_tblspc").iterdir())) == 1
    assert pg.psql("select count(*) from t") == "1000"


def test_compute_made_anew(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    """One that lost its disk, or was destroyed, has what it kept outside in place from then on."""
    location = make_location(fresh, "first")
    main = repo.branch("main")
    with main.compute(durability="pageserver") as pg:
        pg.psql(f"create tablespace first location '{location}'")
        allow = "set allow_in_place_tablespaces = on;"
        postgres.script(pg.dsn, f"{allow} create tablespace inside location '';")
        postgres.script(pg.dsn, FILL)
        answer, inside = pg.psql(ASK), pg.psql(ASK_INSIDE, dbname="copied")
        pg.kill()
    left = content(location)
    said = cli.run("pg", "destroy", "main").stderr
    assert f"{location} was left as it is" in said
    assert content(location) == left
    with main.compute(durability="pageserver") as pg:
        assert pg.psql(NAMES) == "first\ninside"
        assert pg.psql(ASK) == answer
        assert pg.psql(ASK_INSIDE, dbname="copied") == inside
        # Two servers on one folder: PostgreSQL sees that itself.
        with pytest.raises(zenith.QueryFailed, match="already in use as a tablespace"):
            pg.psql(f"create tablespace again location '{location}'")
        pg.psql("alter table t set tablespace inside")
        pg.psql("drop database copied")
        pg.psql("create database copied template logged tablespace inside strategy file_copy")
        kill_and_start(pg)
        assert pg.psql(ASK) == answer
        assert pg.psql(ASK_INSIDE, dbname="copied") == inside
    verify(cli, "main")
    assert content(location) == left
    assert "left as it is" not in cli.run("pg", "destroy", "main").stderr


def test_base_backup_of_a_compute(fresh: Path, repo: zenith.Repository) -> None:
    """PostgreSQL's own, of stubs in tablespaces in place: whole, and recovery accepts it."""
    location = make_location(fresh, "first")
    main = repo.branch("main")
    with main.compute() as pg:
        pg.psql(f"create tablespace first location '{location}'")
        postgres.script(pg.dsn, FILL)
        answer, inside = pg.psql(ASK), pg.psql(ASK_INSIDE, dbname="copied")
        middle = postgres.received_lsn(pg)
    copies = make_location(fresh, "copies")
    copy = copies / "data"
    with main.compute("detached", lsn=middle) as pg:
        postgres.run("pg_basebackup", "-D", copy, "-c", "fast", "-d", pg.dsn)
    postgres.run("pg_verifybackup", copy)
    options = f"-c listen_addresses='' -c unix_socket_directories='{copies}' -c port={pg.port}"
    start = ["pg_ctl", "-D", copy, "-w", "-o", options, "-l", copies / "server.log", "start"]
    postgres.run(*map(str, start))
    try:
        dsn = f"host={copies} port={pg.port} user=postgres dbname="
        ask = ("psql", "-XAtq", "-F|", "-c")
        assert postgres.run(*ask, ASK, "-d", f"{dsn}postgres").stdout.strip() == answer
        assert postgres.run(*ask, ASK_INSIDE, "-d", f"{dsn}copied").stdout.strip() == inside
    finally:
        postgres.run("pg_ctl", "-D", copy, "-w", "-m", "fast", "stop")
