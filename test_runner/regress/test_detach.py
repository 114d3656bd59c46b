"""``zenith branch --detach``: a branch that needs no longer what it was made from."""

import zenith
from fixtures import postgres
from fixtures.cli import Cli
from fixtures.waiting import wait_until

FILL = "create table t as select n, repeat('x', 100) x from generate_series(1, 5000) n"
SUM = "select count(*), sum(n) from t"


def test_what_a_branch_was_made_from_can_go(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli
) -> None:
    with main.compute() as pg:
        pg.psql(FILL)
        early = postgres.received_lsn(pg)
        pg.psql("update t set n = n + 1")
        repo.create_branch("middle", at=("main", postgres.received_lsn(pg)))
    dev = repo.create_branch("dev", at="middle")
    start = zenith.Lsn(next(b["ancestor_lsn"] for b in cli.json("branch") if b["name"] == "dev"))
    cli("tag", "before", f"dev@{early}")
    assert '"before"' in cli.refused("branch", "--detach", "dev")
    cli("tag", "-d", "before")
    cli("pg", "create", "fixed", "--at", f"dev@{early}")
    assert "zenith pg destroy fixed" in cli.refused("branch", "--detach", "dev")
    cli("pg", "destroy", "fixed")
    with dev.compute() as pg:
        pg.psql("delete from t where n % 2 = 0")
        later = postgres.received_lsn(pg)
        states = {start: "5000|12507500", later: pg.psql(SUM)}
        # What the compute has not fetched yet it gets from the image.
        detached = cli.json("branch", "--detach", "dev", "--wait")
        assert (detached["ancestor_timeline"], detached["detaching"]) == (None, False)
        cli("branch", "-d", "middle")
        pg.psql("update t set n = n + 1, x = 'y'")
        states[postgres.received_lsn(pg)] = pg.psql(SUM)
    assert "stands on no other" in cli.run("branch", "--detach", "dev").stderr
    # In the background, and gone on with by the next start if that did not suffice.
    two = repo.create_branch("two", at=("dev", later))
    two.detach()
    repo.restart(immediate=True)
    wait_until("detaching", lambda: repo.branch("two").ancestor is None)
    assert not repo.branch("two").is_detaching
    assert cli("psql", "two", "-At", "-c", SUM).strip() == states[later]
    for lsn, state in states.items():
        assert cli("psql", f"dev@{lsn}", "-At", "-c", SUM).strip() == state
    assert str(start) in cli.refused("psql", f"dev@{early}", "-c", SUM)
    with repo.branch("dev").compute() as pg:
        assert pg.psql("insert into t values (0, 'z') returning n") == "0"
