"""The page server's disk fills up while WAL comes in: it says so, goes on when there is room."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.ledger import Ledger
from fixtures.waiting import wait_until

MEGABYTE = 1 << 20


@pytest.fixture
def resize(fresh: Path) -> Iterator[Callable[[int], None]]:
    """Puts the page server's history on a file system of its own, with 40 MB to spare.

    Gives a function that sets how many megabytes it has to spare.
    """
    timelines = fresh / ".zenith" / "timelines"
    aside = fresh / "aside"
    used = sum(path.lstat().st_blocks * 512 for path in timelines.rglob("*")) // MEGABYTE + 8
    timelines.rename(aside)
    timelines.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={used + 40}m,mode=700", "tmpfs", str(timelines)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        timelines.rmdir()
        aside.rename(timelines)
        pytest.skip("only root may mount a file system that can be filled up")
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", timelines], check=True)
        postgres.give_away(timelines)

        def resize(spare: int) -> None:
            option = f"remount,size={used + spare}m"
            subprocess.run(["mount", "-o", option, timelines], check=True)

        yield resize
    finally:
        subprocess.run(["umount", timelines], check=True)


def test_disk_full_while_wal_is_written(
    fresh: Path, cli: Cli, resize: Callable[[int], None], allowed_log: list[str]
) -> None:
    allowed_log.append("No space left on device|os error 28|ENOSPC|no space")
    with zenith.Repository.open(fresh) as repo:
        main = repo.branch("main")
        pg = main.compute(durability="pageserver")
        pg.start()
        with Ledger(pg.dsn, clients=1) as ledger:
            ledger.wait_for_more(20)
            # 130 MB, more than fits; without waiting for the page server, which cannot take it.
            pg.psql(
                "set synchronous_commit = local;"
                "create table filler (x text);"
                "alter table filler alter x set storage external;"
                "insert into filler select repeat('x', 6400) from generate_series(1, 20000)"
            )
            wait_until("saying so", lambda: "No space left" in repo.log.read_text())
            assert repo.pid is not None
            # It answers, and what it has it still serves.
            assert [branch.name for branch in repo.branches()] == ["main"]
            resize(1000)
            ledger.wait_for_more(20)
        pg.stop()
        pg.destroy()
        with main.compute() as pg:
            ledger.check_table(pg.dsn)
            assert pg.psql("select count(*) from filler") == "20000"
