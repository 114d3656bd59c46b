"""Tablespaces, in place: folders of the data directory."""

import dataclasses

from ..chance import Chance
from ..contents import Contents
from ..line import Line
from .base import Operation, indexes_of, locks, pick_table

TABLESPACES_MAX = 2
NOT_EMPTY = "55000"


def with_tablespaces(contents: Contents, names: frozenset[str]) -> Contents:
    """The same with these."""
    return dataclasses.replace(contents, tablespaces=names)


class CreateTablespace(Operation):
    """A folder; later records name relations in it."""

    weight = 0.5

    def run(self, line: Line, chance: Chance) -> None:
        there = line.committed.tablespaces
        if len(there) >= TABLESPACES_MAX:
            return
        name = f"s{line.names.next()}"
        after = line.insert_lsn()
        line.watch.run("set allow_in_place_tablespaces = on")
        line.watch.run(f"create tablespace {name} location ''")
        contents = with_tablespaces(line.committed, there | {name})
        line.enter(after, contents, line.prepared, f"create tablespace {name}")


class DropTablespace(Operation):
    """The folder gone, if nothing is in it."""

    weight = 0.4

    def run(self, line: Line, chance: Chance) -> None:
        there = line.committed.tablespaces
        if not there:
            return
        name = chance.pick(sorted(there))
        after = line.insert_lsn()
        if line.watch.try_to(f"drop tablespace {name}", expected=(NOT_EMPTY,)).ok:
            contents = with_tablespaces(line.committed, there - {name})
            line.enter(after, contents, line.prepared, f"drop tablespace {name}")


class MoveToTablespace(Operation):
    """A table or an index copied page by page to another place, all of it in the WAL."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found or not line.committed.tablespaces:
            return
        where = chance.pick(["pg_default", *sorted(line.committed.tablespaces)])
        what = f"table {found[0]}"
        if chance.often(0.3):
            what = f"index {chance.pick([*indexes_of(session, found[0]), f'{found[0]}_pkey'])}"
        line.change(session, f"alter {what} set tablespace {where}", locks(found[0]))


OPERATIONS: list[Operation] = [CreateTablespace(), DropTablespace(), MoveToTablespace()]
