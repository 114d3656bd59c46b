"""A compute that has nothing yet reads on while its page server is stopped and started again."""

import zenith
from fixtures import pgbench


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
