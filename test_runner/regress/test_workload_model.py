"""What the random workload believes must be right before anything else can be wrong."""

from workload.chance import Chance
from workload.contents import Contents, Table
from workload.history import History, Moment
from workload.transaction import Transaction
from zenith import Lsn

TABLE = Table("logged", "small", 1, {1: (0, 0), 2: (0, 0)})
COMMITTED = Contents(frozenset({"w0"}), {("w0", "t1"): TABLE})


def rows(contents: Contents) -> dict[str, list[int]]:
    return {name: sorted(table.rows) for name, table in contents.in_database("w0").items()}


def test_savepoints() -> None:
    txn = Transaction("w0", COMMITTED)
    txn.change("t1", {3: (0, 0), 1: None})
    txn.savepoint("a")
    txn.change("t1", {3: (1, 0), 4: (0, 0)})
    txn.savepoint("b")
    txn.replace("t1", Table("logged", "small", 2))
    txn.replace("t2", TABLE)
    txn.change("t1", {5: (0, 0)})
    assert rows(txn.laid_over(COMMITTED)) == {"t1": [5], "t2": [1, 2]}
    txn.rollback_to("b")
    assert rows(txn.laid_over(COMMITTED)) == {"t1": [2, 3, 4]}
    assert txn.view(COMMITTED)["t1"].rows[3] == (1, 0)
    txn.rollback_to("a")
    assert txn.view(COMMITTED)["t1"].rows == {2: (0, 0), 3: (0, 0)}
    txn.release("a")
    assert txn.savepoints == []
    assert rows(COMMITTED) == {"t1": [1, 2]}


def test_a_kept_snapshot() -> None:
    txn = Transaction("w0", COMMITTED, keeps_snapshot=True)
    other = Transaction("w0", COMMITTED)
    other.change("t1", {9: (0, 0)})
    later = other.laid_over(COMMITTED)
    assert sorted(txn.view(later)["t1"].rows) == [1, 2]
    assert sorted(txn.view(later, latest=True)["t1"].rows) == [1, 2, 9]
    other.replace("t1", Table("logged", "small", 2))
    assert "t1" not in txn.view(other.laid_over(later))


def moment(after: int, until: int, what: str) -> Moment:
    return Moment(Lsn(after), Lsn(until), COMMITTED, {}, what)


def possible(history: History, lsn: int) -> list[str]:
    return [m.what for m in history.at(Lsn(lsn))]


def test_states_at_an_lsn() -> None:
    history = History(moment(100, 100, "start"))
    history.add(moment(110, 120, "a"))
    history.add(moment(200, 220, "b"))
    assert possible(history, 105) == ["start"]
    assert possible(history, 110) == ["start"]
    assert possible(history, 115) == ["start", "a"]
    assert possible(history, 120) == ["a"]
    assert possible(history, 210) == ["a", "b"]
    assert possible(history, 1000) == ["b"]


def test_what_a_crash_takes_from_the_bounds() -> None:
    history = History(moment(100, 100, "start"))
    history.add(moment(110, 900, "a"))  # Read when more was in the server's memory.
    history.add(moment(150, 160, "b"))
    assert possible(history, 150) == ["a"]
    assert possible(history, 155) == ["a", "b"]


def test_a_seed_says_everything() -> None:
    first, second = Chance(7).fork("step", 3), Chance(7).fork("step", 3)
    draws = [(c.between(0, 999), c.pick("abc"), c.some(range(9), 3)) for c in (first, second)]
    assert draws[0] == draws[1]
    assert Chance(7).fork("step", 4).between(0, 10**9) != Chance(7).fork(4).between(0, 10**9)
