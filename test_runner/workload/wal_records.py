"""Where records are in raw WAL: just enough of its format to choose interesting positions.

Positions come from here and what is there at them from elsewhere, so a mistake makes a run less
interesting, not wrong.
"""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

from zenith import Lsn

PAGE_SIZE = 8192
SEGMENT_SIZE = 16 * 1024 * 1024
SEGMENTS_PER_NAME = 0x1_0000_0000 // SEGMENT_SIZE
SHORT_HEADER, LONG_HEADER = 24, 40
FIRST_IS_CONTRECORD = 0x1
RECORD_HEADER = 24

MANAGERS = (
    *("XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap"),
    *("Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN"),
    *("CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage"),
)


@dataclasses.dataclass(frozen=True)
class Record:
    """One record: from where its header begins to where the next one's can."""

    start: int
    end: int
    manager: str
    info: int

    @property
    def kind(self) -> str:
        """Its resource manager and operation, such as ``Heap/10``."""
        return f"{self.manager}/{self.info & 0x70:02x}"


def segment_name(segment: int) -> str:
    """Name of a segment's file on PostgreSQL's timeline 1."""
    return f"{1:08X}{segment // SEGMENTS_PER_NAME:08X}{segment % SEGMENTS_PER_NAME:08X}"


class Wal:
    """The segment files of one line of history."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pages: dict[int, bytes] = {}

    def _page(self, lsn: int) -> bytes:
        number = lsn // PAGE_SIZE
        if number not in self._pages:
            path = self._folder / segment_name(lsn // SEGMENT_SIZE)
            try:
                with open(path, "rb") as file:
                    file.seek(number * PAGE_SIZE % SEGMENT_SIZE)
                    self._pages[number] = file.read(PAGE_SIZE).ljust(PAGE_SIZE, b"\0")
            except FileNotFoundError:
                self._pages[number] = bytes(PAGE_SIZE)
        return self._pages[number]

    @staticmethod
    def header_length(lsn: int) -> int:
        """Of the page that begins there."""
        return LONG_HEADER if lsn % SEGMENT_SIZE == 0 else SHORT_HEADER

    def _normalised(self, lsn: int) -> int:
        lsn = (lsn + 7) // 8 * 8
        return lsn + self.header_length(lsn) if lsn % PAGE_SIZE == 0 else lsn

    def _advance(self, lsn: int, count: int) -> int:
        """The position ``count`` bytes of records further."""
        while count > 0:
            lsn += self.header_length(lsn) if lsn % PAGE_SIZE == 0 else 0
            step = min(count, PAGE_SIZE - lsn % PAGE_SIZE)
            lsn, count = lsn + step, count - step
        return lsn

    def _read(self, lsn: int, count: int) -> bytes:
        data = b""
        while len(data) < count:
            lsn += self.header_length(lsn) if lsn % PAGE_SIZE == 0 else 0
            at = lsn % PAGE_SIZE
            piece = self._page(lsn)[at : at + count - len(data)]
            data, lsn = data + piece, lsn + len(piece)
        return data

    def first_record(self, page: int, end: int) -> int | None:
        """Where the first record begins in the page at ``page`` or behind it."""
        while page < end:
            _, info, _, address, rest = struct.unpack_from("<HHIQI", self._page(page))
            if address != page:
                return None
            if not info & FIRST_IS_CONTRECORD:
                return page + self.header_length(page)
            start = page + self.header_length(page)
            if start + rest < page + PAGE_SIZE:
                return self._normalised(start + rest)
            page += PAGE_SIZE
        return None

    def records(self, start: int, end: int) -> Iterator[Record]:
        """Records from one that begins at ``start`` up to ``end``."""
        while start < end:
            length, _, _, info, manager = struct.unpack("<IIQBB", self._read(start, 18))
            if length == 0:  # The rest of a segment behind a switch.
                segment = (start // SEGMENT_SIZE + 1) * SEGMENT_SIZE
                start = segment + LONG_HEADER
                if start >= end or not any(self._page(segment)[:LONG_HEADER]):
                    return
                continue
            if length < RECORD_HEADER:
                return
            after = self._normalised(self._advance(start, length))
            if after > end:
                return
            name = MANAGERS[manager] if manager < len(MANAGERS) else str(manager)
            yield Record(start, after, name, info)
            start = after


def wal_of(repository: Path, timeline: str) -> Wal:
    """The page server's files of a timeline."""
    return Wal(repository / "timelines" / timeline / "wal")


def to_lsn(value: int) -> Lsn:
    """The same as the package's type."""
    return Lsn(value)
