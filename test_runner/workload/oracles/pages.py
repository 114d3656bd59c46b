"""Pages against a stock server and against the images in records: ``zenith verify``."""

import json
from typing import Any

from fixtures.cli import DIFFERENT, DONE, FAILED, Cli
from zenith import Lsn

from ..line import Line
from ..report import Failure


def verify_pages(line: Line, lsn: Lsn) -> None:
    """Runs ``zenith verify`` at a point of the line, if the WAL for that is kept."""
    found = _verify(line, lsn)
    if found is None:
        line.report.count("points without WAL")
        return
    late = " late" if found["since"] else ""
    line.report.count(f"points verified{late}")
    line.report.count(f"pages verified{late}", found["pages"]["compared"])


def verify_compute(line: Line) -> None:
    """Runs ``zenith verify --compute`` for the line's compute, which was stopped cleanly."""
    found = line.compute.verify()
    shown = f"zenith verify --compute {line.compute.name}"
    if found["different"]:
        raise Failure(f"{shown}: {json.dumps(found, indent=1)}")
    line.report.say(f"{shown}: no difference")
    line.report.count("computes verified")
    line.report.count("orphaned files", found["pages"]["permitted"].get("orphaned_file", 0))
    line.report.count("pages of computes verified", found["pages"]["compared"])


def verify_records(line: Line, lsn: Lsn) -> None:
    """Runs ``zenith verify --records`` up to a point of the line."""
    found = _verify(line, lsn, "--records")
    if found is not None:
        line.report.count("images in records verified", found["images"]["compared"])


def _verify(line: Line, lsn: Lsn, *options: str) -> dict[str, Any] | None:
    """What it found; ``None`` if WAL up to there is not kept."""
    point = f"{line.branch.name}@{lsn}"
    shown = " ".join(["zenith verify", *options, point])
    done = Cli(line.repo.path.parent).run("verify", *options, point, "-o", "json", timeout=900)
    if done.returncode == FAILED and f"{lsn} cannot be verified" in done.stderr:
        line.report.say(done.stderr.strip())
        return None
    if done.returncode not in (DONE, DIFFERENT):
        raise Failure(f"{shown}: {done.returncode} {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    if done.returncode != DONE or found["different"]:
        raise Failure(f"{shown}: {json.dumps(found, indent=1)}")
    since = f" since {found['since']}" if found["since"] else ""
    line.report.say(f"{shown}: no difference{since}")
    return found
