"""One compute writes a branch: lost ones are replaced, and refused when they come back."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zenith
from fixtures import pgbench, postgres, processes
from fixtures.cli import Cli, programs
from fixtures.ledger import Ledger
from fixtures.waiting import wait_until
from psycopg.rows import dict_row

WAITING = "select pid from pg_stat_activity where wait_event = 'SyncRep'"


def directory(repo: zenith.Repository, name: str) -> Path:
    return repo.path / "computes" / name


def ask(repo: zenith.Repository, command: str) -> dict[str, Any]:
    """The one row that the page server answers with."""
    with psycopg.connect(repo.connstr, autocommit=True, row_factory=dict_row) as connection:
        row = connection.execute(command.encode()).fetchone()
    assert row is not None
    return row


def wait_fenced(repo: zenith.Repository, text: str) -> None:
    """Waits until the page server refuses the server at the address of the writer of ``main``."""

    def is_fenced() -> bool:
        row = ask(repo, "writer_show main")
        return bool(row["state"] == "fenced" and text in row["message"])

    wait_until("being refused", is_fenced)


def fact(repo: zenith.Repository, name: str, key: str) -> str:
    """A value of a compute's ``zenith-compute.toml``."""
    text = (directory(repo, name) / "zenith-compute.toml").read_text()
    found = re.search(rf'^{key} = "?([^"\n]*)"?$', text, re.MULTILINE)
    assert found is not None, text
    return found[1]


@contextmanager
def by_hand(repo: zenith.Repository, name: str) -> Iterator[str]:
    """Starts a compute's postgres without Zenith's help; gives its connection string."""
    folder = directory(repo, name)
    env = {
        "LD_PRELOAD": str(repo.path / "lib" / "liblazyfiles.so"),
        "ZENITH_LAZY_PAGESERVER": (repo.path / "pageserver.addr").read_text().splitlines()[0],
        "ZENITH_LAZY_TIMELINE": fact(repo, name, "timeline"),
        "ZENITH_LAZY_GENERATION": fact(repo, name, "generation"),
        "ZENITH_LAZY_BASE": str(folder / "base_lsn"),
        "ZENITH_LAZY_PGDATA": str(folder / "pgdata"),
        "ZENITH_LAZY_PRESENCE": str(folder / "presence"),
    }
    # It was killed, and its number may live on as that of a child nobody has asked after yet.
    (folder / "pgdata" / "postmaster.pid").unlink(missing_ok=True)
    log = folder / "postgres.log"
    postgres.run("pg_ctl", "-w", "-s", "-D", folder / "pgdata", "-l", log, "start", env=env)
    try:
        yield f"postgresql://postgres@127.0.0.1:{fact(repo, name, 'port')}/postgres"
    finally:
        postgres.run("pg_ctl", "-w", "-s", "-m", "immediate", "-D", folder / "pgdata", "stop")


def test_lost_with_its_disk(repo: zenith.Repository, main: zenith.Branch, cli: Cli) -> None:
    pg = main.compute(durability="pageserver")
    pg.start()
    pgbench.initialise(pg.dsn)
    old_base = pg.base_lsn
    with Ledger(pg.dsn) as ledger, pgbench.Background(pg.dsn):
        ledger.wait_for_more()
        pg.kill()
        ledger.stop()
    lost = repo.path / "lost"
    directory(repo, "main").rename(lost)

    # Made anew where the received history ends, and said so.
    done = cli.run("pg", "start", "main", "--durability", "pageserver", "--port", pg.port)
    assert done.returncode == 0, done.stderr
    new = repo.compute("main")
    assert "compute main of branch main is gone" in done.stderr
    assert f"takes over at {new.base_lsn}" in done.stderr
    assert new.base_lsn > old_base
    ledger.check_table()
    pgbench.check_sums(new.psql(pgbench.SUMS))
    new.psql("drop table ledger")
    with Ledger(new.dsn) as ledger, pgbench.Background(new.dsn):
        ledger.wait_for_more()
    ledger.check_table()

    # The old one comes back under another name: listed, and not started.
    lost.rename(directory(repo, "old"))
    listed = {c["name"]: (c["state"], c["fenced"]) for c in cli.json("pg", "list")}
    assert listed == {"main": ("running", False), "old": ("stopped", True)}
    assert "stopped, fenced" in cli("pg", "list")
    assert repo.compute("old").fenced
    assert not new.fenced
    refusal = cli.refused("pg", "start", "old")
    assert f'compute "main" has taken over at {new.base_lsn}' in refusal
    assert "zenith pg destroy old" in refusal
    assert "pg_dump" in refusal
    cli("pg", "stop", "old")
    cli("pg", "destroy", "old")
    new.psql("insert into ledger values (9, 9); delete from ledger where client = 9")
    new.stop()
    cli("verify", "main")
    new.destroy()
    with main.compute() as pg:
        pgbench.check_sums(pg.psql(pgbench.SUMS))
        ledger.check_table(pg.dsn)


def test_lost_and_started_by_hand(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    # What is expected of the one that is refused.
    allowed_log += ["could not (read block|open|access)", "Input/output error", "earlier writer"]
    pg = main.compute(durability="pageserver")
    pg.start()
    pg.psql(f"create table t (n int); insert into t values (1); {WAITING}; checkpoint")
    pg.kill()
    lost = repo.path / "lost"
    directory(repo, "main").rename(lost)
    cli("pg", "start", "main", "--durability", "pageserver", "--port", pg.port)
    lost.rename(directory(repo, "old"))
    new = repo.compute("main")
    assert new.port == pg.port
    assert new.psql("select sum(n) from t") == "1"

    # On the port that is the new one's by now.
    new.stop()
    with by_hand(repo, "old") as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        wait_fenced(repo, "earlier writer")
        # What it does not have it does not get, and not after a minute of trying.
        begun = time.monotonic()
        with pytest.raises(psycopg.Error, match="Input/output error"):
            connection.execute("select count(*) from pg_description")
        assert time.monotonic() - begun < 20
        # And nothing that it does is ever acknowledged.
        acknowledged = threading.Event()

        def commit() -> None:
            with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as own:
                own.execute("insert into t values (100)")
                acknowledged.set()

        thread = threading.Thread(target=commit, daemon=True)
        thread.start()
        wait_until("waiting", lambda: connection.execute(WAITING).fetchone() is not None)
        assert not acknowledged.wait(1)
        waiting = connection.execute(WAITING).fetchone()
        assert waiting is not None
        os.kill(waiting[0], signal.SIGTERM)
        thread.join(20)
        assert not acknowledged.is_set()
    log = (directory(repo, "old") / "postgres.log").read_text()
    told = [line for line in log.splitlines() if line.startswith("zenith: fenced")]
    assert told
    assert 'compute "main" (generation 2) has taken over at' in told[0]

    # None of it did any harm.
    new.start()
    new.psql("insert into t values (2)")
    cli("pg", "destroy", "old")
    new.psql("insert into t values (3)")
    new.stop()
    new.destroy()
    with main.compute() as pg:
        assert pg.psql("select sum(n) from t") == "6"
    cli("verify", "main")


def test_what_a_fenced_one_has_can_be_saved(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli
) -> None:
    with main.compute() as pg:
        pg.psql("create table t as select 1 as n")
    directory(repo, "main").rename(repo.path / "lost")
    with main.compute():
        (repo.path / "lost").rename(directory(repo, "old"))
        file = directory(repo, "old") / "zenith-compute.toml"
        file.write_text(file.read_text().replace('"read-write"', '"detached"'))
        with repo.compute("old") as old:
            assert not old.fenced
            dump = postgres.run("pg_dump", old.dsn).stdout
            assert "CREATE TABLE public.t" in dump
            old.psql("insert into t values (2)")
        with main.compute() as new:
            assert new.psql("select sum(n) from t") == "1"


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "crashed"])
def test_put_back_as_it_was(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str], clean: bool
) -> None:
    allowed_log.append("nothing is received from it")
    with main.compute(durability="pageserver") as pg:
        pg.psql("create table t (n int); insert into t values (1)")
    copy = repo.path / "copy"
    shutil.copytree(directory(repo, "main"), copy)
    with pg:
        pg.psql("insert into t select generate_series(2, 100)")
        if not clean:
            pg.psql("checkpoint")
            pg.kill()
    end = main.last_record_lsn
    good = repo.path / "good"
    directory(repo, "main").rename(good)
    copy.rename(directory(repo, "main"))
    postgres.give_away(directory(repo, "main"))
    refusal = cli.refused("pg", "start", "main")
    assert str(repo.branch("main").last_record_lsn) in refusal
    assert "older copy" in refusal
    assert repo.compute("main").pid is None
    assert repo.branch("main").last_record_lsn >= end
    # The right one is taken again.
    shutil.rmtree(directory(repo, "main"))
    good.rename(directory(repo, "main"))
    with main.compute() as pg:
        assert pg.psql("select count(*) from t") == "100"
        pg.psql("insert into t values (101)")
    cli("verify", "main")


def test_one_that_runs_is_not_replaced(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    # Its presence maps are not where they were.
    allowed_log.append("could not|No such file|PANIC|FATAL")
    pg = main.compute(durability="pageserver")
    pg.start()
    pid = pg.pid
    assert pid is not None
    lost = repo.path / "lost"
    directory(repo, "main").rename(lost)
    try:
        for killed in (False, True):
            if killed:
                server = repo.pid
                assert server is not None
                os.kill(server, signal.SIGKILL)
                processes.wait_gone([server])
                repo.start()
            refusal = cli.refused("pg", "create", "main")
            assert "still runs" in refusal
            assert "zenith branch NAME main" in refusal
            assert "still runs" in cli.refused("pg", "create", "other", "--at", "main")
    finally:
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone([pid])
    # Its WAL sender may live a moment longer, which is waited for.
    done = cli.run("pg", "create", "main")
    assert done.returncode == 0, done.stderr
    assert "is gone" in done.stderr
    with main.compute() as pg:
        assert pg.psql("select 1") == "1"


def test_killed_between_any_two_steps(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    allowed_log.append("cannot write the base backup: the connection was closed")
    # The role was given away, and the compute never came to be.
    ask(repo, "writer_claim main lost-1 main 0")
    server = repo.pid
    assert server is not None
    os.kill(server, signal.SIGKILL)
    processes.wait_gone([server])
    repo.start()
    assert ask(repo, "writer_show main")["instance"] == "lost-1"
    for pause in (0.01, 0.03, 0.06, 0.1):
        creating = subprocess.Popen(
            [programs() / "zenith", "pg", "create", "main"],
            cwd=cli.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(pause)
        creating.kill()
        creating.wait()
        cli("pg", "start", "main")
        with main.compute() as pg:
            pg.psql("create table if not exists t (n int); insert into t values (1)")
        pg.destroy()
    # Two at once: one of them.
    both = [
        subprocess.Popen(
            [programs() / "zenith", "pg", "create", name, "--at", "main"],
            cwd=cli.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("a", "b")
    ]
    assert sorted(creating.wait() for creating in both) == [0, 1]
    (compute,) = repo.computes()
    with compute as pg:
        assert pg.psql("select count(*) from t") == "4"


def test_lost_on_a_branch_that_is_renamed_and_deleted(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli
) -> None:
    dev = repo.create_branch("dev")
    with dev.compute() as pg:
        pg.psql("create table t as select 1")
    shutil.rmtree(directory(repo, "dev"))
    cli("branch", "-m", "dev", "test")
    with repo.branch("test").compute("dev") as pg:
        assert pg.psql("select count(*) from t") == "1"
    directory(repo, "dev").rename(repo.path / "lost")
    cli("branch", "-d", "test")
    assert [branch.name for branch in repo.branches()] == ["main"]
    # What is left of it can be listed and removed.
    (repo.path / "lost").rename(directory(repo, "dev"))
    assert [c["name"] for c in cli.json("pg", "list")] == ["dev"]
    cli("pg", "destroy", "dev")


def test_made_before_there_were_writers(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute(durability="pageserver") as pg:
        pg.psql("create table t as select 1 as n")
    repo.stop()
    (repo.path / "timelines" / main.timeline / "writer.toml").unlink()
    file = directory(repo, "main") / "zenith-compute.toml"
    file.write_text(re.sub(r"^generation = .*\n", "", file.read_text(), flags=re.MULTILINE))
    repo.start()
    assert ask(repo, "writer_show main")["generation"] == "0"
    with repo.compute("main") as pg:
        pg.psql("insert into t values (2)")
        assert not pg.fenced
    assert ask(repo, "writer_show main")["generation"] == "1"
    with repo.compute("main") as pg:
        assert pg.psql("select sum(n) from t") == "3"
