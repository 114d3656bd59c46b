"""A server is killed in the middle of a record: what it writes over the rest must be understood.

PostgreSQL does not take back what it has written of such a record. After the crash it goes on at
the next page, whose header says so, with a record that names the one given up
(OVERWRITE_CONTRECORD).
"""

import os
import signal
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
import zenith
from fixtures import postgres, processes
from fixtures.verify import Verify

MESSAGE = 100_000_000
ENOUGH = 20_000_000
PAGE = 8192
OVERWRITTEN = """
select count(*) from pg_get_wal_records_info('{start}', '{end}')
where record_type = 'OVERWRITE_CONTRECORD'
"""


def kill_in_a_record(pg: zenith.Compute, ready_to_kill: Callable[[], bool] = lambda: True) -> None:
    """Kills all of a compute while one of its backends writes a record of 100 MB.

    It is written no further from some place on, and when ``ready_to_kill`` is the end.
    """
    started = int(postgres.insert_lsn(pg))
    with pg.connect(autocommit=True) as writer:
        pid = writer.info.backend_pid

        def emit() -> None:
            # What the server is killed for.
            with pytest.raises(psycopg.Error):
                writer.execute(
                    "select pg_logical_emit_message(false, 'x', repeat('x', %s))", [MESSAGE]
                )

        with pg.connect(autocommit=True) as watcher:
            thread = threading.Thread(target=emit)
            thread.start()
            deadline = time.monotonic() + 60
            flushed = started
            while flushed < started + ENOUGH:
                row = watcher.execute("select pg_current_wal_flush_lsn()").fetchone()
                assert row is not None
                flushed = int(zenith.Lsn(row[0]))
                assert time.monotonic() < deadline
            os.kill(pid, signal.SIGSTOP)
            while not ready_to_kill():
                assert time.monotonic() < deadline, "the page server has too little of the record"
                time.sleep(0.01)
            everybody = processes.within(pg.pgdata)
            for process in everybody:
                os.kill(process, signal.SIGKILL)
            assert not processes.wait_gone(everybody)
            thread.join()
    assert flushed < started + MESSAGE, "the record was complete before the kill"


def check(
    repo: zenith.Repository, pg: zenith.Compute, start: zenith.Lsn, verify: Verify
) -> zenith.Lsn:
    """The compute, started again, must have written over a record, and branches go on from it."""
    pg.psql("insert into t values (2)")
    end = postgres.insert_lsn(pg)
    assert pg.psql(OVERWRITTEN.format(start=start, end=end)) == "1"
    verify("main")
    # In the record that was given up, and behind the one that says so.
    for name, lsn, count in (("given_up", start + ENOUGH // 2, "1"), ("over", end, "2")):
        with repo.create_branch(name, at=("main", lsn)).compute() as branch:
            assert branch.psql("select count(*) from t") == count
            branch.psql("insert into t select generate_series(3, 10)")
    verify("given_up", "over")
    return end


@pytest.mark.parametrize("received", [True, False])
def test_killed_in_a_record(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify, received: bool
) -> None:
    pg = main.compute()
    pg.start()
    pg.psql("create extension pg_walinspect")
    pg.psql("create table t as select 1 as n")
    start = postgres.received_lsn(pg)
    segments = repo.path / "timelines" / main.timeline / "wal"

    def size() -> int:
        return sum(path.stat().st_size for path in segments.iterdir() if len(path.name) == 24)

    if received:
        before = size()
        kill_in_a_record(pg, lambda: size() > before + ENOUGH // 2)
        # What it has on disk ends in the middle of the record now.
        repo.restart(immediate=True)
    else:
        before = size()
        sender = int(pg.psql("select pid from pg_stat_replication"))
        os.kill(sender, signal.SIGSTOP)
        kill_in_a_record(pg)
        assert size() < before + PAGE
    pg.start()
    end = check(repo, pg, start, verify)
    # And once more from what is on disk, by a compute that is made anew.
    pg.stop()
    pg.destroy()
    repo.restart()
    with main.compute() as pg:
        assert pg.psql("select count(*) from t") == "2"
        assert int(postgres.insert_lsn(pg)) >= int(end)


def test_made_anew_after_it_was_killed_in_a_record(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    """The next compute begins where the record did, and writes something else there."""
    pg = main.compute(durability="pageserver")
    pg.start()
    pg.psql("create table t as select 1 as n")
    kill_in_a_record(pg)
    pg.destroy()
    with main.compute() as pg:
        pg.psql("insert into t values (2)")
    verify("main")
    main.compute().destroy()
    with main.compute() as pg:
        assert pg.psql("select count(*) from t") == "2"


def test_killed_in_a_record_on_a_new_branch(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    """Before it has written much else: its log begins in a segment that was made for it."""
    with main.compute() as pg:
        pg.psql("create table t as select 1 as n")
    branch = repo.create_branch("dev")
    pg = branch.compute()
    pg.start()
    kill_in_a_record(pg)
    repo.restart()
    with pg:
        pg.psql("insert into t values (2)")
        pg.restart(immediate=True)
        assert pg.psql("select count(*) from t") == "2"
    verify("dev")
    pg.destroy()
    with repo.create_branch("later", at="dev").compute() as pg:
        assert pg.psql("select count(*) from t") == "2"
