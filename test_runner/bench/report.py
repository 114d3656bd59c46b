"""The rows of the table, and how they are printed."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from .measure import Figure


@dataclass
class Row:
    """One figure of Zenith's, beside what it is held against."""

    what: str
    unit: str
    ours: Figure
    against: str
    theirs: Figure
    target: float | None
    """Of the ratio of the two; ``None`` where it is measured for its own sake."""
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours.median / self.theirs.median

    @property
    def is_met(self) -> bool | None:
        """Whether it is as wanted."""
        if self.target is None:
            return None
        if self.more_is_better:
            return self.ratio >= self.target
        return self.ratio <= self.target


@dataclass
class Missing:
    """A part that could not be measured to its end; the rows that it had are in the table."""

    part: str
    why: str


def machine() -> str:
    """This machine, in a line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    load = os.getloadavg()[0]
    name = names[0] if names else platform.machine()
    return (
        f"{os.cpu_count()} x {name}, {memory:.0f} GiB, Linux {platform.release()},"
        f" load {load:.1f} at the beginning"
    )


def _figure(figure: Figure) -> str:
    digits = max(0, 3 - len(str(int(abs(figure.median)))))
    spread = f" ±{figure.spread:.{digits}f}" if figure.spread else ""
    return f"{figure.median:.{digits}f}{spread}"


def table(rows: list[Row], missing: list[Missing]) -> str:
    """All rows, as text, and what there should be besides."""
    lines = [("what", "Zenith", "", "against", "", "ratio", "target", "met")]
    for row in rows:
        sign = "≥" if row.more_is_better else "≤"
        lines.append(
            (
                row.what,
                _figure(row.ours),
                row.unit,
                row.against,
                _figure(row.theirs),
                f"{row.ratio:.2f}",
                "" if row.target is None else f"{sign} {row.target:g}",
                {True: "yes", False: "no", None: ""}[row.is_met],
            )
        )
    widths = [max(len(line[n]) for line in lines) for n in range(8)]
    left = {0, 2, 3, 7}
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text += [f"{lost.part}: not measured to its end: {lost.why}" for lost in missing]
    return "\n".join(text)


def write_json(path: Path, where: str, rows: list[Row], missing: list[Missing]) -> None:
    """The same for programs."""
    entries = [{**asdict(row), "ratio": row.ratio, "met": row.is_met} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": where, "rows": entries, "missing": [asdict(lost) for lost in missing]}
    path.write_text(json.dumps(found, indent=2) + "\n")
