"""Branches at every sort of place in the log: borders of pages and segments, inside of records."""

import re
from pathlib import Path

import zenith
from fixtures import postgres
from fixtures.verify import Verify
from zenith import Lsn

PAGE, SEGMENT = 8192, 1 << 24
SHORT_HEADER, LONG_HEADER = 24, 40


def at_row(pg: zenith.Compute, n: int) -> Lsn:
    """Inserts a row and gives the end of the log then."""
    pg.psql(f"insert into t values ({n})")
    return postgres.received_lsn(pg)


def emit(pg: zenith.Compute, size: int) -> None:
    """Writes one record that is ``size`` bytes and a little more long."""
    pg.psql(f"select pg_logical_emit_message(false, 'x', repeat('x', {size}))")


def rows(repo: zenith.Repository, name: str, lsn: Lsn | int) -> str:
    """Makes a branch there, inserts into it, and gives the rows it had."""
    branch = repo.create_branch(name, at=("main", Lsn(int(lsn))))
    with branch.compute() as pg:
        found = pg.psql("select string_agg(n::text, ',' order by n) from t")
        pg.psql("insert into t values (1000)")
        assert pg.psql("select max(n), count(*) from t where n = 1000") == "1000|1"
    branch.compute().destroy()
    return found


def test_records_larger_than_pages_and_segments(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int); create table wide (x text)")
        pg.psql("alter table wide alter x set storage external")
        start = at_row(pg, 1)
        emit(pg, 70_000)
        long = at_row(pg, 2)
        # Over two whole segments.
        emit(pg, 40_000_000)
        large = at_row(pg, 3)
        assert int(large) - int(long) > 40_000_000
        # A commit that is itself longer than a page: each of its subtransactions and relations.
        pg.psql(
            "do $$ begin for i in 1 .. 3000 loop begin"
            " if i <= 300 then execute 'create temp table x' || i || '()'; end if;"
            " insert into wide values ('x'); exception when others then raise; end;"
            " end loop; end $$"
        )
        end = at_row(pg, 4)
        pg.kill()
    assert rows(repo, "long", long) == "1,2"
    assert rows(repo, "large", large) == "1,2,3"
    # Inside of a record: that is where it began.
    for number, lsn in enumerate(
        (
            int(start) + 500,
            (int(start) // PAGE + 1) * PAGE,
            (int(start) // PAGE + 1) * PAGE + SHORT_HEADER,
            (int(start) // PAGE + 2) * PAGE + 777,
        )
    ):
        assert int(start) < lsn < int(long) - 200
        assert rows(repo, f"in_long{number}", lsn) == "1"
    for number, lsn in enumerate(
        (
            int(long) + 12_345,
            (int(long) // SEGMENT + 1) * SEGMENT,
            (int(long) // SEGMENT + 1) * SEGMENT + LONG_HEADER,
            (int(long) // SEGMENT + 2) * SEGMENT + 8,
        )
    ):
        assert int(long) < lsn < int(large) - 200
        assert rows(repo, f"in_large{number}", lsn) == "1,2"
    verify(f"main@{large}", f"main@{end}", "in_large1")
    # Behind the long record the page server reads it again when it is asked for that state.
    repo.restart()
    assert rows(repo, "again", end) == "1,2,3,4"


def fill_up(pg: zenith.Compute, place: int) -> None:
    """Writes one record that ends at ``place`` on a page; 0 is the end of the one before."""
    # Of a message, 24 bytes are the record's header, 5 its data's, 24 its own, 2 the prefix.
    for _ in range(20):
        here = int(postgres.insert_lsn(pg)) % PAGE
        room = (place - here) % PAGE
        # The rest of the page, and once more the header of the next one if it goes over.
        size = room - (24 + 5 + 24 + 2)
        if here > (place or PAGE):
            size -= SHORT_HEADER
        if size > 300:
            emit(pg, size)
            if int(postgres.insert_lsn(pg)) % PAGE == (place or SHORT_HEADER):
                return
        else:
            emit(pg, 3000)
    raise AssertionError("other records always came in between")


def test_at_the_border_of_a_page(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        at_row(pg, 1)
        fill_up(pg, 0)
        border = postgres.insert_lsn(pg)
        at_row(pg, 2)
    page = int(border) // PAGE * PAGE
    assert int(border) in (page, page + SHORT_HEADER), border
    # The end of the record before, any place in the header, and behind it mean the same.
    bases = set()
    for offset in (0, 8, SHORT_HEADER):
        branch = repo.create_branch(f"at{offset}", at=("main", Lsn(page + offset)))
        assert branch.ancestor is not None
        bases.add(int(branch.ancestor[1]))
        with branch.compute() as pg:
            assert pg.psql("select count(*) from t") == "1"
            pg.psql("insert into t values (1000)")
            pg.restart(immediate=True)
            assert pg.psql("select count(*) from t") == "2"
    assert bases == {page + SHORT_HEADER}
    verify("main", "at0", "at24")


def test_switches(repo: zenith.Repository, main: zenith.Branch, verify: Verify) -> None:
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        before = at_row(pg, 1)
        switch = Lsn(pg.psql("select pg_switch_wal()"))
        segment = (int(switch) // SEGMENT + 1) * SEGMENT
        at_row(pg, 2)
        # Right behind a switch nothing is switched; and one whose record ends with its page.
        pg.psql("select pg_switch_wal()")
        pg.psql("select pg_switch_wal()")
        at_row(pg, 3)
        fill_up(pg, PAGE - 24)
        full = Lsn(pg.psql("select pg_switch_wal()"))
        last = at_row(pg, 4)
    assert int(full) % PAGE in (0, SHORT_HEADER), full
    assert rows(repo, "before", before) == "1"
    # Behind the record, in the unused rest, where the next segment begins, and behind its header.
    for number, lsn in enumerate((int(switch), int(switch) + 5000, segment, segment + LONG_HEADER)):
        assert rows(repo, f"switch{number}", lsn) == "1"
    for number, lsn in enumerate((int(full), (int(full) // SEGMENT + 1) * SEGMENT)):
        assert rows(repo, f"full{number}", lsn) == "1,2,3"
    assert rows(repo, "last", last) == "1,2,3,4"
    verify("main", "switch2", "full0", "full1")
    repo.restart()
    assert rows(repo, "again", last) == "1,2,3,4"


def wal_of(pgdata: Path) -> set[str]:
    return {p.name for p in (pgdata / "pg_wal").iterdir() if re.fullmatch("[0-9A-F]{24}", p.name)}


def test_a_branch_that_ends_where_a_segment_does(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    """A compute's first segment is made for it, here one of nothing but a header."""
    with main.compute() as pg:
        pg.psql("create table t (n int)")
        pg.psql("select pg_switch_wal()")
        lsn = postgres.insert_lsn(pg)
    branch = repo.create_branch("dev", at=("main", Lsn(int(lsn) // SEGMENT * SEGMENT)))
    assert branch.ancestor is not None
    assert int(branch.ancestor[1]) % SEGMENT == LONG_HEADER
    with branch.compute() as pg:
        assert len(wal_of(pg.pgdata)) == 1
        pg.psql("insert into t select generate_series(1, 1000)")
        pg.psql("select pg_switch_wal()")
        pg.psql("insert into t select generate_series(1, 1000)")
        pg.restart(immediate=True)
        assert pg.psql("select count(*) from t") == "2000"
    branch.compute().destroy()
    with branch.compute() as pg:
        assert pg.psql("select count(*) from t") == "2000"
    verify("dev")
