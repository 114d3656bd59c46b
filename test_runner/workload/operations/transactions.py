"""Transactions of several statements, their parts, and those that outlive their session."""

from abc import abstractmethod

from ..chance import Chance
from ..contents import Table
from ..line import Line
from ..session import Session
from ..transaction import Transaction
from .base import Operation, pick_table, tables_of

PREPARED_MAX = 4


class Begin(Operation):
    """Nothing yet: what follows is not committed when other things happen."""

    weight = 9

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session is None:
            return
        keeps = chance.often(0.2)
        session.run("begin isolation level repeatable read" if keeps else "begin")
        if keeps:
            session.run("select 1")  # Takes the snapshot.
        session.transaction = Transaction(session.database, line.committed, keeps)


def in_transaction(line: Line, chance: Chance) -> tuple[Session, Transaction] | None:
    """A session that is in a transaction, if there is one."""
    sessions = [s for s in line.sessions if s.transaction]
    if not sessions:
        return None
    session = chance.pick(sessions)
    assert session.transaction
    return session, session.transaction


def commit(line: Line, session: Session, transaction: Transaction) -> None:
    """Commits it."""
    after = line.insert_lsn()
    session.run("commit")
    session.transaction = None
    line.enter_commit(after, transaction, "commit")


class Commit(Operation):
    """Commits with subtransactions, dropped files and invalidations; bits of the commit log."""

    weight = 10

    def run(self, line: Line, chance: Chance) -> None:
        if found := in_transaction(line, chance):
            commit(line, *found)


class Rollback(Operation):
    """Aborts, with subtransactions and files that were made in vain."""

    weight = 4

    def run(self, line: Line, chance: Chance) -> None:
        if found := in_transaction(line, chance):
            found[0].run("rollback")
            found[0].transaction = None


class Savepoint(Operation):
    """Subtransactions: ids are assigned in groups, with a record each 64."""

    weight = 8

    def run(self, line: Line, chance: Chance) -> None:
        if found := in_transaction(line, chance):
            session, transaction = found
            name = f"p{line.names.next()}"
            session.run(f"savepoint {name}")
            transaction.savepoint(name)


class _ToSavepoint(Operation):
    """Goes back to a savepoint that chance picks, or gives it up."""

    statement: str

    @abstractmethod
    def end(self, transaction: Transaction, name: str) -> None:
        """Notes what has become of what was done since."""

    def run(self, line: Line, chance: Chance) -> None:
        found = in_transaction(line, chance)
        if found and found[1].savepoints:
            session, transaction = found
            name = chance.pick([name for name, _ in transaction.savepoints])
            session.run(f"{self.statement} savepoint {name}")
            self.end(transaction, name)


class RollbackTo(_ToSavepoint):
    """Aborts of subtransactions."""

    weight = 4
    statement = "rollback to"

    def end(self, transaction: Transaction, name: str) -> None:
        transaction.rollback_to(name)


class Release(_ToSavepoint):
    """No record; the children are then part of their parent."""

    weight = 2
    statement = "release"

    def end(self, transaction: Transaction, name: str) -> None:
        transaction.release(name)


class ManySubtransactions(Operation):
    """More subtransactions than a server keeps in memory, some aborted; now and then so many that
    their ids, and the one commit of all of them, spread over pages of the commit log."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name = found[0]
        count = chance.between(3000, 9000) if chance.often(0.08) else chance.between(65, 300)
        each, nested = chance.between(2, 5), chance.often(0.4)
        # Few rows for many subtransactions, so that tables stay small.
        rows = line.names.rows(min(count, 200))
        first = rows[0]
        kept = {n for k, n in enumerate(rows, 1) if k % each}
        body = (
            f"insert into {name} (id, rev, note) values ({first} + k - 1, 0, 0);"
            if not nested
            else f"begin insert into {name} (id, rev, note) values ({first} + k - 1, 0, 0); "
            "exception when division_by_zero then raise; end;"
        )
        sql = (
            f"do $$ declare k int; n int := 0; begin for k in 1..{count} loop begin "
            f"if k <= {len(rows)} then {body} else perform pg_current_xact_id(); "
            f"end if; if k % {each} = 0 then n := 1 / 0; end if; "
            "exception when division_by_zero then null; end; end loop; end $$"
        )
        line.change(session, sql, lambda txn, _: txn.change(name, dict.fromkeys(kept, (0, 0))))


class BurnTransactionIds(Operation):
    """Thousands of transaction ids: new pages of the commit log."""

    weight = 0.4

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session is None:
            return
        count = chance.skewed(500, 12000)
        session.run(
            f"do $$ begin for k in 1..{count} loop perform pg_current_xact_id(); rollback; "
            "end loop; end $$"
        )


class Prepare(Operation):
    """Prepared transactions: their state is in the record, and in a file from the next checkpoint
    on; they outlive sessions, crashes and branches."""

    weight = 4

    def run(self, line: Line, chance: Chance) -> None:
        found = in_transaction(line, chance)
        if not found or len(line.prepared) >= PREPARED_MAX:
            return
        session, transaction = found
        tables = tables_of(line, session)
        before = line.committed.in_database(session.database)
        touched = transaction.touched_tables()
        # What a crash leaves of their rows would depend on when it comes.
        if any(is_unlogged(n, tables) or is_unlogged(n, before) for n in touched):
            return
        name = f"g{line.names.next()}"
        after = line.insert_lsn()
        session.run(f"prepare transaction '{name}'")
        session.transaction = None
        line.enter(after, line.committed, {**line.prepared, name: transaction}, f"prepare {name}")


def is_unlogged(name: str, tables: dict[str, Table]) -> bool:
    """Whether there is an unlogged table of that name."""
    return name in tables and tables[name].persistence == "unlogged"


class FinishPrepared(Operation):
    """Commits and aborts of prepared transactions, by any session."""

    weight = 4

    def run(self, line: Line, chance: Chance) -> None:
        if not line.prepared:
            return
        name = chance.pick(sorted(line.prepared))
        finish_prepared(line, name, chance.often(0.7))


def finish_prepared(line: Line, name: str, commits: bool) -> None:
    """Commits or rolls back a prepared transaction."""
    transaction = line.prepared[name]
    session = Session("finish", line.compute, line.report)
    session.connect(transaction.database)
    after = line.insert_lsn()
    session.run(f"{'commit' if commits else 'rollback'} prepared '{name}'")
    session.close()
    contents = transaction.laid_over(line.committed) if commits else line.committed
    rest = {k: v for k, v in line.prepared.items() if k != name}
    line.enter(after, contents, rest, f"finish {name}")


OPERATIONS: list[Operation] = [
    Begin(),
    Commit(),
    Rollback(),
    Savepoint(),
    RollbackTo(),
    Release(),
    ManySubtransactions(),
    BurnTransactionIds(),
    Prepare(),
    FinishPrepared(),
]
