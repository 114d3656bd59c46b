"""Row locks of several sessions at once."""

from ..chance import Chance
from ..line import Line
from ..session import Session
from ..transaction import Transaction
from .base import Operation, pick_table, tables_of
from .rows import check_affected

STRENGTHS = ["for key share", "for share", "for no key update", "for update"]


def lock(line: Line, session: Session, name: str, ids: list[int], strength: str) -> None:
    """Locks rows, and checks that they were found."""
    line.change(
        session,
        f"select id from {name} where id = any(%s) {strength}",
        lambda _, result: check_affected(f"{name} {strength}", result, set(ids)),
        (ids,),
    )


class Lock(Operation):
    """Heap locks of all strengths; the all-frozen bit is cleared. Where another session has a lock
    that this one gets along with, a multixact."""

    weight = 7

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name, table = found
        ids = chance.some(sorted(table.rows), chance.skewed(1, 100))
        lock(line, session, name, ids, chance.weighted(STRENGTHS, [5, 5, 2, 1]))


class LockTogether(Operation):
    """Many multixacts, with as many members as there are sessions, and updates within them: offsets
    and members over several pages; locks of updated rows."""

    weight = 2.5

    def run(self, line: Line, chance: Chance) -> None:
        database = chance.pick(sorted({s.database for s in line.sessions}))
        sessions = [s for s in line.sessions if s.database == database]
        for session in sessions:
            if session.transaction is None:
                session.run("begin")
                session.transaction = Transaction(session.database, line.committed)
        # What all of them see.
        views = [tables_of(line, session) for session in sessions]
        names = sorted(set.intersection(*(set(view) for view in views)))
        if not names:
            return
        name = chance.pick(names)
        ids = sorted(set.intersection(*(set(view[name].rows) for view in views)))
        ids = chance.some(ids, chance.between(10, 500))
        strength = chance.pick(["for key share", "for share"])
        for session in sessions:
            if session.transaction:
                lock(line, session, name, ids, strength)
        if chance.often(0.6):
            updater = chance.pick(sessions)
            rows = tables_of(line, updater).get(name)
            few = [n for n in chance.some(ids, 50) if rows and n in rows.rows]
            if rows is None:
                return
            old = {number: rows.rows[number] for number in few}
            line.change(
                updater,
                f"update {name} set note = note + 1 where id = any(%s) returning id",
                lambda txn, _: txn.change(name, {n: (r, c + 1) for n, (r, c) in old.items()}),
                (few,),
            )


OPERATIONS: list[Operation] = [Lock(), LockTogether()]
