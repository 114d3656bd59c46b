"""The page server is stopped and started again under load; computes only wait for it."""

import zenith
from fixtures import pgbench
from fixtures.ledger import Ledger


def test_restart_under_pgbench(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
        with Ledger(pg.dsn) as ledger, pgbench.Background(pg.dsn) as load:
            for _ in range(3):
                ledger.wait_for_more()
                repo.restart()
                ledger.wait_for_more()
            assert load.is_running(), load.output()
            load.stop()
            ledger.stop()
            sums = pg.psql(pgbench.SUMS)
            pgbench.check_sums(sums)
            ledger.check_table()
    # A clean stop waits for the page server, so the branch has everything.
    main.compute().destroy()
    with main.compute() as pg:
        assert pg.psql(pgbench.SUMS) == sums
        ledger.check_table(pg.dsn)


def test_a_new_compute_reads_through_a_restart(
    repo: zenith.Repository, main: zenith.Branch
) -> None:
    with main.compute() as pg:
        pgbench.initialise(pg.dsn)
    dev = repo.create_branch("dev")
    with dev.compute() as pg:
        with pgbench.Background(pg.dsn) as load:
            repo.restart()
            repo.restart(immediate=True)
            assert load.is_running(), load.output()
        assert pg.psql("select count(*) from pgbench_accounts") == "100000"
        pgbench.check_sums(pg.psql(pgbench.SUMS))
