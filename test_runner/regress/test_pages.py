"""Pages read straight from the page server, without a compute."""

import struct
import subprocess
import threading
from pathlib import Path

import pytest
import zenith
from fixtures import data_directory
from fixtures.cli import USAGE, Cli, programs

PG_CLASS = (data_directory.DEFAULT_TABLESPACE, 1, 1259)  # In template1.


def last_change(page: bytes) -> zenith.Lsn:
    """The LSN in a page's header: two numbers of 32 bits, the high one first."""
    high, low = struct.unpack_from("<II", page)
    return zenith.Lsn(high << 32 | low)


def test_what_initdb_made(scratch: Path) -> None:
    repo, base = data_directory.init_and_keep(scratch)
    pages = 0
    with repo:
        main = repo.branch("main")
        for fork in data_directory.forks_in(base):
            at = fork.spc, fork.db, fork.rel
            theirs = list(fork.pages())
            assert main.rel_size(*at, fork=fork.fork) == len(theirs), fork
            if theirs:
                assert main.get_pages(*at, 0, len(theirs), fork=fork.fork) == theirs, fork
                assert main.get_page(*at, len(theirs) - 1, fork=fork.fork) == theirs[-1], fork
            pages += len(theirs)
    assert pages > 1000


def test_what_is_not_there(main: zenith.Branch) -> None:
    size = main.rel_size(*PG_CLASS)
    assert size
    with pytest.raises(zenith.NotFound):
        main.get_page(*PG_CLASS, size)
    with pytest.raises(zenith.NotFound):
        main.get_pages(*PG_CLASS, 0, size + 1)
    with pytest.raises(zenith.NotFound):
        main.get_page(*PG_CLASS[:2], 424242, 0)
    assert main.rel_size(*PG_CLASS[:2], 424242) is None
    assert main.rel_size(*PG_CLASS, fork="init") is None
    with pytest.raises(zenith.InvalidArgument):
        main.get_page(*PG_CLASS, 0, fork="nonsense")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        main.get_page(*PG_CLASS, -1)
    assert main.get_pages(*PG_CLASS, 0, 0) == []
    assert len(main.get_page(*PG_CLASS, 0)) == 8192


def test_before_the_beginning(main: zenith.Branch) -> None:
    with pytest.raises(zenith.BelowHorizon, match="0/28"):
        main.get_page(*PG_CLASS, 0, lsn="0/28")


def test_beyond_the_end(fresh: Path, cli: Cli) -> None:
    config = fresh / ".zenith" / "zenith.toml"
    config.write_text(
        config.read_text().replace("lsn_timeout_seconds = 30", "lsn_timeout_seconds = 1")
    )
    with zenith.Repository.open(fresh) as repo:
        main = repo.branch("main")
        with pytest.raises(zenith.LsnTimeout, match="F/0") as caught:
            main.get_page(*PG_CLASS, 0, lsn="F/0")
        assert str(main.last_record_lsn) in str(caught.value)


def test_survives_a_restart_of_the_page_server(
    repo: zenith.Repository, main: zenith.Branch
) -> None:
    page = main.get_page(*PG_CLASS, 0)
    repo.restart()
    assert main.get_page(*PG_CLASS, 0) == page
    repo.stop()
    with pytest.raises(zenith.PageServerNotRunning):
        main.get_page(*PG_CLASS, 0)
    repo.start()
    assert main.get_page(*PG_CLASS, 0) == page


def test_threads_run_while_one_waits(fresh: Path, cli: Cli) -> None:
    """The GIL is released: a thread that waits for an LSN holds up nobody."""
    config = fresh / ".zenith" / "zenith.toml"
    config.write_text(
        config.read_text().replace("lsn_timeout_seconds = 30", "lsn_timeout_seconds = 2")
    )
    with zenith.Repository.open(fresh) as repo:
        failures: list[zenith.Error] = []

        def wait() -> None:
            try:
                repo.branch("main").get_page(*PG_CLASS, 0, lsn="F/0")
            except zenith.Error as error:
                failures.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        main = repo.branch("main")
        done = 0
        while waiting.is_alive():
            assert len(main.get_page(*PG_CLASS, 0)) == 8192
            done += 1
        assert done > 10
        assert isinstance(failures[0], zenith.LsnTimeout)


def test_page_command(repo: zenith.Repository, main: zenith.Branch, cli: Cli) -> None:
    name = "/".join(map(str, PG_CLASS))
    page = main.get_page(*PG_CLASS, 3)
    lsn = main.last_record_lsn
    for point in ("main", f"main@{lsn}"):
        done = subprocess.run(
            [programs() / "zenith", "page", point, name, "3", "--raw"],
            cwd=cli.folder,
            capture_output=True,
            check=True,
        )
        assert done.stdout == page
    assert str(last_change(page)) in cli("page", "main", name, "3")
    cli.refused("page", "main", name, "999999")
    cli.refused("page", "main", "1663/1/424242", "0")
    cli.refused("page", "nowhere", name, "3")
    cli.refused("page", "main", "1663/1", "3", code=USAGE)
    cli.refused("page", "main", name, "x", code=USAGE)
    cli.refused("page", "main", name, "3", "--fork", "nonsense", code=USAGE)
