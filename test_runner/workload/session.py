"""One client of a server: a connection, and what its open transaction has done."""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import zenith
from psycopg import pq

from .report import Failure, Report
from .transaction import Transaction

# A statement that waits for this long waits for another session of ours, which will not move before
# this one has given up; so how busy the machine is makes no difference.
LOCK_TIMEOUT = "150ms"
# Nothing that the workload does takes that long.
STATEMENT_TIMEOUT = "240s"

# What may become of a statement because of what other sessions do.
IN_THE_WAY = {
    "55P03": "lock not available",
    "40001": "serialization failure",
    "40P01": "deadlock detected",
}


@dataclasses.dataclass
class Result:
    """What a server said to a statement."""

    error: str | None
    rows: list[tuple[Any, ...]]

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.error is None


class Session:
    """A connection that the workload uses for one statement at a time."""

    def __init__(self, name: str, compute: zenith.Compute, report: Report) -> None:
        self.name = name
        self.is_silent = name == "check"  # An oracle tells what is wrong, not what it asks.
        self.database = "postgres"
        self.transaction: Transaction | None = None
        self._compute = compute
        self._report = report
        self._connection: psycopg.Connection[Any] | None = None

    def connect(self, database: str) -> None:
        """Connects anew, to that database."""
        self.close()
        self.database = database
        self._connection = self._compute.connect(
            dbname=database,
            autocommit=True,
            application_name=self.name,
            options=f"-c lock_timeout={LOCK_TIMEOUT} -c statement_timeout={STATEMENT_TIMEOUT}",
        )
        # Prepared statements would make plans depend on how often something was asked.
        self._connection.prepare_threshold = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def close(self) -> None:
        """Leaves; the server takes back what was not committed."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.transaction = None

    def connection(self) -> psycopg.Connection[Any]:
        """The open connection."""
        assert self._connection is not None, f"{self.name} is not connected"
        return self._connection

    def try_to(
        self,
        sql: str,
        parameters: Sequence[object] = (),
        expected: Sequence[str] = (),
        copy: bytes | None = None,
    ) -> Result:
        """Runs a statement.

        It may fail with one of the SQLSTATEs ``expected``, or because others are in the way; any
        other error is a finding.
        """
        shown = f"{self.name} {self.database}: {' '.join(sql.split())[:1500]}"
        if parameters:
            shown += f" -- {_abridged(parameters)}"
        try:
            with self.connection().cursor() as cursor:
                if copy is not None:
                    with cursor.copy(sql) as stream:
                        stream.write(copy)
                    rows: list[tuple[Any, ...]] = []
                else:
                    rows = _rows_of(cursor, sql, parameters)
        except psycopg.Error as error:
            state = error.sqlstate or "lost"
            self._report.say(f"{shown} -> {state} {' '.join(str(error).split())[:300]}")
            if state in IN_THE_WAY or state in expected:
                self._report.count(f"statements that ended with {state}")
                return Result(state, [])
            raise Failure(f"{shown}: {state} {error}") from error
        if not self.is_silent:
            self._report.say(f"{shown} -> ok" + (f" {len(rows)} rows" if rows else ""))
            self._report.count("statements")
        return Result(None, rows)

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Runs a statement that cannot fail."""
        result = self.try_to(sql, parameters)
        if result.error:
            raise Failure(f"{self.name}: {sql}: {result.error}")
        return result.rows

    def quietly(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The same without a line in the log, for questions of the workload itself."""
        with self.connection().cursor() as cursor:
            return _rows_of(cursor, sql, parameters)

    def begin_to(self, sql: str) -> threading.Thread:
        """Begins to run a statement that will be interrupted, and leaves it alone.

        Join the thread when the server is gone. What has become of the statement must be found
        out then.
        """
        self._report.say(f"{self.name} {self.database}: {sql} -> (interrupted)")
        connection = self.connection()

        def run() -> None:
            with contextlib.suppress(psycopg.Error):
                connection.execute(sql)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def is_broken(self) -> bool:
        """Whether its transaction has failed and waits to be rolled back."""
        return self.connection().info.transaction_status == pq.TransactionStatus.INERROR


def _rows_of(
    cursor: psycopg.Cursor[Any], sql: str, parameters: Sequence[object]
) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters or None)
    rows = cursor.fetchall() if cursor.description else []
    in_transaction = pq.TransactionStatus.INTRANS
    if parameters and cursor.connection.info.transaction_status == in_transaction:
        # With parameters, the server keeps what it has read with, and so a pin on a page, until it
        # is asked for something else. Another session's vacuum would wait for that, which no
        # lock_timeout ends.
        cursor.execute("select")
    return rows


def _abridged(parameters: Sequence[object]) -> str:
    texts = []
    for parameter in parameters:
        text = str(parameter)
        texts.append(text if len(text) < 200 else f"{text[:150]} ... {text[-40:]}")
    return ", ".join(texts)
