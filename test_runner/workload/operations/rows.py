"""Changes of rows."""

from ..chance import Chance
from ..contents import Row, Table
from ..line import Line
from ..report import Failure
from ..session import Result, Session
from ..transaction import Transaction
from .base import Operation, pick_table

MAX_ROWS = 3000


def check_affected(what: str, result: Result, wanted: set[int]) -> None:
    """The server must have found exactly the rows that the ledger knows."""
    found = {row[0] for row in result.rows}
    if found != wanted or len(result.rows) != len(wanted):
        raise Failure(
            f"{what}: rows missed {sorted(wanted - found)[:10]}, "
            f"rows that should not be there {sorted(found - wanted)[:10]}, "
            f"{len(result.rows)} rows for {len(wanted)}"
        )


def insert(line: Line, session: Session, name: str, ids: list[int]) -> None:
    """Inserts rows in one statement."""
    line.change(
        session,
        f"insert into {name} (id, rev, note) select i, 0, 0 from unnest(%s::int[]) as i",
        lambda txn, _: txn.change(name, dict.fromkeys(ids, (0, 0))),
        (ids,),
    )


class Insert(Operation):
    """Heap inserts, on old pages and new ones; entries of all indexes, page splits among them."""

    weight = 10

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found or len(found[1].rows) > MAX_ROWS:
            return
        insert(line, session, found[0], line.names.rows(chance.skewed(1, 600)))


class Copy(Operation):
    """Heap multi-inserts, with and without new pages."""

    weight = 5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found or len(found[1].rows) > MAX_ROWS:
            return
        name, ids = found[0], line.names.rows(chance.skewed(1, 1000))
        line.change(
            session,
            f"copy {name} (id, rev, note) from stdin",
            lambda txn, _: txn.change(name, dict.fromkeys(ids, (0, 0))),
            copy="".join(f"{number}\t0\t0\n" for number in ids).encode(),
        )


class Upsert(Operation):
    """Speculative inserts and their confirmation; for rows that are there, updates."""

    weight = 3

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name, table = found
        old = chance.some(sorted(table.rows), chance.skewed(0, 20))
        ids = old + line.names.rows(chance.skewed(1, 20))

        def note(transaction: Transaction, result: Result) -> None:
            check_affected(f"upsert into {name}", result, set(ids))
            rows: dict[int, Row | None] = dict.fromkeys(ids, (0, 0))
            for number in old:
                rev, count = table.rows[number]
                rows[number] = (rev + 1, count)
            transaction.change(name, rows)

        line.change(
            session,
            f"insert into {name} as t (id, rev, note) select i, 0, 0 from unnest(%s::int[]) as i "
            "on conflict (id) do update set rev = t.rev + 1 returning t.id",
            note,
            (ids,),
        )


class _Change(Operation):
    """A statement on rows that are chosen by their ids."""

    most = 200
    verb = ""

    def changed(self, row: Row) -> Row | None:
        """What becomes of a row."""
        raise NotImplementedError

    def choose(self, table: Table, chance: Chance) -> list[int]:
        """Which rows: here and there, or next to each other."""
        ids = sorted(table.rows)
        count = chance.skewed(1, self.most)
        if chance.often(0.5):
            return chance.some(ids, count)
        at = chance.between(0, max(0, len(ids) - 1))
        return ids[at : at + count]

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name, table = found
        ids = self.choose(table, chance)

        def note(transaction: Transaction, result: Result) -> None:
            check_affected(f"{self.verb} {name}", result, set(ids))
            transaction.change(name, {number: self.changed(table.rows[number]) for number in ids})

        statement = self.verb.format(name)
        line.change(session, f"{statement} where id = any(%s) returning id", note, (ids,))


class Update(_Change):
    """Updates that change indexed columns: to another page when the old one is full, then with
    two blocks in the record, and the visibility map cleared for both."""

    weight = 10
    verb = "update {} set rev = rev + 1"

    def changed(self, row: Row) -> Row | None:
        return row[0] + 1, row[1]


class HotUpdate(_Change):
    """Updates that change no indexed column: HOT where the page has room, and pruning later."""

    weight = 8
    most = 60
    verb = "update {} set note = note + 1"

    def changed(self, row: Row) -> Row | None:
        return row[0], row[1] + 1


class UpdateTwice(_Change):
    """Updates of few rows that many updates hit: long HOT chains, redirected line pointers."""

    weight = 3
    most = 4
    verb = "update {} set note = note + 1"

    def choose(self, table: Table, chance: Chance) -> list[int]:
        return sorted(table.rows)[: chance.between(1, self.most)]

    def changed(self, row: Row) -> Row | None:
        return row[0], row[1] + 1


class Delete(_Change):
    """Heap deletes, out-of-line values too."""

    weight = 5
    verb = "delete from {}"

    def changed(self, row: Row) -> Row | None:
        return None


class DeleteRange(_Change):
    """Deletes of many neighbours: whole pages become empty, in the table and in its indexes, and
    the next vacuum deletes index pages and cuts the table's end."""

    weight = 2.5
    most = 2500
    verb = "delete from {}"

    def choose(self, table: Table, chance: Chance) -> list[int]:
        ids = sorted(table.rows)
        count = min(len(ids), chance.between(1, self.most))
        at = len(ids) - count if chance.often(0.6) else chance.between(0, len(ids) - count)
        return ids[at : at + count]

    def changed(self, row: Row) -> Row | None:
        return None


OPERATIONS: list[Operation] = [
    Insert(),
    Copy(),
    Upsert(),
    Update(),
    HotUpdate(),
    UpdateTwice(),
    Delete(),
    DeleteRange(),
]
