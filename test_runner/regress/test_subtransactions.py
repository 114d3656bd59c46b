"""Transactions with so many subtransactions that their statuses fill pages of the commit log."""

import zenith
from fixtures import postgres
from fixtures.subtransactions import INSERT_IN_SUBTRANSACTIONS
from fixtures.verify import Verify

# More than a page of the commit log has room for (32768), from anywhere on a page on.
MANY = 70_000

TABLES = f"""
create table t (n int, how text);
{INSERT_IN_SUBTRANSACTIONS}
"""
COUNTS = "select how, count(*) from t group by how order by how"


def test_over_pages_of_the_commit_log(
    repo: zenith.Repository, main: zenith.Branch, verify: Verify
) -> None:
    with main.compute() as pg:
        postgres.script(pg.dsn, TABLES)
        with pg.connect() as connection:
            connection.execute("select insert_in_subtransactions(1, %s, 'committed')", [MANY])
            # One record that names its parent has been written for every 64, none for its end.
            running = postgres.received_lsn(pg)
            connection.commit()
            committed = postgres.received_lsn(pg)
            connection.execute("select insert_in_subtransactions(1, %s, 'rolled back')", [MANY])
            connection.rollback()
        # The end of a transaction that was rolled back is not waited for.
        pg.psql("insert into t values (0, 'last')")
        rolled_back = postgres.received_lsn(pg)
        pg.kill()
    # No page has a hint of what became of its rows: the commit log alone tells.
    for name, lsn, counts in (
        ("running", running, ""),
        ("committed", committed, f"committed|{MANY}"),
        ("rolled_back", rolled_back, f"committed|{MANY}\nlast|1"),
    ):
        with repo.create_branch(name, at=("main", lsn)).compute() as pg:
            assert pg.psql(COUNTS) == counts
            # No number is handed out again to whom a row of another would belong.
            pg.psql("select insert_in_subtransactions(1, 100, 'new')")
            assert pg.psql("select count(*) from t where how = 'new'") == "100"
            assert pg.psql("select count(*) from t where how <> 'new'") == str(
                sum(int(line.split("|")[1]) for line in counts.splitlines())
            )
    verify(f"main@{running}", f"main@{committed}", "rolled_back")
