"""Indexes and visibility maps against the tables they belong to."""

from ..contents import QUESTIONS
from ..line import Line
from ..report import Failure
from ..session import Result, Session
from .contents import blocked_tables

SCANS = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
BTREES = (
    "select c.oid::regclass::text, t.relname from pg_index i "
    "join pg_class c on c.oid = i.indexrelid join pg_class t on t.oid = i.indrelid "
    "join pg_am a on a.oid = c.relam "
    "where a.amname = 'btree' and i.indisvalid and c.relpersistence <> 't' "
    "and (t.relnamespace = 'public'::regnamespace or {}) order by 1"
)
# Tables and what they keep out of line.
HEAPS = (
    "select c.oid::regclass::text, coalesce(p.relname, c.relname) from pg_class c "
    "left join pg_class p on p.reltoastrelid = c.oid where c.relkind in ('r', 't', 'm') "
    "and (coalesce(p.relnamespace, c.relnamespace) = 'public'::regnamespace or {}) order by 1"
)


def check_indexes(line: Line, with_catalogs: bool) -> None:
    """Everything that PostgreSQL's own checkers know, and answers by index and without."""
    for database in sorted(line.committed.databases):
        session = Session("check", line.compute, line.report)
        session.connect(database)
        blocked = blocked_tables(line, database)
        for name in line.committed.in_database(database):
            if name not in blocked and not name.startswith("("):
                _compare_answers(line, session, name)
        _check_structure(line, session, blocked, with_catalogs)
        session.close()
    line.report.count("checks of indexes")


def _compare_answers(line: Line, session: Session, name: str) -> None:
    questions = ", ".join(
        f"(select (count(*), sum(id::bigint), sum(id::bigint * id))::text from {name} where {q})"
        for q in QUESTIONS
    )
    for scan in SCANS:
        session.quietly(f"set {scan} = off")
    by_table = session.run(f"select {questions}")[0]
    for scan in SCANS:
        session.quietly(f"set {scan} = on")
    session.quietly("set enable_seqscan = off")
    by_index = session.run(f"select {questions}")[0]
    session.quietly("set enable_bitmapscan = off")
    ids_by_index = session.run(f"select id from {name} order by id")
    session.quietly("set enable_seqscan = on; set enable_indexonlyscan = off")
    session.quietly("set enable_indexscan = off")
    ids_by_table = session.run(f"select id from {name} order by id")
    session.quietly("reset all")
    where = f"{line.branch.name}/{session.database}/{name}"
    for question, table, index in zip(QUESTIONS, by_table, by_index, strict=True):
        if table != index:
            raise Failure(f"{where}: {question}: by index {index}, by table {table}")
    if ids_by_index != ids_by_table:
        raise Failure(f"{where}: ids by index-only scan are not those of the table")


def _check_structure(line: Line, session: Session, blocked: set[str], with_catalogs: bool) -> None:
    where = f"{line.branch.name}/{session.database}"
    for index, table in session.quietly(BTREES.format(str(with_catalogs))):
        if table not in blocked:
            _must_be_silent(session, f"select bt_index_check('{index}', true)::text", where)
    # A snapshot of ours may hold back what others think visible to all, and the other way round.
    is_quiet = not line.prepared and not line.open_transactions()
    for heap, table in session.quietly(HEAPS.format(str(with_catalogs))):
        if table in blocked:
            continue
        _must_be_silent(session, f"select * from verify_heapam('{heap}')", where)
        _must_be_silent(session, f"select * from pg_check_frozen('{heap}')", where)
        if is_quiet:
            _must_be_silent(session, f"select * from pg_check_visible('{heap}')", where)


def _must_be_silent(session: Session, sql: str, where: str) -> None:
    result: Result = session.try_to(sql)
    rows = [row for row in result.rows if row != ("",)]
    if rows:
        raise Failure(f"{where}: {sql}: {rows[:5]} ({len(rows)})")
