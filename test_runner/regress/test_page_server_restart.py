"""Computes wait while their page server is stopped or killed and started, and no client notices."""

import os
import random
import re
import time
from typing import Literal

import pytest
import zenith
from fixtures import pgbench
from fixtures.cli import Cli
from fixtures.verify import Verify

SECONDS = float(os.environ.get("ZENITH_LOAD_SECONDS", 5))
SCALE = 4


def went_well(load: pgbench.Background) -> None:
    """Waits for the end of a pgbench that had its time: not one statement may have failed."""
    output = load.wait(60 + SECONDS)
    assert re.search(r"^number of failed transactions: 0 ", output, re.MULTILINE), output
    assert not re.search("error|abort|fatal", output, re.IGNORECASE), output


@pytest.mark.usefixtures("all_wal")
@pytest.mark.parametrize("durability", ["local", "pageserver"])
def test_clients_do_not_notice(
    repo: zenith.Repository,
    main: zenith.Branch,
    cli: Cli,
    verify: Verify,
    durability: Literal["local", "pageserver"],
) -> None:
    """Writers and readers on new branches, whose pages are all still with the page server."""
    seed = int(os.environ.get("ZENITH_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"ZENITH_TEST_SEED={seed}")
    chance = random.Random(seed)
    with main.compute() as pg:
        pgbench.initialise(pg.dsn, SCALE)
    branches = [repo.create_branch(name) for name in ("writes", "reads")]
    timed = ("-T", str(int(SECONDS)))
    with (
        branches[0].compute(durability=durability) as writes,
        branches[1].compute(durability=durability) as reads,
        pgbench.Background(writes.dsn, arguments=(*timed, "-b", "tpcb-like")) as writing,
        # So slowly that there are absent pages until the end.
        pgbench.Background(
            reads.dsn, arguments=(*timed, "-b", "select-only", "--rate=200")
        ) as reading,
    ):
        rounds = 0
        while writing.is_running() and reading.is_running():
            # Long enough for both to need it, and to be in the middle of something at its end.
            time.sleep(chance.uniform(0, 0.3))
            repo.stop(immediate=bool(rounds % 2))
            time.sleep(chance.uniform(0, 0.5))
            repo.start()
            rounds += 1
        assert rounds >= 3
        went_well(writing)
        went_well(reading)
        pgbench.check_sums(writes.psql(pgbench.SUMS))
        assert reads.psql("select count(*) from pgbench_accounts") == str(SCALE * 100_000)
        for pg in (writes, reads):
            complaints = [line for line in pg.log.read_text().splitlines() if "ERROR:" in line]
            assert not complaints, complaints
    verify("writes")
    cli("verify", "--compute", "writes")
