"""From the start of a page server that has much, to its first page."""

import psycopg
import zenith
from fixtures import pgbench

from .measure import Figure, seconds
from .report import Row
from .settings import Bench
from .stock import Stock

TURNS = 5


def measure(bench: Bench) -> list[Row]:
    """Rows about starting."""
    with zenith.Repository.init(bench.folder("restart")) as repo:
        with repo.branch("main").compute() as pg:
            pgbench.initialise(pg.dsn, bench.scale)
            pgbench.run(pg.dsn, "-c", "2", "-t", str(bench.transactions // 2))
            pg.psql("checkpoint")
            path = pg.psql("select pg_relation_filepath('pgbench_accounts')").split("/")
        rel = (1663, int(path[1]), int(path[2]))
        with psycopg.connect(repo.connstr, autocommit=True) as server:
            for number in range(bench.branches):
                server.execute(f"branch_create many{number} main".encode())

        def first_page() -> None:
            repo.start()
            repo.branch("main").get_page(*rel, 0)

        killed, stopped = [], []
        for _ in range(TURNS):
            repo.stop(immediate=True)
            killed.append(seconds(first_page))
            repo.stop()
            stopped.append(seconds(first_page))
    with Stock(bench.folder("restart") / "stock") as stock:
        pgbench.initialise(stock.dsn, bench.scale)

        def restart(_: int) -> float:
            stock.stop()
            return seconds(stock.start)

        theirs = Figure.of([restart(n) for n in range(TURNS)])
    what = f"start with {bench.branches} branches, scale {bench.scale}, to the first page"
    one = Figure(1.0, 0)
    return [
        Row(what, "s", Figure.of(stopped), "stock server to its first answer", theirs, 3),
        Row(f"{what}, after a kill", "s", Figure.of(killed), "1 s", one, 1),
    ]
