"""One record that clears bits in two pages of the visibility map.

A page of the map has bits for 32672 pages of the table, some 255 MB. An update that moves a row
from one side of such a border to the other is the only record that changes pages on both.
"""

import os

import psycopg
import zenith
from fixtures import postgres

FIRST, LAST = 32672, 32671
"""Pages of the table: the first with bits in the map's second page, the last in its first."""
VISIBLE, VISIBLE_AND_FROZEN = 1, 3
PAGE_HEADER = 24
PAGES_PER_MAP_PAGE = 32672
PAGE_SIZE = 8192

TABLES = """
create extension pg_visibility;
create extension pg_walinspect;
create table up (n int, v text);
alter table up alter v set storage plain;
create index on up (n);
create table down (like up including all);
"""
RECORDS = """
select end_lsn from pg_get_wal_records_info('{start}', '{end}')
where resource_manager = 'Heap' and record_type = 'UPDATE' and block_ref like '%rel 1663/5/{node} %'
"""
UNSOUND = """
select (select count(*) from pg_check_visible('{0}')), (select count(*) from pg_check_frozen('{0}'))
"""
INDEX_ONLY = "set enable_seqscan = off; set enable_bitmapscan = off; "


def copy_frozen(cursor: psycopg.Cursor, table: str, rows: range, length: int) -> None:
    """Fills new pages, which are all-visible and frozen from the beginning."""
    with cursor.copy(f"copy {table} from stdin (freeze)".encode()) as copy:
        for n in rows:
            copy.write_row((n, "x" * length))


def fill(pg: zenith.Compute, table: str, *, downwards: bool) -> None:
    """Makes both pages at the border all-visible, and one of them the one that has room."""
    with pg.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"truncate {table}".encode())
        row = cursor.execute("select pg_relation_filepath(%s)", (table,)).fetchone()
        assert row is not None
        # As a crash leaves a file that was made longer, and nothing written there.
        os.truncate(pg.pgdata / row[0], FIRST * PAGE_SIZE)
        if downwards:
            copy_frozen(cursor, table, range(4), 900)
            # It does not fit, and that makes the room on the page known.
            cursor.execute(f"insert into {table} values (-1, repeat('x', 7400))".encode())
            copy_frozen(cursor, table, range(100, 108), 900)
        else:
            copy_frozen(cursor, table, range(12), 900)


def place(pg: zenith.Compute, table: str, row: int) -> int:
    """The page that the row is on."""
    return int(pg.psql(f"{INDEX_ONLY} select (ctid::text::point)[0] from {table} where n = {row}"))


def bits(branch: zenith.Branch, node: int, lsn: zenith.Lsn, block: int) -> int:
    """What the page server's map says of a page of the table."""
    page = branch.get_page(1663, 5, node, block // PAGES_PER_MAP_PAGE, fork="vm", lsn=lsn)
    at = block % PAGES_PER_MAP_PAGE
    return page[PAGE_HEADER + at // 4] >> (at % 4 * 2) & 3


def test_update_over_the_border(repo: zenith.Repository, main: zenith.Branch) -> None:
    # By table: the row, from where to where it moves.
    moves = {"up": (0, LAST, FIRST), "down": (100, FIRST + 1, LAST)}
    points = {}
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLES)
        for table in moves:
            fill(pg, table, downwards=table == "down")
        # So that the maps' pages are not logged as a whole by what comes.
        pg.psql("checkpoint")
        for table, (row, old, new) in moves.items():
            node = int(pg.psql(f"select pg_relation_filenode('{table}')"))
            start = postgres.insert_lsn(pg)
            assert place(pg, table, row) == old
            pg.psql(f"update {table} set v = repeat('y', 2000) where n = {row}")
            assert place(pg, table, row) == new
            last = postgres.received_lsn(pg)
            ends = pg.psql(RECORDS.format(start=start, end=last, node=node)).splitlines()
            assert len(ends) == 1
            points[table] = node, start, zenith.Lsn(ends[0])
        # Then nothing is written to data files, nor any page logged as a whole.
        pg.kill()

    for table, (_, old, new) in moves.items():
        node, start, end = points[table]
        for block in (old, new):
            assert bits(main, node, start, block) == VISIBLE_AND_FROZEN, (table, block)
            assert bits(main, node, end, block) == 0, (table, block)
        # Just before it: the old row was locked while the new one's page was looked for.
        before = zenith.Lsn(int(end) - 8)
        assert bits(main, node, before, old) == VISIBLE
        assert bits(main, node, before, new) == VISIBLE_AND_FROZEN

    for table, (row, _, _) in moves.items():
        branch = repo.create_branch(table, at=("main", points[table][2]))
        with branch.compute() as pg:
            # The update's transaction has not ended there.
            explained = pg.psql(f"{INDEX_ONLY} explain select n from {table} where n = {row}")
            assert "Index Only Scan" in explained
            found = f"{INDEX_ONLY} select count(n) from {table} where n = {row}"
            assert pg.psql(found) == "1"
            assert pg.psql(UNSOUND.format(table)) == "0|0"
            pg.psql(f"delete from {table} where n = {row}")
            assert pg.psql(found) == "0"
    with repo.create_branch("all", at=("main", last)).compute() as pg:
        for table, (row, _, new) in moves.items():
            assert pg.psql(f"{INDEX_ONLY} select count(n) from {table} where n = {row}") == "1"
            assert place(pg, table, row) == new
            assert pg.psql(UNSOUND.format(table)) == "0|0"
