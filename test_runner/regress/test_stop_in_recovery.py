"""``zenith pg stop`` while a compute recovers from the crash of one of its backends.

PostgreSQL 15 that is told to stop at that moment may wait for ever.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures import cli as cli_fixture
from fixtures import processes


def startup_process(pg: zenith.Compute) -> int | None:
    """The process that recovers, if the server does."""
    for pid in processes.within(pg.pgdata):
        if "postgres: startup" in processes.describe(pid):
            return pid
    return None


@pytest.fixture
def recovering(main: zenith.Branch, allowed_log: list[str]) -> tuple[zenith.Compute, int]:
    """A compute in the middle of recovery, and its process for that, which is held."""
    allowed_log.append("was terminated by signal 9")
    pg = main.compute()
    pg.start()
    pg.psql("create table t as select n, repeat('x', 100) from generate_series(1, 300000) n")
    with pg.connect(autocommit=True) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (pid := startup_process(pg)) is None:
            assert time.monotonic() < deadline, "no recovery was seen"
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    return pg, pid


def test_stop_waits_for_the_end_of_recovery(
    fresh: Path, recovering: tuple[zenith.Compute, int]
) -> None:
    pg, startup = recovering
    command = [str(cli_fixture.programs() / "zenith"), "pg", "stop", "main"]
    stopping = subprocess.Popen(command, cwd=fresh, stderr=subprocess.PIPE, text=True)
    try:
        # Nothing may happen; there is nothing to wait for.
        with pytest.raises(subprocess.TimeoutExpired):
            stopping.wait(1)
        assert processes.is_alive(startup)
    finally:
        os.kill(startup, signal.SIGCONT)
    _, said = stopping.communicate(timeout=60)
    assert stopping.returncode == 0, said
    assert pg.state == "stopped"
    assert processes.within(pg.pgdata) == []
    with pg:
        assert pg.psql("select count(*) from t") == "300000"


def test_immediate_stop_does_not_wait(recovering: tuple[zenith.Compute, int]) -> None:
    pg, startup = recovering
    os.kill(startup, signal.SIGCONT)
    pg.stop(immediate=True)
    assert processes.wait_gone([startup]) == []
    with pg:
        assert pg.psql("select count(*) from t") == "300000"
