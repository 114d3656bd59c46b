"""A compute that has nothing yet: how soon it answers, and how fast its pages come."""

import psycopg
import zenith
from fixtures import pgbench

from .computes import row, tps
from .measure import Figure, seconds, settle
from .report import Row
from .settings import Bench
from .stock import Stock

TURNS = 5
# Of those that take long.
LONG_TURNS = 3
# Of pgbench_accounts, for each unit of scale.
BYTES = 13_430_000
# Of the table: its index would answer with a fifth of the bytes.
SCAN = "set enable_indexonlyscan = off; select count(*) from pgbench_accounts"


def measure(bench: Bench) -> list[Row]:
    """Rows about new branches."""
    folder = bench.folder("cold")
    scale = max(1, bench.scan_bytes // BYTES)
    with zenith.Repository.init(folder) as repo, Stock(folder / "stock") as stock:
        with repo.branch("main").compute() as pg:
            for dsn in (pg.dsn, stock.dsn):
                pgbench.initialise(dsn, scale)
                _do(dsn, "checkpoint")
        # As the page server leaves it by itself after some time.
        repo.branch("main").compact()
        starts: tuple[list[float], list[float]] = ([], [])
        scans: tuple[list[float], list[float]] = ([], [])
        selects: tuple[list[float], list[float]] = ([], [])
        for turn in range(TURNS):
            branch = repo.create_branch(f"cold{turn}")
            settle()
            began = seconds(lambda b=branch: _first_answer(b))  # type: ignore[misc]
            starts[0].append(began)
            pg = branch.compute()
            scans[0].append(seconds(lambda d=pg.dsn: _do(d, SCAN)))  # type: ignore[misc]
            pg.destroy()
            stock.stop()
            settle()
            starts[1].append(seconds(lambda: _start(stock)))
            scans[1].append(seconds(lambda: _do(stock.dsn, SCAN)))
        for turn in range(LONG_TURNS):
            pg = repo.create_branch(f"select{turn}").compute()
            with pg:
                selects[0].append(tps(pg.dsn, bench.cold_seconds, "select-only"))
            pg.destroy()
            stock.stop()
            stock.start()
            selects[1].append(tps(stock.dsn, bench.cold_seconds, "select-only"))
    ours, theirs = Figure.of(starts[0]), Figure.of(starts[1])
    mib = bench.scan_bytes >> 20
    speed = [Figure.of([mib / s for s in found]) for found in scans]
    return [
        Row("pg start on a new branch to its first answer", "s", ours, "pg_ctl start", theirs, 3),
        Row("the same", "s", ours, "0.5 s", Figure(0.5, 0), 1),
        Row(
            f"sequential scan of {mib} MiB on a new branch",
            "MiB/s",
            speed[0],
            "stock, from the OS cache",
            speed[1],
            0.5,
            more_is_better=True,
        ),
        row(
            f"pgbench select-only, first {bench.cold_seconds} s of a new branch",
            Figure.of(selects[0]),
            "stock, cold buffers",
            Figure.of(selects[1]),
            0.7,
        ),
    ]


def _first_answer(branch: zenith.Branch) -> None:
    pg = branch.compute()
    pg.start()
    _do(pg.dsn, "select 1")


def _start(stock: Stock) -> None:
    stock.start()
    _do(stock.dsn, "select 1")


def _do(dsn: str, sql: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute(sql.encode())
