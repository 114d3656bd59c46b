"""Databases as wholes, and clients that move between them."""

from ..chance import Chance
from ..line import FIRST_DATABASE, Line
from .base import Operation

DATABASES_MAX = 3


def is_free(line: Line, database: str) -> bool:
    """Whether no transaction is open in it, so that it can be copied or dropped."""
    sessions = any(s.transaction and s.database == database for s in line.sessions)
    return not sessions and all(p.database != database for p in line.prepared.values())


def leave(line: Line, database: str, for_good: bool) -> None:
    """Has all clients leave a database, so that it can be copied or dropped."""
    for session in line.sessions:
        if session.database == database:
            session.close()
            if for_good:
                session.database = FIRST_DATABASE


def return_all(line: Line) -> None:
    """Has those who had to leave connect again."""
    for session in line.sessions:
        if not session.is_connected:
            session.connect(session.database)


class CreateDatabase(Operation):
    """A copy of a database, as pages in the WAL or by files, which the WAL only names."""

    weight = 1

    def run(self, line: Line, chance: Chance) -> None:
        strategy = chance.pick(["wal_log", "file_copy"])
        template = chance.pick(["template0", "template1", *sorted(line.committed.databases)])
        tablespaces = line.committed.tablespaces
        if len(line.committed.databases) >= DATABASES_MAX:
            return
        ours = template in line.committed.databases
        if ours and not is_free(line, template):
            return
        name = f"w{line.names.next()}"
        leave(line, template, for_good=False)
        after = line.insert_lsn()
        where = chance.pick(["", "", *(f" tablespace {s}" for s in sorted(tablespaces))])
        # To the oracles it is there once it has all that they need.
        made = name if ours else f"x{name}"
        line.watch.run(f"create database {made} template {template} strategy {strategy}{where}")
        contents = line.committed.with_database(name, template if ours else None)
        if not ours:
            line.prepare_database(made)
            after = line.insert_lsn()
            line.watch.run(f"alter database {made} rename to {name}")
        line.enter(after, contents, line.prepared, f"create database {name}")
        return_all(line)


class DropDatabase(Operation):
    """All files of a database gone at once."""

    weight = 0.5

    def run(self, line: Line, chance: Chance) -> None:
        names = [n for n in sorted(line.committed.databases) if n != FIRST_DATABASE]
        if not names:
            return
        name = chance.pick(names)
        if not is_free(line, name):
            return
        leave(line, name, for_good=True)
        after = line.insert_lsn()
        line.watch.run(f"drop database {name}")
        line.enter(
            after, line.committed.without_database(name), line.prepared, f"drop database {name}"
        )
        return_all(line)


class Move(Operation):
    """A client goes to another database."""

    weight = 2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        if session:
            session.connect(chance.pick(sorted(line.committed.databases)))


OPERATIONS: list[Operation] = [CreateDatabase(), DropDatabase(), Move()]
