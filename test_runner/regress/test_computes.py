"""The life of a compute, through the command line and from Python."""

import os
import signal
import socket
from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures import postgres, processes
from fixtures.cli import USAGE, Cli


def test_life_cycle(repo: zenith.Repository, cli: Cli) -> None:
    assert cli.json("pg", "list") == []
    cli("pg", "create", "main")
    (compute,) = cli.json("pg", "list")
    assert compute["name"] == "main"
    assert compute["branch"] == "main"
    assert compute["state"] == "stopped"
    cli("pg", "start", "main")
    cli("pg", "start", "main")
    (compute,) = cli.json("pg", "list")
    assert compute["state"] == "running"
    assert processes.is_alive(compute["pid"])
    connstr = cli("pg", "connstr", "main").strip()
    with psycopg.connect(connstr) as connection:
        assert connection.execute("select 42").fetchone() == (42,)
    assert "database system is ready" in cli("pg", "logs", "main")
    cli("pg", "stop", "main")
    cli("pg", "stop", "main")
    cli("pg", "destroy", "main")
    assert cli.json("pg", "list") == []
    assert "main" in cli.refused("pg", "destroy", "main")


def test_start_creates_it_first(repo: zenith.Repository, cli: Cli) -> None:
    cli("branch", "dev")
    cli("pg", "start", "dev")
    assert repo.compute("dev").psql("select 1") == "1"
    cli("pg", "stop", "dev")


def test_the_server_is_the_distributions_own(main: zenith.Branch) -> None:
    with main.compute() as pg:
        executable = os.readlink(f"/proc/{pg.pid}/exe")
        assert executable == str((postgres.bin_dir() / "postgres").resolve())
        assert pg.psql("show data_checksums") == "on"
        assert pg.psql("show server_version_num").startswith("15")


def test_python_object(repo: zenith.Repository, main: zenith.Branch) -> None:
    pg = main.compute()
    assert (pg.name, pg.branch, pg.state, pg.mode) == ("main", "main", "stopped", "read-write")
    with pg:
        assert pg.pid is not None
        assert pg.psql("select 'a' union all select 'b' order by 1") == "a\nb"
        with pg.connect(autocommit=True) as connection:
            connection.execute("create database other")
        assert pg.psql("select current_database()", dbname="other") == "other"
        with pytest.raises(zenith.QueryFailed, match="no_such_table"):
            pg.psql("select * from no_such_table")
        assert main.compute().pid == pg.pid
    assert pg.pid is None
    with pytest.raises(zenith.Conflict):
        main.compute(durability="pageserver")
    with pytest.raises(zenith.InvalidArgument):
        main.compute("x", durability="none")
    assert [compute.name for compute in repo.computes()] == ["main"]


def test_start_at_once_after_a_kill(main: zenith.Branch, cli: Cli) -> None:
    with main.compute(durability="pageserver") as pg:
        for _ in range(3):
            assert pg.pid is not None
            os.kill(pg.pid, signal.SIGKILL)
            cli("pg", "start", "main")
            assert pg.psql("select 1") == "1"


def test_restarts_keep_everything(main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        for n in range(5):
            pg.psql(f"insert into t values ({n})")
            pg.restart(immediate=n % 2 == 0)
        assert pg.psql("select count(*) from t") == "5"
        assert pg.psql("select count(*) from pg_class where relname = 't'") == "1"


def test_a_second_writer_is_refused(repo: zenith.Repository, cli: Cli) -> None:
    cli("pg", "create", "main")
    line = cli.refused("pg", "create", "second", "--at", "main")
    assert "branch" in line
    assert "second" in line
    with pytest.raises(zenith.Conflict):
        repo.branch("main").compute("second")
    assert [compute.name for compute in repo.computes()] == ["main"]


def test_a_detached_compute_leaves_no_trace(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t as select 1 as n")
        lsn = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
        pg.psql("insert into t values (2)")
        with main.compute("look", lsn=lsn) as past:
            assert past.mode == "detached"
            assert past.psql("select count(*) from t") == "1"
            past.psql("drop table t")
        assert pg.psql("select count(*) from t") == "2"
    repo.compute("look").destroy()


def test_throw_away_psql(repo: zenith.Repository, cli: Cli, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create table t as select generate_series(1, 7) as n")
        lsn = pg.psql("select pg_current_wal_lsn()")
        pg.psql("truncate t")
    assert cli("psql", f"main@{lsn}", "-XAtc", "select count(*) from t").strip() == "7"
    assert cli("psql", "main", "-XAtc", "select count(*) from t").strip() == "0"
    assert [compute["name"] for compute in cli.json("pg", "list")] == ["main"]
    assert processes.within(repo.path / "computes") == []


def test_bad_input(repo: zenith.Repository, cli: Cli) -> None:
    assert "nowhere" in cli.refused("pg", "create", "nowhere")
    assert "nowhere" in cli.refused("pg", "create", "x", "--at", "nowhere")
    for verb in ("stop", "destroy", "logs", "connstr"):
        assert "nowhere" in cli.refused("pg", verb, "nowhere")
    cli.refused("pg", "create", "x", "--at", "main@1", code=USAGE)
    cli.refused("pg", "create", "main", "--port", "99999", code=USAGE)
    cli.refused("pg", "create", "main", "--durability", "none", code=USAGE)
    cli.refused("pg", "create", "main", "--at", "main@0/28")
    assert cli.json("pg", "list") == []


def test_port_in_use(repo: zenith.Repository, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in cli.refused("pg", "create", "main", "--port", port)
    assert cli.json("pg", "list") == []
    cli("pg", "create", "main", "--port", port)
    with socket.create_server(("127.0.0.1", port)):
        assert str(port) in cli.refused("pg", "start", "main")
    cli("pg", "start", "main")
    assert repo.compute("main").port == port
    cli("pg", "stop", "main")


def test_only_what_is_read_is_fetched(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql(
            "create table big as select n, repeat('x', 500) as x from generate_series(1, 100000) n"
        )
        pg.psql("checkpoint")
        size = int(pg.psql("select pg_database_size('postgres')"))
        lsn = pg.psql("select pg_current_wal_lsn()")
    dev = repo.create_branch("dev", at=("main", lsn))
    with dev.compute() as pg:
        assert pg.psql("select x from big limit 1").startswith("x")
        assert int(pg.psql("select pg_database_size('postgres')")) >= size - 64 * 8192
        assert allocated(pg.pgdata / "base") < size / 5
        assert pg.psql("select count(*), min(n), max(n) from big") == "100000|1|100000"


def allocated(folder: Path) -> int:
    """Bytes of disk that the files below ``folder`` take."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
