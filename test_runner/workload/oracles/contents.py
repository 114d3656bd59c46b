"""The ledger: what was acknowledged is there, what was taken back is not, on any branch."""

import dataclasses

from ..contents import LARGE_OBJECTS, Contents, Rows, Table, tell_difference
from ..history import Moment
from ..line import Line
from ..operations.objects import PIECES
from ..report import Failure
from ..session import Session

TABLES = (
    "select relname, relpersistence::text from pg_class "
    "where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1"
)
DATABASES = "select datname from pg_database where datname like 'w%' order by 1"
TABLESPACES = "select spcname from pg_tablespace where spcname like 's%' order by 1"
PREPARED = "select gid from pg_prepared_xacts order by 1"
SEQUENCES = (
    "select relname, relpersistence::text from pg_class "
    "where relkind = 'S' and relnamespace = 'public'::regnamespace order by 1"
)
TIMESTAMPS = "select x, pg_xact_commit_timestamp(x::xid)::text from unnest(%s::text[]) as x"
LARGE = "select m.oid::int, md5(lo_get(m.oid)) from pg_largeobject_metadata m order by 1"


def blocked_tables(line: Line, database: str) -> set[str]:
    """Names of the tables that an open or prepared transaction has locked exclusively."""
    transactions = [*line.open_transactions(), *line.prepared.values()]
    names = (t.locked_tables() for t in transactions if t.database == database)
    return {name for group in names for name in group}


def adopt_moment(line: Line, moments: list[Moment]) -> None:
    """Finds out which of the states that are possible a new branch is in, and takes it over.

    Databases and prepared transactions tell some of them apart, the names of tables and their rows
    the rest.
    """
    databases = {name for (name,) in line.watch.run(DATABASES)}
    tablespaces = {name for (name,) in line.watch.run(TABLESPACES)}
    prepared = {name for (name,) in line.watch.run(PREPARED)}
    possible = [
        m
        for m in moments
        if m.contents.databases == databases
        and m.contents.tablespaces == tablespaces
        and set(m.prepared) == prepared
    ]
    if not possible:
        told = [
            (m.what, *map(sorted, (m.contents.databases, m.contents.tablespaces, m.prepared)))
            for m in moments
        ]
        raise Failure(
            f"{line.branch.name}: databases {sorted(databases)}, tablespaces "
            f"{sorted(tablespaces)} and prepared transactions {sorted(prepared)} where there "
            f"must be {told}"
        )
    for moment in possible:
        line.committed, line.prepared = moment.contents.after_crash(), moment.prepared
        line.connect()
        try:
            check_contents(line)
        except Failure:
            if moment is possible[-1]:
                raise
            line.report.say(f"{line.branch.name}: not yet or no more: {moment.what}")
        else:
            break
    line.history = type(line.history)(
        dataclasses.replace(
            possible[0],
            after=line.start_lsn,
            until=line.start_lsn,
            contents=line.committed,
            prepared=line.prepared,
        )
    )


def check_contents(line: Line) -> None:
    """Reads everything in all databases and compares it with the ledger."""
    for database in sorted(line.committed.databases):
        session = Session("check", line.compute, line.report)
        session.connect(database)
        _check_database(line, session, line.committed)
        session.close()
    _check_timestamps(line)
    line.report.count("comparisons with the ledger")


def _check_timestamps(line: Line) -> None:
    expected = line.committed.timestamps
    if not expected:
        return
    found = dict(line.watch.quietly(TIMESTAMPS, (list(expected),)))
    wrong = [(xid, time, found[xid]) for xid, time in expected.items() if found[xid] != time]
    if wrong:
        raise Failure(f"{line.branch.name}: wrong times of commits {wrong[:5]} ({len(wrong)})")
    line.report.count("times of commits compared", len(expected))


def _check_database(line: Line, session: Session, contents: Contents) -> None:
    database = session.database
    where = f"{line.branch.name}/{database}"
    expected = contents.in_database(database)
    large = expected.pop(LARGE_OBJECTS)
    persistence = {"p": "logged", "u": "unlogged"}
    found = {name: persistence[kind] for name, kind in session.run(TABLES)}
    wanted = {name: table.persistence for name, table in expected.items()}
    if found != wanted:
        raise Failure(f"{where}: tables {found} where there must be {wanted}")
    blocked = blocked_tables(line, database)
    for name, table in expected.items():
        if name not in blocked:
            _check_table(f"{where}/{name}", session, name, table)
    _check_large_objects(where, session, large)
    _check_sequences(where, session, contents)


def _check_table(where: str, session: Session, name: str, table: Table) -> None:
    found = session.run(f"select id, rev, note from {name}")
    rows: Rows = {number: (rev, note) for number, rev, note in found}
    if rows != table.rows or len(found) != len(rows):
        tell_difference(where, table.rows, rows)
    wrong = session.run(f"select id from {name} where {table.wrong_payload()} limit 10")
    if wrong:
        raise Failure(f"{where}: wrong bytes in the rows {[n for (n,) in wrong]}")


def _check_large_objects(where: str, session: Session, table: Table) -> None:
    found = dict(session.run(LARGE))
    if set(found) != set(table.rows):
        raise Failure(
            f"{where}: large objects {sorted(found)} where there must be {sorted(table.rows)}"
        )
    for number, (rev, _) in table.rows.items():
        data = f"noise({number}, {rev}, {PIECES.format(number, rev)})"
        if session.quietly(f"select md5({data})")[0][0] != found[number]:
            raise Failure(f"{where}: wrong bytes in the large object {number}")


def _check_sequences(where: str, session: Session, contents: Contents) -> None:
    found = {name for name, _ in session.run(SEQUENCES)}
    wanted = {
        name: last for (db, name), last in contents.sequences.items() if db == session.database
    }
    if found != set(wanted):
        raise Failure(f"{where}: sequences {sorted(found)} where there must be {sorted(wanted)}")
    for name, last in wanted.items():
        value, is_called = session.run(f"select last_value, is_called from {name}")[0]
        if not name.startswith("u") and (value if is_called else value - 1) < last:
            raise Failure(f"{where}: {name} is at {value}, and {last} was given out")
