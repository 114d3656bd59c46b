"""Damaged WAL stops ingest with the LSN named, hides nothing before it, and is made good."""

from pathlib import Path

import psycopg
import pytest
import zenith
from fixtures.cli import Cli
from fixtures.flipping_proxy import FlippingProxy
from fixtures.waiting import wait_until

SEGMENT_BYTES = 1 << 24
ROWS = "insert into t select n, repeat('x', 500) from generate_series(1, 4000) n"
COUNT = "select count(*) from t"


def rows(repo: zenith.Repository, command: str) -> list[dict[str, str | None]]:
    """What the page server answers to a command."""
    with psycopg.connect(repo.connstr, autocommit=True) as connection:
        cursor = connection.execute(command.encode())
        names = [column.name for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def branch_row(repo: zenith.Repository, name: str = "main") -> dict[str, str | None]:
    return next(row for row in rows(repo, "branch_list") if row["name"] == name)


def flushed(pg: zenith.Compute) -> zenith.Lsn:
    return zenith.Lsn(pg.psql("select pg_current_wal_flush_lsn()"))


def wait_received(repo: zenith.Repository, lsn: zenith.Lsn) -> None:
    def has_it() -> bool:
        row = rows(repo, "timeline_show main")[0]
        return zenith.Lsn(row["flushed_lsn"] or "0/0") >= lsn

    wait_until(f"receiving up to {lsn}", has_it)


def is_running(repo: zenith.Repository, name: str) -> bool:
    return rows(repo, f"timeline_show {name}")[0]["state"] == "running"


def segment_of(repo: zenith.Repository, main: zenith.Branch, lsn: zenith.Lsn) -> Path:
    number = int(lsn) // SEGMENT_BYTES
    per_id = (1 << 32) // SEGMENT_BYTES
    name = f"{1:08X}{number // per_id:08X}{number % per_id:08X}"
    return repo.path / "timelines" / main.timeline / "wal" / name


def test_bit_flipped_on_the_way(
    repo: zenith.Repository, main: zenith.Branch, allowed_log: list[str]
) -> None:
    allowed_log.append("no more WAL is taken in|receiving WAL failed|is not valid")
    with main.compute() as pg:
        pg.psql("create table t (n int, x text)")
        before = flushed(pg)
        wait_received(repo, before)
        writer = rows(repo, "writer_show main")[0]
        with FlippingProxy(pg.port) as proxy:
            server = f"host=127.0.0.1 port={proxy.port} user=postgres"
            instance = f"{writer['instance']} {writer['generation']}"
            rows(repo, f"callmemaybe main '{server}' {instance}")
            wait_until("following", lambda: rows(repo, "compute_list")[0]["state"] == "streaming")
            proxy.bad = True
            pg.psql(ROWS)
            end = flushed(pg)
            wait_until("stopping", lambda: branch_row(repo)["state"] == "stopped")
            row = branch_row(repo)
            stop = zenith.Lsn(row["stopped_lsn"] or "0/0")
            assert before <= stop < end
            found = repo.branch("main").stop
            assert found is not None
            assert found[0] == stop
            assert str(stop) in found[1]
            # Who asks for more is told at once, and what came before is all there.
            with pytest.raises(zenith.PageServerError, match=f"stopped at {stop}"):
                repo.create_branch("behind", f"main@{end}")
            repo.create_branch("before", f"main@{before}")
            proxy.bad = False
            wait_received(repo, end)
            assert branch_row(repo)["state"] == "running"
        assert proxy.flipped
    with repo.create_branch("copy").compute() as copy:
        assert copy.psql(COUNT) == "4000"


def test_segment_damaged_on_disk(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    allowed_log.append("cannot be read to its end|damaged on disk|page request failed|stopped at")
    with main.compute() as pg:
        pg.psql("create table t (n int, x text)")
        pg.psql(ROWS)
        before = flushed(pg)
        wait_received(repo, before)
        pg.psql(ROWS)
        wait_received(repo, flushed(pg))
    repo.create_branch("early", f"main@{before}")
    late = repo.create_branch("late")
    repo.stop()
    path = segment_of(repo, main, before)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[(int(before) + 100_000) % SEGMENT_BYTES] ^= 1
    path.write_bytes(damaged)
    repo.start()

    row = rows(repo, "timeline_show main")[0]
    assert row["state"] == "damaged"
    stop = row["stopped_lsn"]
    assert stop is not None
    assert zenith.Lsn(stop) > before
    assert stop in cli("status")
    assert stop in cli.run("branch").stderr
    with repo.branch("early").compute("early") as early:
        assert early.psql(COUNT) == "4000"
    assert late.ancestor is not None
    point = f"late@{late.ancestor[1]}"
    for refused in [("branch", "more", "main"), ("pg", "create", "new", "--at", point)]:
        line = cli.refused(*refused)
        assert stop in line, line
        assert "checksum" in line, line
    assert path.read_bytes() == damaged, "nothing is changed by itself"

    # Put back, without a restart.
    path.write_bytes(whole)
    wait_until("noticing", lambda: is_running(repo, "main"))
    wait_until("noticing", lambda: is_running(repo, "late"))
    with late.compute("late") as pg:
        assert pg.psql(COUNT) == "8000"

    # Damaged once more, and this time the compute sends it again.
    repo.stop()
    path.write_bytes(damaged)
    repo.start()
    with repo.compute("main") as pg:
        wait_received(repo, flushed(pg))
        assert is_running(repo, "main")
    aside = list(path.parent.glob("*.aside*"))
    assert any(kept.read_bytes() == damaged for kept in aside)
    healed = path.read_bytes()
    assert healed.startswith(whole) or whole.startswith(healed)
    with repo.create_branch("healed").compute() as pg:
        assert pg.psql(COUNT) == "8000"
