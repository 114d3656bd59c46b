"""Bytes on disk, bytes written, and memory."""

from pathlib import Path

import zenith
from fixtures import pgbench

from .measure import Figure
from .report import Row
from .settings import Bench

MIB = 1 << 20


def measure(bench: Bench) -> list[Row]:
    """Rows about what a history takes."""
    with zenith.Repository.init(bench.folder("storage")) as repo:
        assert repo.pid is not None
        proc = Path(f"/proc/{repo.pid}")
        main = repo.branch("main")
        with main.compute() as pg:
            begin = main.last_record_lsn
            pgbench.initialise(pg.dsn, bench.scale)
            pgbench.run(pg.dsn, "-c", "2", "-t", str(bench.transactions // 2))
            logical = int(pg.psql("select sum(pg_database_size(oid)) from pg_database"))
        main.checkpoint()
        wal = main.last_record_lsn - begin
        written = _field(proc / "io", "write_bytes:")
        memory = _field(proc / "status", "VmHWM:") * 1024
        timeline = repo.path / "timelines" / main.timeline
        layers = sum(path.stat().st_size for path in (timeline / "layers").iterdir())
        kept = sum(path.stat().st_blocks * 512 for path in (timeline / "wal").iterdir())
    size = f"scale {bench.scale}, {bench.transactions} transactions"
    return [
        _row(f"layers on disk, {size}", layers, "the databases", logical, 0.6),
        _row("bytes written", written, "WAL received", wal, 5),
        _row("memory at most", memory, "1 GB", 1_000_000_000, 1),
        _row("WAL kept on disk", kept, "WAL received", wal, 1),
    ]


def _row(what: str, ours: int, against: str, theirs: int, target: float) -> Row:
    return Row(what, "MiB", Figure(ours / MIB, 0), against, Figure(theirs / MIB, 0), target)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no {name}")
