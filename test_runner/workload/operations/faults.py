"""Servers that end in every way, and begin again."""

import os
import signal
import time

from zenith import Lsn

from ..chance import Chance
from ..line import Line
from ..oracles.pages import verify_compute
from ..report import Failure
from ..transaction import Transaction
from .base import Operation, pick_table

# What may be interrupted anywhere without a change of any row.
IN_FUTURE = "22023"
"""SQLSTATE of a transaction id that has not been given yet."""

WORK = [
    "vacuum {}",
    "vacuum (freeze) {}",
    "vacuum (full) {}",
    "reindex table {}",
    "reindex table concurrently {}",
    "cluster {0} using {0}_pkey",
    "vacuum full pg_class",
    "analyze",
    "checkpoint",
    "select pg_switch_wal()",
]


class KillCompute(Operation):
    """Recovery of the compute: an end-of-recovery checkpoint, unlogged tables emptied, and now and
    then a record that was cut off and is written over."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        line.report.say(f"{line.branch.name}: kill -9 of the compute")
        line.kill_compute()
        line.restart_after_kill()


class KillInTheMiddle(Operation):
    """The same while the compute is at something: files that nobody needs, an index half built, a
    page that is written while it changes, a long record that ends where nothing follows. Of a
    commit nobody knows then what became of it; the server must know."""

    weight = 1.2

    def run(self, line: Line, chance: Chance) -> None:
        session = line.idle_session(chance)
        found = session and pick_table(line, session, chance)
        if session is None or not found:
            return
        name, table = found
        what = chance.pick(["insert", "commit", "commit", "update", "message", *WORK])
        is_lost = chance.often(0.3) and line.settings.durability == "pageserver"
        seconds = chance.skewed(0, 150) / 1000
        xid, transaction, after = "", Transaction(session.database, line.committed), Lsn(0)
        ids = line.names.rows(chance.between(1, 1000))
        rows = ", ".join(f"({number}, 0, 0)" for number in ids)
        insert = f"insert into {name} (id, rev, note) values {rows}"
        if what in ("insert", "commit", "update"):
            session.run("begin")
            xid = str(session.run("select pg_current_xact_id()::text")[0][0])
        if what == "commit":
            result = session.try_to(insert)
            if not result.ok:
                session.run("rollback")
                return
            transaction.change(name, dict.fromkeys(ids, (0, 0)))
            after = line.insert_lsn()
        statements = {
            "insert": insert,
            "commit": "commit",
            "update": f"update {name} set rev = rev + 1",
            "message": "select pg_logical_emit_message(false, 'x', repeat('z', 12000000))",
        }
        thread = session.begin_to(statements.get(what, what.format(name)))
        time.sleep(seconds)
        line.report.say(f"{line.branch.name}: kill -9 of the compute {seconds} s later")
        line.kill_compute()
        thread.join()
        if is_lost:
            line.lose_and_replace_compute(is_killed=True)
        else:
            line.restart_after_kill()
        if what == "commit":
            # If nothing of it reached the disk, the server has never heard of its id.
            answer = line.watch.try_to(f"select pg_xact_status('{xid}')", expected=(IN_FUTURE,))
            status = answer.rows[0][0] if answer.ok else "aborted"
            line.report.say(f"the commit is {status}")
            if status == "committed":
                # Rows of an unlogged table are gone all the same.
                if table.persistence == "logged":
                    line.enter_commit(after, transaction, "interrupted commit")
            elif status != "aborted":
                raise Failure(f"{line.branch.name}: transaction {xid} is {status} after a crash")


class LoseCompute(Operation):
    """A compute killed and thrown away, and made anew from the page server: every page that it
    reads from now on comes from there, so no later image hides what was missed."""

    weight = 0.6

    def run(self, line: Line, chance: Chance) -> None:
        line.report.say(f"{line.branch.name}: the compute is lost")
        line.lose_and_replace_compute(comes_back=chance.often(0.4))


class RestartCompute(Operation):
    """A shutdown checkpoint; unlogged tables stay. What the server has left may be looked at."""

    weight = 0.5

    def run(self, line: Line, chance: Chance) -> None:
        line.report.say(f"{line.branch.name}: the compute is stopped and started")
        line.restart_cleanly(verify_compute if chance.often(0.5) else None)


class AdvanceBase(Operation):
    """No record; from now on the compute reads newer pages where it has none of its own."""

    weight = 1.5

    def run(self, line: Line, chance: Chance) -> None:
        before, end = line.compute.base_lsn, line.flush()
        # As far as everything is received, or as far as the server has been told without waiting:
        # that is told when it is durable, a moment later.
        target = end if chance.often(0.5) else None
        base = line.compute.advance_base(target)
        line.report.say(f"{line.branch.name}: the base LSN moves from {before} to {base}")
        if base < max(before, target or before):
            raise Failure(f"{line.branch.name}: the base LSN is {base}, {end} was received")
        line.report.count("base LSNs moved")


class KillPageServer(Operation):
    """The WAL is decoded again from what is on disk; computes wait."""

    weight = 0.6

    def run(self, line: Line, chance: Chance) -> None:
        line.report.say("kill -9 of the page server")
        line.kill_page_server()


class KillRedo(Operation):
    """Redo processes begin anew, and what they were asked is asked again."""

    weight = 1

    def run(self, line: Line, chance: Chance) -> None:
        pids = line.redo_processes()
        line.report.say(f"kill -9 of the redo processes ({len(pids)})")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


OPERATIONS: list[Operation] = [
    KillCompute(),
    KillInTheMiddle(),
    LoseCompute(),
    RestartCompute(),
    AdvanceBase(),
    KillPageServer(),
    KillRedo(),
]
