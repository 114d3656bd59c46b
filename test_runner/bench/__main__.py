"""``python -m bench``: measures, and prints one table. See README.md."""

import argparse
import shutil
import sys
import time
import traceback
from pathlib import Path

from fixtures import processes
from fixtures.scratch import make_scratch_dir

from . import branches, cold, computes, ingest, pages, redo, report, restart, storage
from .settings import Bench

PARTS = {
    "branches": branches.measure,
    "restart": restart.measure,
    "storage": storage.measure,
    "computes": computes.measure,
    "cold": cold.measure,
    "pages": pages.measure,
    "redo": redo.measure,
    "ingest": ingest.measure,
}


def main() -> int:
    """Exit code 0 when everything could be measured, and 1 when some of it could not."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"parts: {', '.join(PARTS)} (all)")
    parser.add_argument("--branches", type=int, default=1000, help="many (%(default)s)")
    parser.add_argument("--scale", type=int, default=20, help="pgbench's (%(default)s)")
    parser.add_argument("--transactions", type=int, default=20_000, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="of a pgbench (%(default)s)")
    parser.add_argument("--cold-seconds", type=int, default=30, help="(%(default)s)")
    parser.add_argument("--scan-mib", type=int, default=1024, help="(%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("target/bench.json"), help="%(default)s")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    scratch = make_scratch_dir()
    bench = Bench(
        scratch,
        options.branches,
        options.scale,
        options.transactions,
        options.seconds,
        options.cold_seconds,
        options.scan_mib << 20,
    )
    where = report.machine()
    print(where, flush=True)
    rows: list[report.Row] = []
    missing: list[report.Missing] = []
    for name in options.only or PARTS:
        began = time.monotonic()
        print(f"measuring {name} ...", file=sys.stderr, end="", flush=True)
        try:
            rows += PARTS[name](bench)
        except Exception as error:
            # The others are worth knowing all the same.
            print(file=sys.stderr)
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            missing.append(report.Missing(name, f"{type(error).__name__}: {lines[0]}"))
        finally:
            processes.end_all(scratch)
            # What one part leaves on the disk is in the next one's way.
            for path in scratch.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        # Whoever interrupts it keeps what there is.
        report.write_json(options.json, where, rows, missing)
    shutil.rmtree(scratch, ignore_errors=True)
    print(report.table(rows, missing))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
