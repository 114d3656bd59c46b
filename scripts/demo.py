#!/usr/bin/env python3
"""The whole idea on a real database: a branch from before a mistake, in the blink of an eye.

Makes a repository in a scratch folder, fills a database, makes a mistake in it, branches from just
before, and measures. Everything it starts it stops, and the folder goes, unless DEMO_KEEP=1.
DEMO_SCALE sets pgbench's scale (50, which is 750 MB), DEMO_DIR where the folder is made (/tmp).
Only Python's standard library is needed.
"""

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

SCALE = int(os.environ.get("DEMO_SCALE") or 50)
KEEP = os.environ.get("DEMO_KEEP", "") not in ("", "0")
BYTES_PER_SCALE = 15_000_000
PAGE_SIZE = 8192

# Tables for every index type, beside pgbench's b-trees.
TABLES = """
create table things as
    select n as id,
           md5(n::text) as tag,
           to_tsvector('simple', md5(n::text) || ' ' || md5((n % 100)::text)) as words,
           point(n % 1000, n / 1000) as place,
           int4range(n, n + 10) as span,
           timestamptz '2026-01-01' + n * interval '1 second' as seen
    from generate_series(1, 100000) as n;
create index things_btree on things using btree (id);
create index things_hash on things using hash (tag);
create index things_gin on things using gin (words);
create index things_gist on things using gist (span);
create index things_spgist on things using spgist (place);
create index things_brin on things using brin (seen);
analyze things;
"""

# One question for each index of `things`, and one for pgbench's tables.
QUESTIONS = {
    "pgbench_accounts": "select count(*) from pgbench_accounts",
    "things": "select count(*) from things",
    "by btree": "select count(*) from things where id between 500 and 999",
    "by hash": "select count(*) from things where tag = md5('77')",
    "by gin": "select count(*) from things where words @@ to_tsquery('simple', md5('77'))",
    "by gist": "select count(*) from things where span @> 5000",
    "by spgist": "select count(*) from things where place <@ box(point(0, 0), point(9, 9))",
    "by brin": "select count(*) from things where seen < '2026-01-01 00:10:00Z'",
}

MISTAKE = """
delete from pgbench_accounts where aid % 3 = 0;
vacuum pgbench_accounts;
drop table things;
"""


class Failure(Exception):
    """The demo cannot go on; the message says why."""


def say(text: str = "") -> None:
    """Prints a line at once, for people watch."""
    print(text, flush=True)


class Demo:
    """One run: the programs it uses, its folder, and what it measured."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.facts: list[tuple[str, str]] = []

    def run(self, *command: object, show: bool = True) -> str:
        """Runs a program to its end and returns what it printed."""
        words = [str(word) for word in command]
        if show:
            shown = shlex.join([Path(words[0]).name, *words[1:]])
            say(f"$ {shown if len(shown) < 100 else shown[:97] + '...'}")
        done = subprocess.run(
            words, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Failure(f"{words[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def zenith(self, *arguments: object, show: bool = True) -> str:
        return self.run(self.programs / "zenith", *arguments, show=show)

    def json(self, *arguments: object) -> Any:
        return json.loads(self.zenith(*arguments, "-o", "json", show=False))

    def connstr(self, compute: str) -> str:
        return self.zenith("pg", "connstr", compute, show=False)

    def postgres(self, program: str) -> Path:
        named = os.environ.get("ZENITH_PG_BIN")
        return Path(named or "/usr/lib/postgresql/15/bin") / program

    def query(self, connstr: str, sql: str) -> str:
        return self.run(self.postgres("psql"), "-XAtqc", sql, connstr, show=False)

    def timed(self, what: str, *arguments: object) -> float:
        """Runs a zenith command and notes how long it took."""
        started = time.monotonic()
        self.zenith(*arguments)
        seconds = time.monotonic() - started
        self.note(what, f"{seconds * 1000:.0f} ms")
        return seconds

    def note(self, what: str, value: str) -> None:
        self.facts.append((what, value))

    def answers(self, connstr: str) -> dict[str, str]:
        """The answers to all questions; a question about a lost table has none."""
        found = {}
        for name, sql in QUESTIONS.items():
            try:
                found[name] = self.query(connstr, f"set enable_seqscan = off; {sql}")
            except Failure as failure:
                if "does not exist" not in str(failure):
                    raise
                found[name] = "gone"
        return found

    # The steps of the demo.

    def prepare(self) -> str:
        self.timed("make a repository", "init")
        # Otherwise only what happened last could be held against stock PostgreSQL in the end.
        with (self.folder / ".zenith" / "zenith.toml").open("a") as config:
            config.write("[wal]\nkeep = true\n")
        self.timed("start the page server", "start")
        self.timed("first compute: create and start", "pg", "start", "main")
        main = self.connstr("main")
        started = time.monotonic()
        self.run(self.postgres("pgbench"), "-i", "-q", "-s", SCALE, main)
        say("  and a table with an index of every type: btree, hash, gin, gist, spgist, brin")
        self.query(main, TABLES)
        self.note("fill the database", f"{time.monotonic() - started:.1f} s")
        report = self.run(self.postgres("pgbench"), "-n", "-c", 2, "-T", 5, main)
        tps = next(line for line in report.splitlines() if line.startswith("tps"))
        self.note("pgbench, 2 clients, while the page server follows", tps.split("(")[0].strip())
        return main

    def make_a_mistake(self, main: str) -> tuple[str, dict[str, str]]:
        before = self.answers(main)
        lsn = self.query(main, "select pg_current_wal_lsn()")
        say(f"\nThe log of main is at {lsn}. And now the mistake:")
        for line in MISTAKE.strip().splitlines():
            say(f"  {line}")
            self.query(main, line)
        return lsn, before

    def branch(self, lsn: str) -> str:
        say()
        self.timed("make a branch in the past", "branch", "before", f"main@{lsn}")
        started = time.monotonic()
        create_and_start = self.timed("its compute: create and start", "pg", "start", "before")
        branch = self.connstr("before")
        self.query(branch, "select count(*) from pgbench_branches")
        first = time.monotonic() - started
        self.note("from `zenith pg start` to the first answer", f"{first * 1000:.0f} ms")
        assert create_and_start <= first
        return branch

    def compare(self, main: str, branch: str, before: dict[str, str]) -> None:
        pgdata = self.folder / ".zenith" / "computes" / "before" / "pgdata"
        fetched = bytes_of_relations(pgdata)
        database = int(self.query(branch, "select sum(pg_database_size(oid)) from pg_database"))
        self.note("databases of the branch", megabytes(database))
        self.note("pages fetched up to the first answer", f"{fetched // PAGE_SIZE}")
        self.note("which take, on the compute's disk", megabytes(fetched))
        now, then = self.answers(main), self.answers(branch)
        everything = megabytes(bytes_of_relations(pgdata))
        self.note("after counting everything, through every index", everything)
        say(f"\n{'':20}{'before':>12}{'main now':>12}{'the branch':>12}")
        for name in QUESTIONS:
            say(f"{name:20}{before[name]:>12}{now[name]:>12}{then[name]:>12}")
        if then != before:
            raise Failure("the branch does not have what main had")

    def verify(self, lsn: str) -> None:
        """Holds every page at the LSN against what stock PostgreSQL makes of the same log."""
        say("\nEvery page at that moment, against a stock server that recovered up to it:")
        started = time.monotonic()
        report = self.json("verify", f"main@{lsn}")
        seconds = time.monotonic() - started
        say(f"  {report['pages']['compared']} pages compared, {report['different']} differences")
        if report["since"] is not None:
            raise Failure(f"only what happened since {report['since']} was verified")
        self.note("to verify them all against stock PostgreSQL", f"{seconds:.1f} s")

    def show_facts(self) -> None:
        say()
        width = max(len(what) for what, _ in self.facts) + 2
        for what, value in self.facts:
            say(f"{what:{width}}{value:>20}")

    def clean_up(self) -> None:
        """Stops what was started. Whatever does not stop when told to is killed, by its id."""
        try:
            pids = [compute["pid"] for compute in self.json("pg", "list")]
            pids.append(self.json("status")["pid"])
        except (Failure, KeyError, ValueError):
            pids = []
        for command in (["pg", "stop", "before"], ["pg", "stop", "main"], ["stop"]):
            try:
                self.zenith(*command, show=False)
            except Failure:
                continue  # It was never made, or is killed below.
        for pid in filter(None, pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def bytes_of_relations(pgdata: Path) -> int:
    """What the relations' files take on the disk: where no page has been fetched they are holes."""
    files = (path for folder in ("base", "global") for path in (pgdata / folder).rglob("*"))
    return sum(
        file.lstat().st_blocks * 512 for file in files if file.name[0].isdigit() and file.is_file()
    )


def scratch_folder() -> Path:
    """A new folder that PostgreSQL can enter, whose account is another one if we are root."""
    parent = Path(os.environ.get("DEMO_DIR") or tempfile.gettempdir())
    needed = 4 * SCALE * BYTES_PER_SCALE + 500_000_000
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise Failure(
            f"{parent} has {megabytes(free)} left and the demo may need {megabytes(needed)}; "
            "name another folder in DEMO_DIR, or a smaller DEMO_SCALE"
        )
    folder = Path(tempfile.mkdtemp(prefix="zenith-demo-", dir=parent))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        account = pwd.getpwnam(os.environ.get("ZENITH_PG_USER") or "postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    programs = Path(sys.argv[1]).resolve()
    try:
        demo = Demo(programs, scratch_folder())
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    say(f"in {demo.folder}")
    done = False
    try:
        connstr = demo.prepare()
        lsn, before = demo.make_a_mistake(connstr)
        branch = demo.branch(lsn)
        demo.compare(connstr, branch, before)
        demo.verify(lsn)
        demo.show_facts()
        done = True
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    finally:
        if KEEP:
            say(f"\nkept, and running: cd {demo.folder} && {programs / 'zenith'} status")
        else:
            demo.clean_up()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
