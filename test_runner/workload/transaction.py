"""What a transaction has done so far and nobody else sees yet."""

import dataclasses
from collections.abc import Callable

from .contents import Contents, Key, Row, Rows, Table


class Transaction:
    """The uncommitted changes of one transaction, with its savepoints.

    Two transactions never change the same row, since PostgreSQL makes the second one wait and the
    workload then gives up; so what commits can be laid over whatever is committed by then.
    """

    def __init__(self, database: str, base: Contents, keeps_snapshot: bool = False) -> None:
        self.database = database
        self.savepoints: list[tuple[str, int]] = []
        # What it saw at its beginning; only a transaction that keeps its snapshot goes on doing so.
        self._base = base if keeps_snapshot else None
        self._replaced: dict[Key, Table | None] = {}
        self._changes: dict[Key, dict[int, Row | None]] = {}
        self._locked: set[str] = set()
        self._undo: list[Callable[[], None]] = []

    def view(self, committed: Contents, latest: bool = False) -> dict[str, Table]:
        """The tables that it sees, by name, with what is committed besides.

        ``latest`` is for statements that go by what is committed now, whatever the snapshot.
        """
        found = {}
        for key, table in committed.tables.items():
            if key[0] != self.database:
                continue
            if self._base and not latest:
                old = self._base.tables.get(key)
                if old is None or old.made != table.made:
                    continue  # Made anew since: the snapshot does not tell what is in it.
                table = old
            found[key[1]] = table
        for (_, name), replaced in self._replaced.items():
            if replaced is None:
                found.pop(name, None)
            else:
                found[name] = replaced
        for (_, name), changes in self._changes.items():
            if changes and name in found:
                found[name] = found[name].with_rows(_laid_over(found[name].rows, changes))
        return dict(sorted(found.items()))

    def change(self, name: str, rows: dict[int, Row | None]) -> None:
        """Inserts and updates rows, or deletes those that are ``None``."""
        changes = self._changes.setdefault((self.database, name), {})
        for number, row in rows.items():
            if number in changes:
                self._undo.append(_Restore(changes, number, changes[number]))
            else:
                self._undo.append(_Forget(changes, number))
            changes[number] = row

    def replace(self, name: str, table: Table | None) -> None:
        """Makes, empties, rewrites or drops a table; ``table`` is the result with all its rows.

        Nobody else has uncommitted changes in it then: PostgreSQL locks it exclusively.
        """
        key = (self.database, name)
        had, before = key in self._replaced, self._replaced.get(key)
        changes = self._changes.pop(key, None)

        def undo() -> None:
            if had:
                self._replaced[key] = before
            else:
                self._replaced.pop(key, None)
            if changes is None:
                self._changes.pop(key, None)
            else:
                self._changes[key] = changes

        self._undo.append(undo)
        self._replaced[key] = table

    def savepoint(self, name: str) -> None:
        """Sets one."""
        self.savepoints.append((name, len(self._undo)))

    def rollback_to(self, name: str) -> None:
        """Takes back all since then; the savepoint stays."""
        at = [n for n, _ in self.savepoints].index(name)
        del self.savepoints[at + 1 :]
        target = self.savepoints[at][1]
        while len(self._undo) > target:
            self._undo.pop()()

    def release(self, name: str) -> None:
        """Forgets the savepoint and those after it, not what was done since."""
        at = [n for n, _ in self.savepoints].index(name)
        del self.savepoints[at:]

    def lock(self, name: str) -> None:
        """Notes that nobody else can read the table from now on.

        That a rollback to a savepoint takes the lock back is not noted.
        """
        self._locked.add(name)

    def locked_tables(self) -> list[str]:
        """Names of tables that nobody else can read."""
        return sorted(self._locked | {name for _, name in self._replaced})

    def touched_tables(self) -> list[str]:
        """Names of tables that it has changed in any way."""
        return sorted({name for _, name in [*self._replaced, *self._changes]})

    def changed_rows(self) -> int:
        """How many rows it has inserted, updated or deleted, as far as it goes now."""
        return sum(map(len, self._changes.values()))

    def laid_over(self, committed: Contents) -> Contents:
        """What is committed once this is."""
        tables = dict(committed.tables)
        for key, replaced in self._replaced.items():
            if replaced is None:
                tables.pop(key, None)
            else:
                tables[key] = replaced
        for key, changes in self._changes.items():
            if changes:
                tables[key] = tables[key].with_rows(_laid_over(tables[key].rows, changes))
        return dataclasses.replace(committed, tables=tables)


def _laid_over(rows: Rows, changes: dict[int, Row | None]) -> Rows:
    result = dict(rows)
    for number, row in changes.items():
        if row is None:
            result.pop(number, None)
        else:
            result[number] = row
    return result


@dataclasses.dataclass
class _Restore:
    changes: dict[int, Row | None]
    number: int
    row: Row | None

    def __call__(self) -> None:
        self.changes[self.number] = self.row


@dataclasses.dataclass
class _Forget:
    changes: dict[int, Row | None]
    number: int

    def __call__(self) -> None:
        self.changes.pop(self.number, None)
