"""What an operation is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..chance import Chance
from ..contents import LARGE_OBJECTS, Table
from ..line import Line
from ..session import Result, Session
from ..transaction import Transaction


class Operation(ABC):
    """Something that the workload does in one step.

    Its class says in its documentation which WAL it provokes. All that it decides it takes from
    ``chance``, and what it has done it writes down in the line's ledger.
    """

    weight: float = 1.0
    """How often it is done, compared with others."""

    on_branches = True
    """Whether it is done on short-lived branches as well."""

    @abstractmethod
    def run(self, line: Line, chance: Chance) -> None:
        """Does it, or nothing if there is nothing to do it with."""


def keeps_rows(transaction: Transaction, result: Result) -> None:
    """Notes that a statement has changed no row."""


def locks(table: str) -> Callable[[Transaction, Result], None]:
    """The same of a statement after which nobody else can read the table."""
    return lambda transaction, _: transaction.lock(table)


def indexes_for_cluster(session: Session, table: str) -> list[str]:
    """Names of the indexes by which a table can be put in order."""
    rows = session.quietly(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
        "join pg_class t on t.oid = i.indrelid join pg_am a on a.oid = c.relam "
        "where t.relname = %s and t.relkind = 'r' and i.indisvalid and i.indpred is null "
        "and a.amname in ('btree', 'gist') order by 1",
        (table,),
    )
    return [name for (name,) in rows]


def tables_of(line: Line, session: Session, latest: bool = False) -> dict[str, Table]:
    """The ordinary tables that the session sees, by name."""
    found = line.view(session, latest).in_database(session.database)
    found.pop(LARGE_OBJECTS, None)
    return found


def pick_table(
    line: Line, session: Session, chance: Chance, latest: bool = False
) -> tuple[str, Table] | None:
    """One of them, if there are any."""
    tables = tables_of(line, session, latest)
    if not tables:
        return None
    name = chance.pick(list(tables))
    return name, tables[name]


def indexes_of(session: Session, table: str, method: str | None = None) -> list[str]:
    """Names of the indexes of a table as the session sees it, without the primary key's."""
    rows = session.quietly(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
        "join pg_class t on t.oid = i.indrelid join pg_am a on a.oid = c.relam "
        "where t.relname = %s and t.relkind = 'r' and not i.indisprimary and i.indisvalid "
        "and a.amname like %s order by 1",
        (table, method or "%"),
    )
    return [name for (name,) in rows]
