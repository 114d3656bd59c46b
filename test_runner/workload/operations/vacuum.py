"""Vacuum in all its forms, and the scans that leave something behind."""

from ..chance import Chance
from ..contents import tell_difference
from ..line import Line
from .base import Operation, keeps_rows, pick_table

CATALOGS = ["pg_class", "pg_attribute", "pg_type", "pg_index", "pg_depend", "pg_proc"]
SHARED_CATALOGS = ["pg_database", "pg_authid", "pg_shdepend"]


class Vacuum(Operation):
    """Pruning, dead line pointers, index vacuums with page deletions, visibility map bits, cuts of
    the table's end and of its maps; freezing."""

    weight = 7

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        found = session and pick_table(line, session, chance)
        if not session or not found:
            return
        options = chance.some(
            ["freeze", "disable_page_skipping", "index_cleanup on", "analyze", "parallel 0"],
            chance.skewed(0, 3),
        )
        if "index_cleanup on" not in options and chance.often(0.1):
            options.append("index_cleanup off")
        if chance.often(0.1):
            options.append("truncate off")
        shown = f"({', '.join(options)}) " if options else ""
        session.try_to(f"vacuum {shown}{found[0]}")


class VacuumDatabase(Operation):
    """All tables, catalogs too; with freezing the oldest transaction id moves, and the commit log
    and the multixacts may be cut."""

    weight = 0.5

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session:
            session.try_to(chance.pick(["vacuum", "vacuum freeze", "vacuum freeze"]))


class VacuumFullCatalog(Operation):
    """System catalogs in other files: updates of the relation map, of a database and the shared."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session:
            names = SHARED_CATALOGS if chance.often(0.2) else CATALOGS
            session.try_to(f"vacuum full {chance.pick(names)}")


class Analyze(Operation):
    """Updates of a catalog with wide values."""

    weight = 0.7

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        if found := pick_table(line, session, chance):
            line.change(session, f"analyze {found[0]}", keeps_rows)


class Scan(Operation):
    """Hint bits, which are logged as images at most; pruning; index entries marked dead."""

    weight = 3

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name, table = found
        how = chance.pick(["enable_seqscan", "enable_indexscan", "enable_bitmapscan"])
        session.run(f"set {how} = off")
        result = session.try_to(f"select id, rev, note from {name} where id >= 0")
        if result.ok:
            rows = {number: (rev, note) for number, rev, note in result.rows}
            if rows != table.rows or len(rows) != len(result.rows):
                tell_difference(f"{session.name} {name}", table.rows, rows)
        if session.transaction and session.is_broken():
            line.recover(session)
        session.run(f"reset {how}")


class IndexOnlyScan(Operation):
    """Nothing, if the map of visible pages is right: what an index says where the map allows it
    must be what the table says."""

    weight = 3

    def run(self, line: Line, chance: Chance) -> None:
        session = line.pick_session(chance)
        found = pick_table(line, session, chance)
        if not found:
            return
        name, table = found
        session.run("set enable_seqscan = off; set enable_bitmapscan = off")
        result = session.try_to(f"select id from {name} where id > 0 order by id")
        if result.ok and [row[0] for row in result.rows] != sorted(table.rows):
            seen = {row[0]: (0, 0) for row in result.rows}
            tell_difference(f"index-only scan of {name}", dict.fromkeys(table.rows, (0, 0)), seen)
        if session.transaction and session.is_broken():
            line.recover(session)
        session.run("reset enable_seqscan; reset enable_bitmapscan")


OPERATIONS: list[Operation] = [
    Vacuum(),
    VacuumDatabase(),
    VacuumFullCatalog(),
    Analyze(),
    Scan(),
    IndexOnlyScan(),
]
