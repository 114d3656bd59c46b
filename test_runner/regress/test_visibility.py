"""The visibility map after every kind of change: what it says of a page must be true.

Records of table changes clear bits of the map without naming its page. A bit that stays shows only
later: as rows that an index-only scan finds though they are deleted, or as a transaction id that
nobody froze and that is gone from the commit log.
"""

from collections.abc import Callable

import zenith
from fixtures import postgres
from fixtures.counters import cross_transactions, freeze_everything, prepare_crossing
from fixtures.verify import Verify

VISIBLE, FROZEN = 1, 2
PAGE_HEADER = 24


def change_by_sql(sql: str) -> Callable[[zenith.Compute], None]:
    return lambda pg: void(pg.psql(sql))


def void(_: object) -> None:
    pass


def copy_rows(pg: zenith.Compute) -> None:
    with (
        pg.connect() as connection,
        connection.cursor() as cursor,
        cursor.copy("copy multi_insert from stdin") as copy,
    ):
        for n in range(10_001, 10_011):
            copy.write_row((n, "copied"))


# By table: the record that must come, its change, how many rows are there then, and which bits
# of the table's first page stay. (Heap2's LOCK_UPDATED clears bits only of pages with a row version
# that an open snapshot does not see, which therefore have none.)
CHANGES: dict[str, tuple[str, Callable[[zenith.Compute], None], int, int]] = {
    "inserted": ("INSERT", change_by_sql("insert into inserted values (10001, 'x')"), 901, 0),
    "deleted": ("DELETE", change_by_sql("delete from deleted where n = 500"), 899, 0),
    "updated": (
        "UPDATE",
        change_by_sql("update updated set v = repeat('y', 1500) where n = 500"),
        900,
        0,
    ),
    "hot_updated": (
        "HOT_UPDATE",
        change_by_sql("update hot_updated set v = 'y' where n = 101"),
        900,
        0,
    ),
    "locked": (
        "LOCK",
        change_by_sql("select * from locked where n = 101 for update"),
        900,
        VISIBLE,
    ),
    "multi_insert": ("MULTI_INSERT", copy_rows, 910, 0),
}

# The first hundred rows are gone, so that there is room on the first pages.
TABLE = """
create table {0} (n int, v text);
insert into {0} select n, 'old' from generate_series(1, 1000) n;
create index {0}_n on {0} (n);
delete from {0} where n <= 100;
vacuum (freeze) {0};
"""
# Where the records of changes of one table end.
RECORDS = """
select end_lsn from pg_get_wal_records_info('{start}', '{end}')
where resource_manager in ('Heap', 'Heap2') and record_type = '{record}'
  and block_ref like '%rel 1663/5/{node} %'
"""
UNSOUND = """
select (select count(*) from pg_check_visible('{0}')), (select count(*) from pg_check_frozen('{0}'))
"""


def map_bits(branch: zenith.Branch, node: int, lsn: zenith.Lsn, block: int) -> int:
    """The bits of one of the first pages, as the page server has them."""
    page = branch.get_page(1663, 5, node, 0, fork="vm", lsn=lsn)
    return page[PAGE_HEADER + block // 4] >> (block % 4 * 2) & 3


def test_every_kind_of_change(near_half: zenith.Repository, verify: Verify) -> None:
    main = near_half.branch("main")
    points = {}
    with main.compute() as pg:
        pg.psql("create extension pg_visibility")
        pg.psql("create extension pg_walinspect")
        prepare_crossing(pg)
        for table in CHANGES:
            postgres.script(pg.dsn, TABLE.format(table))
        pg.psql("checkpoint")
        for table, (record, change, _, _) in CHANGES.items():
            node = int(pg.psql(f"select pg_relation_filenode('{table}')"))
            start = postgres.insert_lsn(pg)
            change(pg)
            pg.psql("select pg_logical_emit_message(true, '', '')")
            last = postgres.received_lsn(pg)
            found = pg.psql(RECORDS.format(start=start, end=last, node=node, record=record))
            assert found, f"no record {record}"
            points[table] = node, start, zenith.Lsn(found.splitlines()[-1])
        # After the changes nothing is written to data files, nor any page logged as a whole.
        pg.kill()

    changed = {"deleted": 500, "updated": 500}
    for table, (_, _, _, stays) in CHANGES.items():
        node, start, end = points[table]
        block = 0 if table not in changed else (changed[table] - 1) // 226
        both = VISIBLE | FROZEN
        assert map_bits(main, node, start, block) == both, table
        assert map_bits(main, node, end, block) == stays, table
    # Where the row went that found no room.
    node, start, end = points["updated"]
    assert map_bits(main, node, start, 0) == VISIBLE | FROZEN
    assert map_bits(main, node, end, 0) == 0

    # Right behind each change, and behind all of them; there until what is old is removed, too.
    for table, (_, _, lsn) in points.items():
        branch = near_half.create_branch(table, at=("main", lsn))
        with branch.compute() as pg:
            assert pg.psql(UNSOUND.format(table)) == "0|0", table
        branch.compute().destroy()
    with near_half.create_branch("all", at=("main", last)).compute() as pg:
        index_only = "set enable_seqscan = off; set enable_bitmapscan = off; "
        assert "Index Only Scan" in pg.psql(f"{index_only} explain select count(n) from deleted")
        for table, (_, _, rows, _) in CHANGES.items():
            assert pg.psql(f"{index_only} select count(n) from {table}") == str(rows), table
            assert pg.psql(UNSOUND.format(table)) == "0|0", table
    with near_half.create_branch("frozen", at=("main", last)).compute() as pg:
        cross_transactions(pg)
        pg.psql("commit prepared 'over'")
        freeze_everything(pg)
        assert len(list((pg.pgdata / "pg_xact").iterdir())) == 1
        for table, (_, _, rows, _) in CHANGES.items():
            assert pg.psql(f"select count(*) from {table}") == str(rows), table
            assert pg.psql(UNSOUND.format(table)) == "0|0", table
            frozen = f"select bool_and(all_frozen) from pg_visibility_map('{table}')"
            assert pg.psql(frozen) == "t", table
    verify("main", "frozen")
