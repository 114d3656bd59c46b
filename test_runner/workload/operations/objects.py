"""Sequences and large objects."""

import dataclasses

from ..chance import Chance
from ..contents import LARGE_OBJECTS, Row
from ..line import Line
from .base import Operation

# Size of a large object, from its number and how often it was changed.
PIECES = "({0} % 7) * 40 + {1} * 13"


class CreateSequence(Operation):
    """A relation of one page. Unlogged ones begin anew after a crash and on a branch."""

    weight = 0.7

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session is None:
            return
        unlogged = chance.often(0.3)
        name = f"{'u' if unlogged else 'q'}{line.names.next()}"
        after = line.insert_lsn()
        kind = "unlogged sequence" if unlogged else "sequence"
        if session.try_to(f"create {kind} {name}").ok:
            sequences = {**line.committed.sequences, (session.database, name): 0}
            contents = dataclasses.replace(line.committed, sequences=sequences)
            line.enter(after, contents, line.prepared, f"create sequence {name}")


class NextNumbers(Operation):
    """Numbers from a sequence: a record each 32."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session is None:
            return
        keys = [key for key in sorted(line.committed.sequences) if key[0] == session.database]
        if not keys:
            return
        key, count = chance.pick(keys), chance.skewed(1, 200)
        after = line.insert_lsn()
        result = session.try_to(f"select max(nextval('{key[1]}')) from generate_series(1, {count})")
        if result.ok:
            sequences = {**line.committed.sequences, key: int(result.rows[0][0])}
            contents = dataclasses.replace(line.committed, sequences=sequences)
            line.enter(after, contents, line.prepared, f"nextval {key[1]}")


class ChangeLargeObject(Operation):
    """Large objects made, written over, cut and removed: rows of a system catalog."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        table = line.view(session).in_database(session.database)[LARGE_OBJECTS]
        numbers = sorted(table.rows)
        if numbers and chance.often(0.6):
            number = chance.pick(numbers)
            rev = table.rows[number][0] + 1
            if chance.often(0.3):
                sql = f"select lo_unlink({number})"
                after: Row | None = None
            else:
                after = (rev, 0)
                data = f"noise({number}, {rev}, {PIECES.format(number, rev)})"
                sql = (
                    f"select lo_truncate(lo_open({number}, 393216), length({data})), "
                    f"lo_put({number}, 0, convert_to({data}, 'UTF8'))"
                )
        else:
            number = 1_000_000 + line.names.next()
            after = (0, 0)
            data = f"noise({number}, 0, {PIECES.format(number, 0)})"
            sql = f"select lo_from_bytea({number}, convert_to({data}, 'UTF8'))"
        # Two sessions that change the same one at once: the second one waits, or is told so.
        line.change(
            session,
            sql,
            lambda txn, _: txn.change(LARGE_OBJECTS, {number: after}),
            expected=("42704",),
        )


OPERATIONS: list[Operation] = [CreateSequence(), NextNumbers(), ChangeLargeObject()]
