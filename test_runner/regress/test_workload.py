"""Short runs of the random workload (see workload/README.md): one always the same, one new."""

import os
import time
from pathlib import Path

import pytest
from workload.run import Run

STEPS = 80
SAME_SEED = 20261122


@pytest.mark.timeout(900)
@pytest.mark.parametrize("which", ["same", "new"])
def test_workload(which: str, fresh: Path, allowed_log: list[str]) -> None:
    seed = int(os.environ.get("ZENITH_TEST_SEED") or time.time_ns() // 1000 % 1_000_000_000)
    run = Run(SAME_SEED if which == "same" else seed, STEPS)
    print(f"again: {run.replay()}")
    allowed_log.append("")  # The run looks at them itself.
    run.execute(fresh)
