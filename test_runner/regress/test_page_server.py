"""The page server as a daemon: start, stop, status, and what gets in its way."""

import os
import signal
import socket
from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures import postgres, processes
from fixtures.cli import Cli


def test_start_status_stop(fresh: Path, cli: Cli) -> None:
    assert cli.json("status")["running"] is False
    cli("start")
    cli("start")  # Already so: done.
    status = cli.json("status")
    assert status["running"] is True
    assert processes.is_alive(status["pid"])
    cli("restart")
    again = cli.json("status")
    assert again["running"] is True
    assert again["pid"] != status["pid"]
    cli("stop")
    cli("stop")
    assert cli.json("status")["running"] is False
    assert processes.within(fresh) == []


def test_terminates_cleanly_on_sigterm(repo: zenith.Repository) -> None:
    pid = repo.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert processes.wait_gone([pid]) == []
    assert not (repo.path / "pageserver.pid").exists()
    assert repo.pid is None
    assert repo.start()


@pytest.mark.parametrize("content", ["", "garbage", "0", "-1", "1", "999999999", "{own}"])
def test_a_stale_pidfile_is_not_believed(fresh: Path, cli: Cli, content: str) -> None:
    pidfile = fresh / ".zenith" / "pageserver.pid"
    # Our own process exists, and is no page server: it must not be taken for one, nor be hurt.
    pidfile.write_text(content.format(own=os.getpid()))
    assert cli.json("status")["running"] is False
    cli("stop")
    cli("start")
    pid = cli.json("status")["pid"]
    assert processes.is_alive(pid)
    assert pid != os.getpid()
    cli("stop")


def test_port_in_use(fresh: Path, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = cli.refused("start", "--port", port)
        assert str(port) in line
    assert processes.within(fresh) == []
    cli("start", "--port", port)
    assert str(port) in cli("status", "-o", "json")
    cli("stop")


def test_commands_need_it(fresh: Path, cli: Cli) -> None:
    for command in (
        ["branch"],
        ["branch", "dev"],
        ["pg", "create", "main"],
        ["pg", "start", "main"],
    ):
        assert "zenith start" in cli.refused(*command)
    with pytest.raises(zenith.PageServerNotRunning):
        zenith.Repository.open(fresh).branches()


def test_psql_can_connect(repo: zenith.Repository) -> None:
    shown = postgres.run("psql", "-XAt", "-d", repo.connstr, "-c", "branch_list").stdout
    assert shown.startswith("main|")


def test_bad_commands_are_errors_and_do_no_harm(repo: zenith.Repository) -> None:
    with psycopg.connect(repo.connstr, autocommit=True) as connection:
        for command in ("frobnicate", "branch_create", "branch_create x y z", "'", "lsn_at main"):
            with pytest.raises(psycopg.Error):
                connection.execute(command)
        assert connection.execute("branch_list").fetchall()
