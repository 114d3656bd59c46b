"""``python -m workload``: runs with many seeds for some time, or one again. See scripts/torture."""

import argparse
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from fixtures import processes
from fixtures.cli import Cli
from fixtures.scratch import make_scratch_dir

from .run import LOG_NAME, Run

STEPS = 400


def main() -> int:
    """Exit code 0 if all runs passed, 1 at the first failure."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="this seed only; otherwise new ones")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run (%(default)s)")
    parser.add_argument("--minutes", type=float, help="start runs for so long; otherwise one")
    parser.add_argument("--echo", action="store_true", help="show every operation")
    parser.add_argument("--keep-going", action="store_true", help="do not end at a failure")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() // 1000 % 1_000_000_000
    until = time.monotonic() + 60 * (options.minutes or 0)
    template = make_scratch_dir()
    failures = []
    try:
        Cli(template)("init")
        while True:
            run = Run(seed, options.steps)
            if not _one(run, template, options.echo, options.keep):
                failures.append(run)
            if (failures and not options.keep_going) or time.monotonic() >= until:
                break
            seed += 1
    finally:
        processes.end_all(template)
        shutil.rmtree(template, ignore_errors=True)
    for run in failures:
        print(f"failed: {run.replay()}")
    return 1 if failures else 0


def _one(run: Run, template: Path, echo: bool, keep: bool) -> bool:
    folder = make_scratch_dir()
    print(f"{run.replay()} in {folder}", flush=True)
    passed = False
    began = time.monotonic()
    try:
        subprocess.run(["cp", "-a", f"{template}/.zenith", folder], check=True)
        counts = run.execute(folder, echo)
        passed = True
        told = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
        print(f"passed in {time.monotonic() - began:.0f} s: {told}", flush=True)
    except Exception:
        traceback.print_exc()
        print(f"FAILED: {run.replay()}\nkept: {folder}, log: {folder / LOG_NAME}", flush=True)
    finally:
        processes.end_all(folder)
        if passed and not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
