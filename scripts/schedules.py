#!/usr/bin/env python3
"""PostgreSQL's own regression and isolation schedules on a compute, beside a stock server.

    make schedules PG_SOURCE=path/to/postgresql-15.x

The schedules are not part of this repository: PG_SOURCE is a source tree of PostgreSQL 15. Both
servers run them under the same settings: a stock one on a data directory of its own, and a
compute on a fresh branch. What every test prints must be the same on both, byte by byte, whatever
the files in the source tree expect. Then the page server is held against stock PostgreSQL
(`zenith verify --deep`).

SCHEDULES_BUFFERS sets shared_buffers of both (2MB: pages are evicted and fetched again all the
time), SCHEDULES_ONLY=regress or isolation runs only one of them, SCHEDULES_DIR says where the
folder is made (/tmp), SCHEDULES_KEEP=1 keeps it. Needs the programs of postgresql-server-dev-15.
"""

import difflib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUFFERS = os.environ.get("SCHEDULES_BUFFERS") or "2MB"
ONLY = os.environ.get("SCHEDULES_ONLY") or ""
KEEP = os.environ.get("SCHEDULES_KEEP", "") not in ("", "0")
# What both servers run with. Two-phase commit is on, so that its tests test something.
SETTINGS = f"""
shared_buffers = '{BUFFERS}'
max_connections = 100
max_prepared_transactions = 100
max_wal_senders = 10
max_replication_slots = 10
wal_level = replica
max_wal_size = 1GB
effective_io_concurrency = 64
maintenance_io_concurrency = 64
log_timezone = 'UTC'
timezone = 'UTC'
datestyle = 'iso, mdy'
default_text_search_config = 'pg_catalog.english'
"""


class Failure(Exception):
    """The run cannot go on; the message says why."""


def say(text: str = "") -> None:
    print(text, flush=True)


@dataclass
class Server:
    """A running server that the schedules are run against."""

    name: str
    port: int


@dataclass
class Suite:
    """One of PostgreSQL's schedules."""

    name: str
    folder: str
    driver: str
    database: str
    arguments: tuple[str, ...]


SUITES = (
    Suite(
        "regress",
        "src/test/regress",
        "regress/pg_regress",
        "regression",
        ("--schedule=parallel_schedule", "--max-concurrent-tests=20"),
    ),
    Suite(
        "isolation",
        "src/test/isolation",
        "isolation/pg_isolation_regress",
        "isolation_regression",
        ("--schedule=isolation_schedule",),
    ),
)


class Schedules:
    """One run: its folder, its servers, and the programs it uses."""

    def __init__(self, programs: Path, source: Path, folder: Path) -> None:
        self.programs = programs
        self.source = source
        self.folder = folder
        self.bin = Path(os.environ.get("ZENITH_PG_BIN") or "/usr/lib/postgresql/15/bin")
        self.account = account()
        self.stock_pgdata = folder / "stock"
        self.failures: list[str] = []

    # Running programs. PostgreSQL's own refuse to be run by root.

    def run(
        self, *command: object, check: bool = True, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        done = subprocess.run(
            words,
            cwd=how.pop("cwd", self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **how,
        )
        if check and done.returncode != 0:
            raise Failure(f"{words[0]} ended with {done.returncode}:\n{done.stdout}")
        return done

    def as_account(self, *command: object, check: bool = True, **how: Any) -> Any:
        if self.account is not None:
            how |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return self.run(*command, check=check, **how)

    def zenith(self, *arguments: object, check: bool = True) -> Any:
        return self.run(self.programs / "zenith", *arguments, check=check)

    # The servers.

    def start_stock(self) -> Server:
        self.as_account(
            *(self.bin / "initdb", "-D", self.stock_pgdata, "-U", "postgres", "--auth=trust"),
            *("--encoding=UTF8", "--data-checksums", "--locale=C.UTF-8", "--no-sync"),
        )
        port = free_port()
        with (self.stock_pgdata / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS)
            conf.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\n")
            conf.write("unix_socket_directories = ''\n")
        log = self.stock_pgdata / "log.txt"
        self.as_account(self.bin / "pg_ctl", "-D", self.stock_pgdata, "-w", "-l", log, "start")
        return Server("stock", port)

    def start_compute(self) -> Server:
        self.zenith("init")
        # All that happens is to be verified in the end.
        with open(self.folder / ".zenith" / "zenith.toml", "a", encoding="utf-8") as config:
            config.write("[wal]\nkeep = true\n")
        self.zenith("start")
        # A branch of a branch, whose pages come from far away.
        self.zenith("branch", "schedules")
        self.zenith("pg", "create", "schedules")
        conf = self.folder / ".zenith" / "computes" / "schedules" / "pgdata" / "postgresql.conf"
        text = conf.read_text()
        include = "include = 'zenith.conf'"
        conf.write_text(text.replace(include, f"{SETTINGS}\n{include}"))
        self.zenith("pg", "start", "schedules")
        connstr = self.zenith("pg", "connstr", "schedules").stdout
        port = re.search(r":(\d+)/", connstr)
        if port is None:
            raise Failure(f"no port in {connstr!r}")
        return Server("compute", int(port.group(1)))

    # The schedules.

    def build_library(self) -> Path:
        """regress.so, and the two libraries of contrib/spi that some tests load from its folder."""
        folder = self.folder / "libraries"
        folder.mkdir()
        config = self.bin / "pg_config"
        include = self.run(config, "--includedir-server").stdout.strip()
        pkglib = Path(self.run(config, "--pkglibdir").stdout.strip())
        self.run(
            *("gcc", "-shared", "-fPIC", "-O1", f"-I{include}", '-DDLSUFFIX=".so"'),
            *("-o", folder / "regress.so", self.source / "src/test/regress/regress.c"),
        )
        for name in ("refint.so", "autoinc.so"):
            shutil.copy(pkglib / name, folder)
        return folder

    def run_suite(self, suite: Suite, server: Server, libraries: Path, pgxs: Path) -> Path:
        output = self.folder / f"{server.name}-{suite.name}"
        output.mkdir()
        give(output, self.account)
        # Some tests let the server write files there, others are made from files there.
        source = self.source / suite.folder
        started = time.monotonic()
        done = self.as_account(
            pgxs / suite.driver,
            *(f"--inputdir={source}", f"--outputdir={output}", f"--bindir={self.bin}"),
            *(f"--dlpath={libraries}", f"--dbname={suite.database}"),
            *("--host=127.0.0.1", f"--port={server.port}", "--user=postgres"),
            *(a.replace("schedule=", f"schedule={source}/") for a in suite.arguments),
            cwd=output,
            check=False,
        )
        (output / "printed.txt").write_text(done.stdout)
        say(f"{suite.name} on {server.name}, {time.monotonic() - started:.0f} s:")
        for line in done.stdout.splitlines():
            if re.search(r"\d+ (of \d+ )?tests ", line):
                say(f"  {line.strip()}")
        if not list(output.glob("results/*.out")):
            raise Failure(f"{suite.name} did not run on {server.name}:\n{done.stdout[-3000:]}")
        return output / "results"

    def compare(self, suite: Suite, stock: Path, compute: Path) -> None:
        """What each test printed on both."""
        names = sorted({path.name for path in (*stock.glob("*.out"), *compute.glob("*.out"))})
        different = []
        for name in names:
            theirs, ours = read_lines(stock / name), read_lines(compute / name)
            if theirs != ours:
                different.append(name)
                diff = difflib.unified_diff(theirs, ours, f"stock/{name}", f"compute/{name}")
                say("".join(list(diff)[:60]))
        say(f"{suite.name}: {len(names)} results compared, {len(different)} different")
        self.failures += [f"{suite.name}: {name}" for name in different]

    def verify(self) -> None:
        say(
            "every page against a stock server that recovered from the same WAL, pg_amcheck, dumps:"
        )
        # Which waits until the page server has all of its WAL.
        self.zenith("pg", "stop", "schedules")
        done = self.zenith("verify", "--deep", "schedules", "-o", "json", check=False)
        if done.returncode not in (0, 3):
            raise Failure(done.stdout)
        report = json.loads(done.stdout[done.stdout.index("{") :])
        deep = report["deep"]
        say(
            f"  {report['pages']['compared']} pages compared, "
            f"{deep['dump']['bytes']} bytes dumped, "
            f"{deep['amcheck']['relations']} relations checked, {report['different']} different"
        )
        if report["different"]:
            say(done.stdout)
            self.failures.append("verify")

    def go(self) -> None:
        pgxs = Path(self.run(self.bin / "pg_config", "--pgxs").stdout.strip()).parents[1] / "test"
        if not (pgxs / "regress/pg_regress").exists():
            raise Failure("pg_regress is missing: apt-get install postgresql-server-dev-15")
        libraries = self.build_library()
        stock, compute = self.start_stock(), self.start_compute()
        for suite in SUITES:
            if ONLY in ("", suite.name):
                theirs = self.run_suite(suite, stock, libraries, pgxs)
                ours = self.run_suite(suite, compute, libraries, pgxs)
                self.compare(suite, theirs, ours)
        self.verify()

    def clean_up(self) -> None:
        self.zenith("pg", "stop", "schedules", check=False)
        self.zenith("stop", check=False)
        pg_ctl = (self.bin / "pg_ctl", "-D", self.stock_pgdata)
        self.as_account(*pg_ctl, "-m", "immediate", "stop", check=False)
        if KEEP or self.failures:
            say(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def read_lines(path: Path) -> list[str]:
    """The lines of a result; none if the test was not run."""
    if not path.exists():
        return []
    return path.read_text(errors="backslashreplace").splitlines(keepends=True)


def account() -> pwd.struct_passwd | None:
    """The account PostgreSQL runs as, if that is not ours."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam(os.environ.get("ZENITH_PG_USER") or "postgres")


def give(folder: Path, to: pwd.struct_passwd | None) -> None:
    if to is not None:
        os.chown(folder, to.pw_uid, to.pw_gid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def interrupted(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    if len(sys.argv) != 3 or not (Path(sys.argv[2]) / "src/test/regress/sql").is_dir():
        print("usage: make schedules PG_SOURCE=path/to/postgresql-15.x", file=sys.stderr)
        return 2
    parent = os.environ.get("SCHEDULES_DIR") or tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="zenith-schedules-", dir=parent))
    folder.chmod(0o755)
    give(folder, account())
    run = Schedules(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), folder)
    say(f"in {folder}")
    try:
        run.go()
    except Failure as failure:
        print(f"schedules: {failure}", file=sys.stderr)
        run.failures.append(str(failure))
    except KeyboardInterrupt:
        print("schedules: interrupted", file=sys.stderr)
        run.failures.append("interrupted")
    finally:
        run.clean_up()
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
