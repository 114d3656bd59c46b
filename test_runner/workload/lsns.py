"""Chooses places in the WAL to branch at, of all shapes there are."""

import dataclasses
from pathlib import Path

from zenith import Lsn

from .chance import Chance
from .wal_records import PAGE_SIZE, SEGMENT_SIZE, Record, Wal, wal_of

# How much is looked through for records, from a place that chance has chosen.
WINDOW = 64 * PAGE_SIZE

HEAP_KINDS = [f"Heap/{code:02x}" for code in (0x00, 0x10, 0x20, 0x30, 0x40, 0x60, 0x70)]
HEAP_KINDS += [f"Heap2/{code:02x}" for code in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60)]
OTHER_KINDS = ["Transaction", "MultiXact", "CLOG", "Storage", "RelMap", "Database", "Btree"]
OTHER_KINDS += ["Hash", "Gin", "Gist", "SPGist", "BRIN", "Sequence", "XLOG", "Standby"]

SHAPES = {
    "end": 1.0,
    "behind a record": 3.0,
    "behind a heap record": 5.0,
    "within a record": 3.0,
    "unaligned": 1.0,
    "page start": 2.0,
    "behind a page header": 1.0,
    "middle of a page": 2.0,
    "segment start": 1.5,
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A position and what is special about it."""

    lsn: Lsn
    shape: str

    def __str__(self) -> str:
        return f"{self.lsn} ({self.shape})"


class LsnChooser:
    """Chooses within the history of one timeline."""

    def __init__(
        self, repository: Path, timeline: str, start: Lsn, window_bytes: int | None = None
    ) -> None:
        self._repository = repository
        self._timeline = timeline
        self._start = int(start)
        # Servers log something by themselves until what was chosen is used.
        self._window = window_bytes and window_bytes // 2

    def choose(self, chance: Chance, end: Lsn) -> Place:
        """A place from the start of the timeline, or what is kept of it, up to ``end``.

        The latter has been received.
        """
        shape = chance.weighted(list(SHAPES), list(SHAPES.values()))
        # The draws are the same whatever the WAL looks like.
        near_end, where, which = chance.often(0.4), chance.often(0.5), chance.fork("which")
        del where
        low, high = self._start, int(end)
        if self._window is not None:
            low = max(low, high - self._window)
        oldest = low
        if near_end:
            low = max(low, high - WINDOW)
        at = low + which.between(0, 1_000_000_000) * (high - low) // 1_000_000_000
        found = self._shaped(shape, at, high, which)
        if found is None or not oldest <= found[0] <= high:
            found = (at, f"anywhere, for want of: {shape}")
        return Place(Lsn(found[0]), found[1])

    def _shaped(self, shape: str, at: int, end: int, which: Chance) -> tuple[int, str] | None:
        page = at // PAGE_SIZE * PAGE_SIZE
        match shape:
            case "end":
                return end, shape
            case "page start":
                return page, shape
            case "behind a page header":
                return page + Wal.header_length(page), shape
            case "middle of a page":
                return page + PAGE_SIZE // 2, shape
            case "segment start":
                return at // SEGMENT_SIZE * SEGMENT_SIZE, shape
        records = self._records_near(at, end)
        if not records:
            return None
        if shape == "behind a heap record":
            kinds = sorted({r.kind for r in records if r.kind in HEAP_KINDS})
            if not kinds:
                return None
            kind = which.pick(kinds)
            record = which.pick([r for r in records if r.kind == kind])
            return record.end, f"behind {kind}"
        if shape == "behind a record":
            managers = sorted({r.manager for r in records})
            manager = which.pick(managers)
            record = which.pick([r for r in records if r.manager == manager])
            return record.end, f"behind {record.kind}"
        record = which.pick(records)
        length = record.end - record.start
        if shape == "unaligned":
            return record.start + which.between(1, 7), shape
        return record.start + 8 * which.between(1, max(1, length // 8 - 1)), f"in {record.kind}"

    def _records_near(self, at: int, end: int) -> list[Record]:
        wal = wal_of(self._repository, self._timeline)
        low = max(self._start, at - WINDOW // 2)
        page = (low + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        first = wal.first_record(page, end) if page > self._start else self._start
        if first is None:
            return []
        return list(wal.records(first, min(end, at + WINDOW // 2)))
