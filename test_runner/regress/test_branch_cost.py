"""Making a branch copies nothing, however large the database is."""

import time
from pathlib import Path

import pytest
import zenith
from fixtures import pgbench


def bytes_in(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(300)
def test_same_cost_at_any_size(repo: zenith.Repository, main: zenith.Branch) -> None:
    costs = []
    for scale in (1, 20):  # 15 MB and 300 MB
        with main.compute() as pg:
            pgbench.initialise(pg.dsn, scale)
        started = time.monotonic()
        branch = repo.create_branch(f"at-scale-{scale}", at="main")
        seconds = time.monotonic() - started
        # Of the branch alone: the history of main goes into layers at the same time.
        costs.append((seconds, bytes_in(repo.path / "timelines" / branch.timeline)))
    for seconds, size in costs:
        assert seconds < 0.5, costs
        assert size < 64 * 1024, costs
    assert abs(costs[0][1] - costs[1][1]) < 4096, costs
