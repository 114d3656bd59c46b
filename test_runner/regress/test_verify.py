"""``zenith verify``: finds nothing where nothing is wrong, and what is wrong where something is."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import zenith
from fixtures import cli as cli_fixture
from fixtures import pgbench, postgres, processes
from fixtures.cli import DIFFERENT, DONE, Cli

WORK = """
create table things as
    select n as id, md5(n::text) as tag, point(n % 100, n / 100) as place,
           to_tsvector('simple', md5(n::text)) as words, int4range(n, n + 10) as span
    from generate_series(1, 5000) as n;
create index on things using btree (id);
create index on things using hash (tag);
create index on things using gin (words);
create index on things using gist (span);
create index on things using spgist (place);
create index on things using brin (id) with (pages_per_range = 4);
delete from things where id % 3 = 0;
vacuum things;
insert into things select id + 5000, tag, place, words, span from things;
create unlogged table fleeting as select generate_series(1, 1000);
create table cut as select generate_series(1, 10000);
create sequence numbers;
select nextval('numbers') from generate_series(1, 50);
begin;
create table half as select generate_series(1, 1000);
prepare transaction 'half';
create database logged strategy wal_log;
create database copied strategy file_copy;
truncate cut;
vacuum (freeze) things;
"""


def verified(cli: Cli, point: str, env: dict[str, str] | None = None) -> tuple[int, Any]:
    """Runs it; returns its exit code and what it printed."""
    done = cli.run("verify", point, "-o", "json", env=env)
    assert done.returncode in (DONE, DIFFERENT), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_branches_and_moments(
    fresh: Path, repo: zenith.Repository, cli: Cli, allowed_log: list[str]
) -> None:
    # Computes cannot use tablespaces after their start yet; that does not concern the pages.
    allowed_log.append("tablespaces are not stored yet")
    main = repo.branch("main")
    elsewhere = fresh / "elsewhere"
    elsewhere.mkdir()
    postgres.give_away(elsewhere)
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
        postgres.script(pg.dsn, WORK)
        pg.psql(f"create tablespace other location '{elsewhere}'")
        pg.psql("create table outside (a int) tablespace other")
        pg.psql("insert into outside select generate_series(1, 1000)")
        middle = zenith.Lsn(pg.psql("select pg_current_wal_insert_lsn()"))
        pg.psql("drop table things")
        pg.psql("commit prepared 'half'")
        pgbench.run(pg.dsn, "-c", "2", "-t", "200")
        for point in ("main", f"main@{middle}", f"main@{middle + 10000}"):
            code, found = verified(cli, point)
            assert (code, found["different"], found["differences"]) == (DONE, 0, []), found
            assert found["pages"]["compared"] > 3000
        # The stock server has kept off what belongs to the compute.
        assert pg.psql("select count(*) from outside") == "1000"
    dev = repo.create_branch("dev", at=("main", middle))
    with dev.compute() as pg:
        pg.psql("rollback prepared 'half'")
        pg.psql("delete from things where id % 2 = 0")
        pg.psql("vacuum things")
    repo.create_branch("later", at="dev")
    for point in ("dev", "later"):
        code, found = verified(cli, point)
        assert (code, found["different"]) == (DONE, 0), found
        assert found["branch"] == point
    assert not (repo.path / "verify").exists()


# Spoils what the stock server starts with: as good a difference as one in the page server.
SPOILER = """#!/bin/sh
"{pageserver}" "$@" || exit
[ "$1" = materialize ] || exit 0
while [ "$1" != --into ]; do shift; done
printf '\\7' | dd of="$2/global/1260" bs=1 seek=8100 conv=notrunc status=none
head -c 8192 /dev/zero >> "$2/base/1/2619"
rm "$2/base/1/3456"
"""


def test_differences_are_told(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    programs = fresh / "programs"
    programs.mkdir()
    for program in cli_fixture.programs().iterdir():
        if program.is_file() and program.name != "pageserver":
            (programs / program.name).symlink_to(program)
    pageserver = programs / "pageserver"
    pageserver.write_text(SPOILER.format(pageserver=cli_fixture.programs() / "pageserver"))
    pageserver.chmod(0o755)
    code, found = verified(cli, "main", env={"ZENITH_BIN_DIR": str(programs)})
    assert code == DIFFERENT
    told = {(d["kind"], d["relation"], d["name"], d["block"]) for d in found["differences"]}
    assert told == {
        ("page", "1664/0/1260", "pg_authid", 0),
        ("size", "1663/1/2619", None, None),
        ("relation", "1663/1/3456", None, None),
    }
    assert found["different"] == 3
    assert not (repo.path / "verify").exists()


def test_nothing_is_left_when_interrupted(fresh: Path, repo: zenith.Repository, cli: Cli) -> None:
    main = repo.branch("main")
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
    command = [cli_fixture.programs() / "zenith", "verify", "main"]
    verifying = subprocess.Popen(
        command, cwd=fresh, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not list((repo.path / "verify").glob("*/pgdata/PG_VERSION")):
        assert verifying.poll() is None
        assert time.monotonic() < deadline
    os.kill(verifying.pid, signal.SIGINT)
    _, said = verifying.communicate(timeout=60)
    assert (verifying.returncode, said) == (1, "zenith: error: interrupted\n")
    assert not (repo.path / "verify").exists()
    assert not processes.within(repo.path / "verify")


def test_points_that_are_not_there(repo: zenith.Repository, cli: Cli) -> None:
    assert "no branch" in cli.refused("verify", "nowhere")
    assert "before the beginning" in cli.refused("verify", "main@0/28")
    assert not (repo.path / "verify").exists()
