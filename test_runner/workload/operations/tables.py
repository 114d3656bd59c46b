"""Tables as wholes: made, dropped, emptied, rewritten."""

import dataclasses
from abc import abstractmethod

from ..chance import Chance
from ..contents import BODIES, Persistence, Table, create_table
from ..line import Line
from ..transaction import Transaction
from .base import Operation, indexes_for_cluster, locks, pick_table, tables_of

TABLES_MAX = 8
OPTIONS = [
    "",
    "with (fillfactor = 60)",
    "with (fillfactor = 85, autovacuum_enabled = off)",
    "with (toast_tuple_target = 256)",
]
STORAGE = ["plain", "main", "external", "extended"]


class CreateTable(Operation):
    """New relations with their indexes and out-of-line tables; for unlogged ones, init forks."""

    weight = 3

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        if len(tables_of(line, session)) >= TABLES_MAX:
            return
        number = line.names.next()
        name = f"t{number}"
        persistence: Persistence = "unlogged" if chance.often(0.2) else "logged"
        table = Table(persistence, chance.pick(list(BODIES)), number)
        sql = create_table(name, table, chance.pick(OPTIONS))
        line.change(session, sql, lambda txn, _: txn.replace(name, table))


class DropTable(Operation):
    """Files of several forks dropped with a commit."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        if len(tables_of(line, session)) <= 2:
            return
        if found := pick_table(line, session, chance):
            name = found[0]
            line.change(session, f"drop table {name}", lambda txn, _: txn.replace(name, None))


class Truncate(Operation):
    """New empty files for the table and all its indexes, the old ones dropped at the commit. Of a
    table that was made in the same transaction, truncation in place."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        if found := pick_table(line, session, chance, latest=True):
            name, table = found
            empty = dataclasses.replace(table, made=line.names.next(), rows={})
            line.change(session, f"truncate {name}", lambda txn, _: txn.replace(name, empty))


class CreateAndFill(Operation):
    """A table that is made and filled in one transaction, rows frozen from the beginning: multi-
    inserts that set the visibility map's bits at once."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session is None or len(tables_of(line, session)) >= TABLES_MAX:
            return
        number = line.names.next()
        name, ids = f"t{number}", line.names.rows(chance.between(10, 2000))
        empty = Table("logged", chance.pick(list(BODIES)), number)
        full = empty.with_rows(dict.fromkeys(ids, (0, 0)))
        session.run("begin")
        session.transaction = Transaction(session.database, line.committed)
        sql = create_table(name, empty, chance.pick(OPTIONS))
        made = line.change(session, sql, lambda txn, _: txn.replace(name, empty))
        if made.ok:
            line.change(
                session,
                f"copy {name} (id, rev, note) from stdin (freeze)",
                lambda txn, _: txn.replace(name, full),
                copy="".join(f"{number}\t0\t0\n" for number in ids).encode(),
            )


class _AlterWithNewFiles(Operation):
    """ALTER TABLE that writes all of a table into new files."""

    @abstractmethod
    def alter(self, table: Table, chance: Chance) -> tuple[Table, str]:
        """The table as it is then, and what to do. ``table`` has its new files already."""

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance, latest=True)
        if not found:
            return
        name, table = found
        altered, how = self.alter(dataclasses.replace(table, made=line.names.next()), chance)
        line.change(session, f"alter table {name} {how}", lambda txn, _: txn.replace(name, altered))


class Rewrite(_AlterWithNewFiles):
    """The table and its indexes written anew into other files, with a change of type or without."""

    weight = 1

    def alter(self, table: Table, chance: Chance) -> tuple[Table, str]:
        return table, chance.pick(
            [
                "alter column note type bigint using (note::text)::bigint",
                f"add column extra{table.made} text default clock_timestamp()::text",
            ]
        )


class AlterCheaply(Operation):
    """Changes of catalogs only: columns with a stored default, storage of wide values."""

    weight = 1

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        number = line.names.next()
        how = chance.pick(
            [
                f"add column more{number} int default {number}",
                f"alter column body set storage {chance.pick(STORAGE[1:])}",
                f"alter column body set compression {chance.pick(['pglz', 'lz4'])}",
                f"alter column body set statistics {number % 100}",
                "set (fillfactor = 70)",
                "reset (fillfactor)",
            ]
        )
        line.change(session, f"alter table {found[0]} {how}", locks(found[0]))


class SetPersistence(_AlterWithNewFiles):
    """Logged to unlogged and back: rewritten, init forks appear or vanish, all of the table is in
    the WAL again."""

    weight = 1

    def alter(self, table: Table, chance: Chance) -> tuple[Table, str]:
        other: Persistence = "logged" if table.persistence == "unlogged" else "unlogged"
        return dataclasses.replace(table, persistence=other), f"set {other}"


class Cluster(Operation):
    """A table rewritten in the order of an index, old row versions kept for those who see them."""

    weight = 1

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name = found[0]
        index = chance.pick(indexes_for_cluster(session, name) or [f"{name}_pkey"])
        line.change(session, f"cluster {name} using {index}", locks(name))


class VacuumFull(Operation):
    """The same in the order that there is."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        found = session and pick_table(line, session, chance)
        if session and found:
            session.try_to(f"vacuum {chance.pick(['(full)', '(full, freeze)'])} {found[0]}")


OPERATIONS: list[Operation] = [
    CreateTable(),
    DropTable(),
    Truncate(),
    CreateAndFill(),
    Rewrite(),
    AlterCheaply(),
    SetPersistence(),
    Cluster(),
    VacuumFull(),
]
