"""Kill -9 in the middle of pgbench: everything comes back, and nothing acknowledged is lost."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import zenith
from fixtures import pgbench, processes
from fixtures.ledger import Ledger
from fixtures.load import Load

ROUNDS = 3


@pytest.fixture
def chance() -> random.Random:
    """Random numbers whose seed is printed when the test fails."""
    seed = int(os.environ.get("ZENITH_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"ZENITH_TEST_SEED={seed}")
    return random.Random(seed)


def redo_processes(repo: zenith.Repository) -> list[int]:
    """The page server's redo processes: the children of any of its threads."""
    found = []
    for task in Path(f"/proc/{repo.pid}/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue  # The thread has ended.
    return found


def test_compute(main: zenith.Branch, chance: random.Random) -> None:
    pg = main.compute()
    with pg:
        pgbench.initialise(pg.dsn)
        with Ledger(pg.dsn) as ledger:
            for _ in range(ROUNDS):
                with pgbench.Background(pg.dsn):
                    ledger.wait_for_more()
                    time.sleep(chance.uniform(0, 0.5))
                    pg.kill()
                pg.start()
                pgbench.check_sums(pg.psql(pgbench.SUMS))
        ledger.check_table()
        sums = pg.psql(pgbench.SUMS)
    # What the page server has must be the same.
    pg.destroy()
    with main.compute() as pg:
        assert pg.psql(pgbench.SUMS) == sums
        ledger.check_table(pg.dsn)


def test_compute_lost_with_its_disk(main: zenith.Branch, chance: random.Random) -> None:
    """With ``--durability pageserver`` an acknowledged commit survives the compute's disk."""
    pg = main.compute(durability="pageserver")
    pg.start()
    pgbench.initialise(pg.dsn)
    for _ in range(ROUNDS):
        with Load(pg) as load:
            load.wait_for_more()
            time.sleep(chance.uniform(0, 0.5))
            pg.kill()
            load.ledger.stop()
        pg.destroy()
        pg = main.compute(durability="pageserver")
        pg.start()
        load.check(pg)
        pg.psql("drop table ledger")
    pg.stop()


@pytest.mark.parametrize("killed", [True, False])
def test_page_server(
    repo: zenith.Repository, main: zenith.Branch, chance: random.Random, killed: bool
) -> None:
    """Computes only wait for it, whether it is killed or restarted."""
    with main.compute(durability="pageserver" if killed else "local") as pg:
        pgbench.initialise(pg.dsn)
        with Load(pg) as load:
            for _ in range(ROUNDS):
                load.wait_for_more()
                if killed:
                    time.sleep(chance.uniform(0, 0.5))
                    pid = repo.pid
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    processes.wait_gone([pid])
                    repo.start()
                else:
                    repo.restart()
                load.wait_for_more()
            assert load.pgbench.is_running(), load.pgbench.output()
        load.check(pg)
    # A clean stop waits for the page server, so the branch has everything.
    load.check_anew(main)


def test_page_server_and_compute_at_once(
    repo: zenith.Repository, main: zenith.Branch, chance: random.Random
) -> None:
    pg = main.compute(durability="pageserver")
    pg.start()
    pgbench.initialise(pg.dsn)
    with Load(pg) as load:
        load.wait_for_more()
        time.sleep(chance.uniform(0, 0.5))
        pid = repo.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        pg.kill()
        load.ledger.stop()
    repo.start()
    load.check_anew(main)


def test_redo_process(
    repo: zenith.Repository,
    main: zenith.Branch,
    chance: random.Random,
    allowed_log: list[str],
) -> None:
    allowed_log.append(r"\bredo\b|walredo")
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
        pgbench.run(pg.dsn, "-c", "2", "-t", "500")
        sums = pg.psql(pgbench.SUMS)
    dev = repo.create_branch("dev")
    killed = 0
    with dev.compute() as pg, pgbench.Background(pg.dsn) as load:
        deadline = time.monotonic() + 20
        while killed < 5 and time.monotonic() < deadline:
            for pid in redo_processes(repo):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            pg.psql("select count(*) from pgbench_accounts where abalance <> 0")
            time.sleep(chance.uniform(0, 0.2))
        assert load.is_running(), load.output()
        load.stop()
        pgbench.check_sums(pg.psql(pgbench.SUMS))
    assert killed, "no redo process was ever seen"
    with main.compute("look", lsn=dev.ancestor[1] if dev.ancestor else None) as pg:
        assert pg.psql(pgbench.SUMS) == sums
