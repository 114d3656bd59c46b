"""Indexes of all types."""

from ..chance import Chance
from ..contents import INDEXES
from ..line import Line
from .base import Operation, indexes_of, keeps_rows, locks, pick_table

INDEXES_MAX = 5


class CreateIndex(Operation):
    """Builds of every type: pages logged as images, or through the buffers; for an unlogged table
    an init fork. Concurrently, in several transactions."""

    weight = 5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found or len(indexes_of(session, found[0])) >= INDEXES_MAX:
            return
        kind = chance.pick(list(INDEXES))
        index = f"{found[0]}_{kind}_{line.names.next()}"
        method, _, rest = INDEXES[kind].partition(" ")
        concurrently = chance.often(0.15) and session.transaction is None
        if kind.startswith("btree") and chance.often(0.2):
            rest += " where rev >= 0" if "where" not in rest else ""
        sql = f"on {found[0]} using {method} {rest}"
        if concurrently:
            session.try_to(f"create index concurrently {index} {sql}")
        else:
            line.change(session, f"create index {index} {sql}", keeps_rows)


class DropIndex(Operation):
    """Files dropped with a commit."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        if indexes := indexes_of(session, found[0]):
            line.change(session, f"drop index {chance.pick(indexes)}", locks(found[0]))


class Reindex(Operation):
    """Indexes built anew in other files; system catalogs, whose files are found through the
    relation map, among them."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if chance.often(0.2):
            name = chance.pick(["pg_class", "pg_attribute", "pg_index", "pg_type", "pg_proc"])
            if session.transaction is None:  # Nobody could connect until it ends.
                line.change(session, f"reindex table {name}", keeps_rows)
        elif found and chance.often(0.2) and session.transaction is None:
            session.try_to(f"reindex table concurrently {found[0]}")
        elif found:
            what = chance.pick([f"table {found[0]}", f"index {found[0]}_pkey"])
            line.change(session, f"reindex {what}", locks(found[0]))


class CleanGin(Operation):
    """Entries of a GIN index's pending list moved to where they belong, its pages deleted."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        indexes = indexes_of(session, found[0], "gin") if found else []
        if indexes:
            line.change(
                session, f"select gin_clean_pending_list('{chance.pick(indexes)}')", keeps_rows
            )


class SummariseBrin(Operation):
    """Ranges of a BRIN index summarised and forgotten: its map of ranges, items moved to another
    page."""

    weight = 2.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        found = session and pick_table(line, session, chance)
        indexes = indexes_of(session, found[0], "brin") if session and found else []
        if not session or not indexes:
            return
        index, block = chance.pick(indexes), chance.skewed(0, 100)
        call = chance.pick(
            [
                f"brin_summarize_new_values('{index}')",
                f"brin_summarize_range('{index}', {block})",
                f"brin_desummarize_range('{index}', {block})",
            ]
        )
        line.change(session, f"select {call}", keeps_rows)


OPERATIONS: list[Operation] = [
    CreateIndex(),
    DropIndex(),
    Reindex(),
    CleanGin(),
    SummariseBrin(),
]
