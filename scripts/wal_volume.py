"""Much WAL through a page server with little memory.

A compute writes until there is so much WAL, over a table that is updated again and again; WAL that
is in layers is removed. Printed at the end: the page server's peak memory, the bytes on disk, how
many bytes were written for each byte of WAL. It fails if the memory was more than the limit, if WAL
was left, or if a branch at an old moment does not have what was there then.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
ROWS = 200_000
# Each waits for half a minute.
ATTEMPTS_MAX = 100
FILL = (
    f"create table t as select n, 0 as v, repeat('x', 200) as x from generate_series(1, {ROWS}) n"
)


def zenith(bin_dir: Path, folder: Path, *arguments: str) -> str:
    """Runs the command and returns what it printed."""
    command: list[str | Path] = [bin_dir / "zenith", *arguments]
    environment = {**os.environ, "ZENITH_BIN_DIR": str(bin_dir)}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def checkpointed(bin_dir: Path, folder: Path) -> str:
    """Makes a checkpoint, when the page server has taken in all WAL: it may be far behind."""
    for _ in range(ATTEMPTS_MAX):
        with contextlib.suppress(subprocess.CalledProcessError):
            return zenith(bin_dir, folder, "checkpoint", "-o", "json")
    return zenith(bin_dir, folder, "checkpoint", "-o", "json")


class PageServer:
    """What the kernel says of the process."""

    def __init__(self, pid: int) -> None:
        self.proc = Path(f"/proc/{pid}")

    def peak_rss(self) -> int:
        """Bytes of memory at most so far."""
        for line in (self.proc / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not say")

    def written(self) -> int:
        """Bytes that it has had written."""
        for line in (self.proc / "io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
        raise RuntimeError("the kernel does not say")


def bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder that may change meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def run(bin_dir: Path, folder: Path, wal_bytes: int, limit: int) -> None:
    """Writes that much WAL, measures, and checks."""
    zenith(bin_dir, folder, "init")
    with (folder / ".zenith" / "zenith.toml").open("a") as config:
        config.write(
            f"[cache]\nbytes = {limit // 8}\n"
            f"[layers]\nstretch_bytes = {limit // 32}\ncache_bytes = {limit // 16}\n"
            f"memory_bytes = {limit // 8}\n[wal]\nkeep = false\n"
        )
    zenith(bin_dir, folder, "start")
    try:
        measure(bin_dir, folder, wal_bytes, limit)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            zenith(bin_dir, folder, "pg", "stop", "main")
        zenith(bin_dir, folder, "stop")


def measure(bin_dir: Path, folder: Path, wal_bytes: int, limit: int) -> None:
    """The same on a page server that runs."""
    status = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))
    server = PageServer(status["pid"])
    zenith(bin_dir, folder, "pg", "start", "main")
    dsn = zenith(bin_dir, folder, "pg", "connstr", "main").strip()

    def sql(text: str) -> str:
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, dsn]
        return subprocess.run(
            command, cwd="/", check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    began = time.monotonic()
    start = sql("select pg_current_wal_lsn()")
    sql(FILL)
    first, rounds, done = "", 0, 0
    while done < wal_bytes:
        rounds += 1
        sql(f"update t set v = {rounds}")
        sql("vacuum t")
        first = first or sql("select pg_current_wal_flush_lsn()")
        done = int(sql(f"select pg_current_wal_lsn() - '{start}'"))
    checkpoint = json.loads(checkpointed(bin_dir, folder))
    seconds = time.monotonic() - began
    facts = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))["server"]
    timeline = folder / ".zenith" / "timelines" / checkpoint["timeline"]
    left = bytes_in(timeline / "wal")
    layers = bytes_in(timeline / "layers")
    peak, written = server.peak_rss(), server.written()
    query = "select count(*), min(v), max(v) from t"
    zenith(bin_dir, folder, "branch", "old", f"main@{first}")
    zenith(bin_dir, folder, "pg", "start", "old")
    old = zenith(bin_dir, folder, "pg", "connstr", "old").strip()
    found = subprocess.run(
        ["psql", "-XAtq", "-c", query, old], cwd="/", check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    zenith(bin_dir, folder, "pg", "stop", "old")
    for name, value in {
        "WAL": f"{done / MIB:.0f} MiB in {seconds:.0f} s",
        "peak memory": f"{peak / MIB:.0f} MiB of {limit / MIB:.0f}",
        "WAL left on disk": f"{left / MIB:.0f} MiB",
        "layers on disk": f"{layers / MIB:.0f} MiB ({facts.get('layers_written')} written)",
        "bytes written for each of WAL": f"{written / done:.2f}",
    }.items():
        print(f"{name:32}{value}")
    assert found == f"{ROWS}|1|1", f"at {first} there was something else: {found}"
    assert sql(query) == f"{ROWS}|{rounds}|{rounds}"
    assert peak <= limit, "the page server took more memory than it may"
    assert left <= 64 * MIB, "WAL that is in layers was not removed"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir", type=Path)
    parser.add_argument("--megabytes", type=int, default=10_000, help="of WAL")
    parser.add_argument("--limit-megabytes", type=int, default=1000, help="of memory")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zenith-wal-volume-"))
    folder.chmod(0o755)
    try:
        run(
            arguments.bin_dir.absolute(),
            folder,
            arguments.megabytes * MIB,
            arguments.limit_megabytes * MIB,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
