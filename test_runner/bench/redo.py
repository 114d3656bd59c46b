"""Pages made from chains of records, against stock crash recovery of the same WAL."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import zenith
from fixtures import postgres

from .measure import Figure
from .report import Row
from .settings import Bench
from .stock import Stock

TURNS = 3
# Pages asked for at once.
BATCH = 256
# Recovery shall find all of it: no checkpoint, no other work.
QUIET = "max_wal_size = 10GB\ncheckpoint_timeout = 1h\nautovacuum = off\n"


@dataclass(frozen=True)
class Chains:
    """Every page of a table gets an image, and then so many records."""

    records: int
    pages: int
    target: float | None

    def sql(self) -> tuple[str, list[str]]:
        """What makes the table, and what makes the chains after a checkpoint.

        A page has 20 rows and room for as many again, so that updates stay on it.
        """
        make = (
            "create table chains with (fillfactor = 50) as select n, 0 as v, repeat('x', 160) as x"
            f" from generate_series(1, {self.pages * 20}) n; vacuum freeze chains"
        )
        # An update of one row is one record; what it leaves is pruned by the next round.
        rounds = [
            f"update chains set v = v + 1 where n % 20 = {k % 20}" for k in range(self.records)
        ]
        return make, rounds


def measure(bench: Bench) -> list[Row]:
    """Rows about records applied in a second."""
    kinds = [Chains(2, 30_000, None), Chains(200, 2_000, 1.0)]
    return [_measure(bench.folder(f"redo{kind.records}"), kind) for kind in kinds]


def _measure(folder: Path, chains: Chains) -> Row:
    make, rounds = chains.sql()
    ours, theirs = [], []
    with zenith.Repository.init(folder) as repo, Stock(folder / "stock", QUIET) as stock:
        main = repo.branch("main")
        with main.compute() as pg:
            pg.psql("alter system set autovacuum = off")
            pg.psql("alter system set checkpoint_timeout = '1h'")
            pg.psql("select pg_reload_conf()")
            for dsn in (pg.dsn, stock.dsn):
                postgres.script(dsn, make + ";\ncheckpoint;\n" + ";\n".join(rounds) + ";\n")
            path = pg.psql("select pg_relation_filepath('chains')").split("/")
            begin = zenith.Lsn(pg.psql("select redo_lsn from pg_control_checkpoint()"))
            end = zenith.Lsn(pg.psql("select pg_current_wal_lsn()"))
            records = _records(pg, begin, end, "/".join(["1663", *path[1:]]))
        rel = (1663, int(path[1]), int(path[2]))
        for _ in range(TURNS):
            # Nothing in memory.
            repo.restart()
            lsn = main.last_record_lsn
            blocks = main.rel_size(*rel, lsn=lsn)
            assert blocks is not None
            main.get_page(*rel, 0, lsn=lsn)
            began = time.perf_counter()
            for first in range(0, blocks, BATCH):
                main.get_pages(*rel, first, min(BATCH, blocks - first), lsn=lsn)
            ours.append(records / (time.perf_counter() - began))
        stock.stop("immediate")
        for _ in range(TURNS):
            theirs.append(records / _recovery(stock.pgdata, folder / "crashed"))
        stock.start()
    return Row(
        f"redo, chains of {chains.records}, {records} records",
        "records/s",
        Figure.of(ours),
        "stock crash recovery",
        Figure.of(theirs),
        chains.target,
        more_is_better=True,
    )


def _records(pg: zenith.Compute, begin: zenith.Lsn, end: zenith.Lsn, rel: str) -> int:
    """How many records the compute has written about a relation."""
    wal = pg.pgdata / "pg_wal"
    limits = ("-s", str(begin), "-e", str(end))
    said = postgres.run("pg_waldump", "-p", wal, *limits, "-R", rel, timeout=600).stdout
    return len(said.splitlines())


def _recovery(crashed: Path, copy: Path) -> float:
    """Seconds that a copy of a crashed stock server says its redo took."""
    subprocess.run(["cp", "-a", crashed, copy], check=True)
    try:
        log = copy / "recovery.log"
        postgres.run("pg_ctl", "start", "-w", "-s", "-t", "600", "-D", copy, "-l", log, timeout=600)
        postgres.run("pg_ctl", "stop", "-s", "-m", "immediate", "-D", copy)
        said = log.read_text()
        found = re.search(r"redo done at .* elapsed: ([0-9.]+) s", said)
        assert found, said
        return float(found[1])
    finally:
        shutil.rmtree(copy, ignore_errors=True)
