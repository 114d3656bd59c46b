"""A compute that has all its pages against a stock server with the same settings."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zenith
from fixtures import pgbench, postgres
from fixtures.waiting import wait_until

from .measure import Figure, settle
from .report import Row
from .settings import Bench
from .stock import Stock

TURNS = 5
CLIENTS = ("-c", "4", "-j", "2")
SYNCHRONOUS = "synchronous_standby_names = 'bench_receivewal'\n"


def measure(bench: Bench) -> list[Row]:
    """Rows about a warm compute."""
    rows = []
    folder = bench.folder("computes")
    with zenith.Repository.init(folder) as repo, Stock(folder / "stock") as stock:
        with repo.branch("main").compute() as pg:
            pgbench.initialise(pg.dsn, bench.scale)
        pgbench.initialise(stock.dsn, bench.scale)
        with repo.create_branch("warm").compute() as pg:
            fetch_all(pg)
            for what, script, target in (
                ("TPC-B", "tpcb-like", 0.97),
                ("select-only", "select-only", 0.97),
            ):
                ours, theirs = side_by_side(pg.dsn, stock.dsn, bench.seconds, script)
                rows.append(row(f"pgbench {what}, warm compute", ours, "stock", theirs, target))
    with (
        zenith.Repository.open(folder) as repo,
        Stock(folder / "synchronous") as stock,
    ):
        pgbench.initialise(stock.dsn, bench.scale)
        with (
            repo.create_branch("synchronous").compute(durability="pageserver") as pg,
            receivewal(folder / "received", stock),
        ):
            fetch_all(pg)
            ours, theirs = side_by_side(pg.dsn, stock.dsn, bench.seconds, "tpcb-like")
            against = "stock with synchronous pg_receivewal"
            rows.append(row("pgbench TPC-B, --durability pageserver", ours, against, theirs, 1.0))
    return rows


def row(what: str, ours: Figure, against: str, theirs: Figure, target: float) -> Row:
    """Transactions per second."""
    return Row(what, "tps", ours, against, theirs, target, more_is_better=True)


def fetch_all(pg: zenith.Compute) -> None:
    """Has every page of pgbench's tables fetched."""
    for table in ("accounts", "tellers", "branches", "history"):
        # Of the rows' own bytes: the visibility map answers a mere count.
        pg.psql(f"select count(t::text) from pgbench_{table} t")
    pg.psql("set enable_seqscan = off; select count(aid) from pgbench_accounts")
    pg.psql("checkpoint")


def side_by_side(ours: str, theirs: str, seconds: int, script: str) -> tuple[Figure, Figure]:
    """Transactions per second of two servers, measured in turns: the machine changes.

    The first turn does not count: only after it both write into WAL segments that they had before.
    """
    speeds: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        for dsn, found in zip((ours, theirs), speeds, strict=True):
            now = tps(dsn, seconds, script)
            if turn > 0:
                found.append(now)
    return Figure.of(speeds[0]), Figure.of(speeds[1])


def tps(dsn: str, seconds: int, script: str) -> float:
    """What pgbench says of so many seconds."""
    postgres.run("psql", "-XAtqc", "checkpoint", dsn)
    settle()
    said = pgbench.run(dsn, *CLIENTS, "-T", str(seconds), "-b", script)
    found = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    assert found, said
    return float(found[1])


@contextmanager
def receivewal(folder: Path, stock: Stock) -> Iterator[None]:
    """``pg_receivewal`` as the standby that every commit of ``stock`` waits for."""
    folder.mkdir()
    postgres.give_away(folder)
    dsn = stock.dsn + "?application_name=bench_receivewal"
    postgres.run("psql", "-XAtqc", "select pg_create_physical_replication_slot('bench')", stock.dsn)
    receiver = subprocess.Popen(
        [
            postgres.bin_dir() / "pg_receivewal",
            *("--synchronous", "--slot=bench", "--no-loop", "-D", folder, "-d", dsn),
        ],
        cwd="/",
        **postgres.identity(),
    )
    try:
        listed = "select count(*) from pg_stat_replication"
        wait_until("pg_receivewal", lambda: _ask(stock.dsn, listed) == "1")
        with open(stock.pgdata / "postgresql.conf", "a") as file:
            file.write(SYNCHRONOUS)
        postgres.run("pg_ctl", "reload", "-s", "-D", stock.pgdata)
        synchronous = f"{listed} where sync_state = 'sync'"
        wait_until("a synchronous standby", lambda: _ask(stock.dsn, synchronous) == "1")
        yield
    finally:
        receiver.terminate()
        receiver.wait()


def _ask(dsn: str, sql: str) -> str:
    return postgres.run("psql", "-XAtqc", sql, dsn).stdout.strip()
