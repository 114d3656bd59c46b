"""Taking times, and the unit that the disk sets."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """The median of several measurements, and half of the distance between the quartiles."""

    median: float
    spread: float

    def times(self, factor: float) -> "Figure":
        """The same in another unit."""
        return Figure(self.median * factor, self.spread * factor)

    @staticmethod
    def of(values: list[float]) -> "Figure":
        """What ``values`` come to."""
        if len(values) < 2:
            return Figure(values[0], 0.0)
        low, _, high = statistics.quantiles(values, n=4)
        return Figure(statistics.median(values), (high - low) / 2)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def settle() -> None:
    """Waits until what was done before is on disk, which is not to be paid for by what comes."""
    os.sync()


def times(count: int, work: Callable[[int], object]) -> Figure:
    """How long it takes, done so often; it gets the number of the turn."""
    return Figure.of([seconds(lambda n=n: work(n)) for n in range(count)])  # type: ignore[misc]


def durable_files(folder: Path, count: int = 50) -> Figure:
    """How long it takes to put a small file into ``folder`` so that it survives a crash: written
    beside, synced, renamed, the folder synced. No store can be quicker that promises as much.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def put(number: int) -> None:
        beside = folder / "unit.new"
        with open(beside, "wb") as file:
            file.write(b"x" * 100)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(folder / f"unit{number}")
        os.fsync(descriptor)

    try:
        return times(count, put)
    finally:
        os.close(descriptor)
        for path in folder.glob("unit*"):
            path.unlink()
