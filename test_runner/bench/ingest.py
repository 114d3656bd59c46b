"""Taking in WAL, against a stock standby that receives and replays the same."""

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import zenith
from fixtures import pgbench, postgres
from fixtures.waiting import wait_until

from .measure import Figure, settle
from .report import Row
from .settings import Bench
from .stock import free_port

TURNS = 3


def measure(bench: Bench) -> list[Row]:
    """Rows about the WAL of three kinds of work, made while nobody receives it."""
    folder = bench.folder("ingest")
    rows: list[Row] = []
    with zenith.Repository.init(folder) as repo:
        repo_main = repo.branch("main")
        with repo_main.compute() as pg:
            pgbench.initialise(pg.dsn, bench.scale)
            pg.psql("create table copied (like pgbench_accounts)")
            pg.psql("select pg_create_physical_replication_slot('standby', true)")
            turn = f"pgbench -c 2 -t {bench.transactions // 2}"
            works: list[tuple[str, Callable[[], object]]] = [
                (turn, lambda: pgbench.run(pg.dsn, "-c", "2", "-t", str(bench.transactions // 2))),
                ("bulk COPY", lambda: _copy(pg)),
                (
                    "index builds",
                    lambda: [
                        pg.psql(f"create index on pgbench_accounts ({columns})")
                        for columns in ("abalance, aid", "bid, aid", "aid, filler")
                    ],
                ),
            ]
            for what, work in works:
                ours, theirs, mib = [], [], 0.0
                for number in range(TURNS):
                    standby = Standby(folder / f"standby-{len(rows)}-{number}", pg)
                    repo.stop()
                    began = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
                    work()
                    pg.psql("select pg_switch_wal()")
                    end = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
                    mib = (end - began) / (1 << 20)
                    theirs.append(mib / standby.replay(pg, end))
                    ours.append(mib / _receive(repo, pg, end))
                size = f"{what}, {mib:.0f} MiB of WAL"
                rows.append(
                    Row(
                        f"ingest of {size}",
                        "MiB/s",
                        Figure.of(ours),
                        "stock standby",
                        Figure.of(theirs),
                        1.5,
                        more_is_better=True,
                    )
                )
    return rows


def _copy(pg: zenith.Compute) -> None:
    line = "1\t0\t" + "x" * 84 + "\n"
    with (
        psycopg.connect(pg.dsn, autocommit=True) as server,
        server.cursor() as cursor,
        cursor.copy("copy copied from stdin") as copy,
    ):
        for first in range(0, 1_500_000, 1000):
            copy.write("".join(f"{n}\t{line}" for n in range(first, first + 1000)))
    pg.psql("truncate copied")


def _receive(repo: zenith.Repository, pg: zenith.Compute, end: zenith.Lsn) -> float:
    """Seconds from the start of the page server until everything is durable and can be read."""
    settle()
    began = time.perf_counter()
    repo.start()
    _wait_for(pg, f"flush_lsn >= '{end}'")
    return time.perf_counter() - began


def _wait_for(pg: zenith.Compute, progress: str) -> None:
    """Waits until one who receives WAL from ``pg`` has come so far.

    By one connection: to start a program each time would take a processor from who is measured.
    """
    ask = f"select count(*) from pg_stat_replication where {progress}"
    with psycopg.connect(pg.dsn, autocommit=True) as server:

        def has_come() -> bool:
            row = server.execute(ask.encode()).fetchone()
            return row is not None and row[0] > 0

        wait_until(progress, has_come, seconds=600)


class Standby:
    """A stock standby, made and stopped before there is WAL for it."""

    def __init__(self, folder: Path, primary: zenith.Compute) -> None:
        self.pgdata = folder
        self.port = free_port()
        folder.mkdir(mode=0o700)
        postgres.give_away(folder)
        postgres.run(
            "pg_basebackup", "-D", folder, "-d", primary.dsn, "-R", "-X", "stream", "-c", "fast",
            timeout=600,
        )  # fmt: skip
        (folder / "postgresql.conf").write_text("")
        with open(folder / "postgresql.auto.conf", "a") as file:
            file.write(
                f"port = {self.port}\nunix_socket_directories = ''\nhot_standby = on\n"
                "primary_slot_name = 'standby'\nmax_wal_size = 1GB\nmax_wal_senders = 10\n"
                "max_connections = 100\nmax_prepared_transactions = 100\n"
            )
        postgres.give_away(folder)

    def replay(self, primary: zenith.Compute, end: zenith.Lsn) -> float:
        """Seconds from its start until it has replayed everything; then it is gone."""
        settle()
        began = time.perf_counter()
        postgres.run("pg_ctl", "start", "-w", "-s", "-D", self.pgdata, "-l", self.pgdata / "log")
        _wait_for(primary, f"replay_lsn >= '{end}'")
        taken = time.perf_counter() - began
        postgres.run("pg_ctl", "stop", "-s", "-m", "immediate", "-D", self.pgdata)
        return taken
