"""Much WAL through a page server with little memory.

A compute writes until there is so much WAL, over a table that is updated again and again; WAL that
is in layers is removed. The limit is a hard one: the kernel gives the page server, and each of its
redo processes, no more private memory that can be written to (RLIMIT_DATA), touched or not.

Printed at the end: the page server's peak memory, the bytes on disk, how many bytes were written
for each byte of WAL, and how long it takes from a kill to the first page with many branches.
It fails if the page server did not live through it, if WAL was left, if branches at old moments do
not have what was there then, or if `zenith verify` finds a difference.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
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


def zenith(bin_dir: Path, folder: Path, *arguments: str, limit: int | None = None) -> str:
    """Runs the command and returns what it printed; what it starts has no more memory than that."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command: list[str | Path] = [bin_dir / "zenith", *arguments]
    environment = {**os.environ, "ZENITH_BIN_DIR": str(bin_dir)}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
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


def restarted(bin_dir: Path, folder: Path, pid: int, branches: int, limit: int) -> list[float]:
    """Makes branches; how many seconds it takes each time from a kill to the first page."""
    server = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))["connstr"]
    commands = "".join(f"branch_create many{number} main;\n" for number in range(branches))
    subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", server],
        cwd="/",
        check=True,
        input=commands,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    seconds = []
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        zenith(bin_dir, folder, "start", limit=limit)
        # Of pg_class, which is in every database.
        zenith(bin_dir, folder, "page", "main", "1663/5/1259", "0")
        seconds.append(time.monotonic() - began)
        pid = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))["pid"]
    return seconds


def run(bin_dir: Path, folder: Path, wal_bytes: int, limit: int, branches: int) -> None:
    """Writes that much WAL, measures, and checks."""
    zenith(bin_dir, folder, "init")
    with (folder / ".zenith" / "zenith.toml").open("a") as config:
        config.write(
            f"[cache]\nbytes = {limit // 8}\n"
            f"[layers]\nstretch_bytes = {limit // 32}\ncache_bytes = {limit // 16}\n"
            f"memory_bytes = {limit // 8}\n[wal]\nkeep = false\n"
        )
    zenith(bin_dir, folder, "start", limit=limit)
    try:
        measure(bin_dir, folder, wal_bytes, limit, branches)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            zenith(bin_dir, folder, "pg", "stop", "main")
        zenith(bin_dir, folder, "stop")


def measure(bin_dir: Path, folder: Path, wal_bytes: int, limit: int, branches: int) -> None:
    """The same on a page server that runs."""
    status = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))
    server = PageServer(status["pid"])
    zenith(bin_dir, folder, "pg", "start", "main")
    dsn = zenith(bin_dir, folder, "pg", "connstr", "main").strip()

    def sql(text: str, server: str = dsn) -> str:
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, server]
        return subprocess.run(
            command, cwd="/", check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    began = time.monotonic()
    start = sql("select pg_current_wal_lsn()")
    sql(FILL)
    rounds, done = 0, 0
    moments: list[tuple[int, str]] = []
    while done < wal_bytes:
        rounds += 1
        sql(f"update t set v = {rounds}")
        sql("vacuum t")
        moments.append((rounds, sql("select pg_current_wal_flush_lsn()")))
        done = int(sql(f"select pg_current_wal_lsn() - '{start}'"))
    checkpoint = json.loads(checkpointed(bin_dir, folder))
    seconds = time.monotonic() - began
    facts = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))["server"]
    timeline = folder / ".zenith" / "timelines" / checkpoint["timeline"]
    left = bytes_in(timeline / "wal")
    layers = bytes_in(timeline / "layers")
    peak, written = server.peak_rss(), server.written()
    query = "select count(*), min(v), max(v), sum(n) from t"
    rows = f"{ROWS * (ROWS + 1) // 2}"
    for moment, lsn in sorted({moments[0], moments[len(moments) // 2]}):
        name = f"old{moment}"
        zenith(bin_dir, folder, "branch", name, f"main@{lsn}")
        zenith(bin_dir, folder, "pg", "start", name)
        old = zenith(bin_dir, folder, "pg", "connstr", name).strip()
        found = sql(query, old)
        assert found == f"{ROWS}|{moment}|{moment}|{rows}", f"at {lsn} there was {found}"
        zenith(bin_dir, folder, "pg", "stop", name)
    assert sql(query) == f"{ROWS}|{rounds}|{rounds}|{rows}"
    verified = json.loads(zenith(bin_dir, folder, "verify", "main", "-o", "json"))
    after = server.peak_rss()
    for name, value in {
        "WAL": f"{done / MIB:.0f} MiB in {seconds:.0f} s",
        "peak memory": f"{peak / MIB:.0f} MiB of {limit / MIB:.0f}",
        "the same after reading it": f"{after / MIB:.0f} MiB",
        "pages compared": f"{verified['pages']['compared']}",
        "WAL left on disk": f"{left / MIB:.0f} MiB",
        "layers on disk": f"{layers / MIB:.0f} MiB ({facts.get('layers_written')} written)",
        "bytes written for each of WAL": f"{written / done:.2f}",
    }.items():
        print(f"{name:32}{value}")
    now = json.loads(zenith(bin_dir, folder, "status", "-o", "json"))["pid"]
    assert now == status["pid"], "the page server did not live through it"
    zenith(bin_dir, folder, "pg", "stop", "main")
    took = ", ".join(f"{one:.2f}" for one in restarted(bin_dir, folder, now, branches, limit))
    print(f"{f'start with {branches} branches':32}{took} s from a kill to the first page")
    assert after <= limit, "the page server took more memory than it may"
    assert left <= 64 * MIB, "WAL that is in layers was not removed"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir", type=Path)
    parser.add_argument("--megabytes", type=int, default=10_000, help="of WAL")
    parser.add_argument("--limit-megabytes", type=int, default=1000, help="of memory")
    parser.add_argument("--branches", type=int, default=1000, help="made at the end")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zenith-wal-volume-"))
    folder.chmod(0o755)
    try:
        run(
            arguments.bin_dir.absolute(),
            folder,
            arguments.megabytes * MIB,
            arguments.limit_megabytes * MIB,
            arguments.branches,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
