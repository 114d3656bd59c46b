"""One line of history under test: its branch, its compute, its clients, and what it must hold."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable

import zenith
from fixtures import processes
from zenith import Lsn

from .chance import Chance
from .contents import BODIES, PREPARE_DATABASE, Contents, Table, create_table
from .history import History, Moment, Prepared
from .lsns import LsnChooser
from .report import Failure, Report
from .session import Result, Session
from .settings import Settings
from .transaction import Transaction

SESSIONS = 4
FIRST_DATABASE = "w0"
WAIT_SECONDS = 60.0


@dataclasses.dataclass
class Names:
    """Numbers that are given out once in a run, for names and for ids of rows."""

    last: int = 0
    last_row: int = 0

    def next(self) -> int:
        """A number for a name."""
        self.last += 1
        return self.last

    def rows(self, count: int) -> list[int]:
        """Ids for new rows."""
        first = self.last_row + 1
        self.last_row += count
        return list(range(first, first + count))


class Line:
    """A branch with a compute that runs, several clients, and a ledger of what was acknowledged.

    Branches of the run are lines of their own, on which the same operations are done.
    """

    def __init__(
        self,
        repo: zenith.Repository,
        branch: zenith.Branch,
        settings: Settings,
        report: Report,
        names: Names,
        depth: int = 0,
    ) -> None:
        self.repo = repo
        self.branch = branch
        self.settings = settings
        self.report = report
        self.names = names
        self.depth = depth
        self.committed = Contents()
        self.prepared: Prepared = {}
        self.children = 0
        self.compute = self._new_compute()
        self.start_lsn = self.compute.base_lsn
        self.lsns = self._chooser()
        self.history = History(
            Moment(self.start_lsn, self.start_lsn, self.committed, self.prepared, "start")
        )
        self._make_sessions()

    # -- The server and its clients ------------------------------------------------------------

    def _new_compute(self) -> zenith.Compute:
        compute = self.branch.compute(durability=self.settings.durability)
        path = compute.pgdata / "postgresql.conf"
        with open(path, "a") as file:
            for name, value in self.settings.postgres.items():
                file.write(f"{name} = '{value}'\n")
        return compute

    def _chooser(self) -> LsnChooser:
        window = self.settings.window_bytes
        return LsnChooser(self.repo.path, self.branch.timeline, self.start_lsn, window)

    def _make_sessions(self) -> None:
        self.watch = Session("watch", self.compute, self.report)
        self.sessions = [Session(f"s{n}", self.compute, self.report) for n in range(SESSIONS)]

    def start(self) -> None:
        """Starts the server and connects; not yet to databases of the workload."""
        self.compute.start()
        self.connect()

    def connect(self) -> None:
        """Connects everybody to where they were before, or else to the first database there is."""
        self.watch.connect("postgres")
        for session in self.sessions:
            wanted = session.database
            if wanted not in self.committed.databases:
                wanted = min(self.committed.databases, default="")
            if wanted:
                session.connect(wanted)

    def prepare_from_nothing(self) -> None:
        """Makes the first database with some tables, on a new cluster."""
        self.watch.run(f"create database {FIRST_DATABASE}")
        self.watch.run("create table tick (number int)")
        self.prepare_database(FIRST_DATABASE)
        lsn = self.insert_lsn()
        self.committed = self.committed.with_database(FIRST_DATABASE, None)
        self.history = History(Moment(lsn, lsn, self.committed, self.prepared, "first database"))
        self.start_lsn = lsn
        self.lsns = self._chooser()
        self.connect()
        for body in BODIES:
            number = self.names.next()
            name, table = f"t{number}", Table("logged", body, number)
            create = create_table(name, table)

            def note(txn: Transaction, _: Result, name: str = name, table: Table = table) -> None:
                txn.replace(name, table)

            self.change(self.sessions[0], create, note)

    def prepare_database(self, database: str) -> None:
        """Puts into a database what the tables need."""
        session = Session("prepare", self.compute, self.report)
        session.connect(database)
        session.run(PREPARE_DATABASE)
        session.close()

    def close(self) -> None:
        """Disconnects everybody."""
        for session in [self.watch, *self.sessions]:
            session.close()

    def open_transactions(self) -> list[Transaction]:
        """Those of all sessions."""
        return [s.transaction for s in self.sessions if s.transaction]

    # -- The ledger ----------------------------------------------------------------------------

    def insert_lsn(self) -> Lsn:
        """Where the server's next record will begin."""
        return Lsn(self.watch.quietly("select pg_current_wal_insert_lsn()::text")[0][0])

    def enter(self, after: Lsn, contents: Contents, prepared: Prepared, what: str) -> None:
        """Writes down a new state, whose record has been written since ``after``."""
        self.committed, self.prepared = self._with_last_commit(contents), prepared
        self.history.add(Moment(after, self.insert_lsn(), self.committed, prepared, what))

    def _with_last_commit(self, contents: Contents) -> Contents:
        """The same with the time of the last commit, unless the server was started after it."""
        if not self.settings.has_timestamps:
            return contents
        sql = "select xid::text, timestamp::text from pg_last_committed_xact()"
        xid, timestamp = self.watch.quietly(sql)[0]
        return contents.with_timestamp(xid, timestamp) if xid else contents

    def enter_commit(self, after: Lsn, transaction: Transaction, what: str) -> None:
        """Writes down a commit."""
        self.enter(after, transaction.laid_over(self.committed), self.prepared, what)

    def change(
        self,
        session: Session,
        sql: str,
        note: Callable[[Transaction, Result], None],
        parameters: tuple[object, ...] = (),
        copy: bytes | None = None,
        expected: tuple[str, ...] = (),
    ) -> Result:
        """Runs a statement that changes something: in the session's transaction, or in its own.

        ``note`` writes down what it has done, if it has.
        """
        after = self.insert_lsn()
        result = session.try_to(sql, parameters, expected, copy)
        if not result.ok:
            self.recover(session)
        elif session.transaction:
            note(session.transaction, result)
        else:
            own = Transaction(session.database, self.committed)
            note(own, result)
            self.enter_commit(after, own, sql[:60])
        return result

    def recover(self, session: Session) -> None:
        """After an error: to the last savepoint or, without one, the transaction's beginning."""
        if not session.transaction or not session.is_broken():
            return
        if session.transaction.savepoints:
            name = session.transaction.savepoints[-1][0]
            session.run(f"rollback to savepoint {name}")
            session.transaction.rollback_to(name)
        else:
            session.run("rollback")
            session.transaction = None

    # -- Reaching the page server --------------------------------------------------------------

    def flush(self) -> Lsn:
        """Has everything that was written so far flushed, and received by the page server.

        Returns a place that is not before the end of anything that was written.
        """
        end = self.insert_lsn()
        # What is in an open transaction, and at the end of the WAL, is flushed by the next commit.
        self.watch.quietly("insert into tick values (1)")
        self.wait_received(end)
        return end

    def wait_received(self, lsn: Lsn) -> None:
        """Waits until the page server has it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.branch.last_record_lsn < lsn:
            if time.monotonic() > deadline:
                raise Failure(
                    f"the page server is at {self.branch.last_record_lsn}, and {lsn} was written"
                )
            time.sleep(0.01)

    # -- Ends of servers -----------------------------------------------------------------------

    def kill_compute(self) -> None:
        """Kills all processes of the server at once."""
        first = self.compute.pid
        assert first is not None
        processes.kill_server(first)
        self.compute.kill()  # Waits until it is gone.

    def forget_clients(self, crashed: bool) -> None:
        """The server is gone, and with it what was not committed."""
        self.close()
        if crashed:
            self.committed = self.committed.after_crash()

    def restart_after_kill(self) -> None:
        """Starts a server whose first process was killed."""
        self.forget_clients(crashed=True)
        self.compute.start()
        self.connect()
        self._enter_state("crash")

    def restart_cleanly(self, between: Callable[["Line"], None] | None = None) -> None:
        """Stops and starts the server; ``between`` is done while it does not run."""
        self.forget_clients(crashed=False)
        self.compute.stop()
        if between:
            between(self)
        self.compute.start()
        self.connect()

    def lose_and_replace_compute(self, is_killed: bool = False, comes_back: bool = False) -> None:
        """Kills the server, throws its directory away, and makes a new one from the page server.

        If the directory ``comes_back`` when the new server runs, it must be refused.
        """
        if not is_killed and self.settings.durability == "local":
            self.flush()  # Otherwise the last commits were only on the disk that is lost.
        if not is_killed:
            self.kill_compute()
        self.forget_clients(crashed=True)
        directory, lost = self.compute.pgdata.parent, self.repo.path / "lost"
        if comes_back:
            directory.rename(lost)
        else:
            self.compute.destroy()
        self.compute = self._new_compute()
        # Of what was written last not all may have reached the page server.
        self.history.cut_bounds(self.compute.base_lsn)
        self._make_sessions_again()
        self.compute.start()
        self.connect()
        self._enter_state("loss")
        if comes_back:
            lost.rename(directory.with_name("returned"))
            self._refuse("returned")

    def _refuse(self, name: str) -> None:
        """A compute that was lost has returned, and must not be started."""
        returned = self.repo.compute(name)
        try:
            returned.start()
        except zenith.Error as error:
            self.report.say(f"{self.branch.name}: refused: {' '.join(str(error).split())[:200]}")
            if "has taken over" not in str(error):
                raise
        else:
            raise Failure(f"{self.branch.name}: the lost compute was started again")
        self.report.count("lost computes refused")
        returned.destroy()

    def _make_sessions_again(self) -> None:
        databases = [session.database for session in self.sessions]
        self._make_sessions()
        for session, database in zip(self.sessions, databases, strict=True):
            session.database = database

    def _enter_state(self, what: str) -> None:
        self.enter(self.insert_lsn(), self.committed, self.prepared, what)

    def kill_page_server(self) -> None:
        """Kills it and starts it again."""
        pid = self.repo.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if processes.wait_gone([pid]):
            raise Failure("the page server does not end")
        self.repo.start()

    def redo_processes(self) -> list[int]:
        """The page server's redo processes: the children of any of its threads."""
        assert self.repo.pid is not None
        return processes.children(self.repo.pid)

    # -- What operations ask -------------------------------------------------------------------

    def pick_session(self, chance: Chance) -> Session:
        """Any of them."""
        return chance.pick(self.sessions)

    def idle_session(self, chance: Chance) -> Session | None:
        """One without an open transaction, if there is one."""
        idle = [s for s in self.sessions if s.transaction is None]
        return chance.pick(idle) if idle else None

    def view(self, session: Session, latest: bool = False) -> Contents:
        """What the session sees; ``latest`` is for statements that take no heed of snapshots."""
        if session.transaction is None:
            return self.committed
        tables = session.transaction.view(self.committed, latest)
        others = {k: t for k, t in self.committed.tables.items() if k[0] != session.database}
        own = {(session.database, name): table for name, table in tables.items()}
        return dataclasses.replace(self.committed, tables={**others, **own})
