"""What the checks give: the values that ``zenith verify -o json`` prints, and their types.

Nothing differs if ``different`` is 0; ``differences`` has the first ones in detail.
"""

from __future__ import annotations

from typing import TypedDict


class Count(TypedDict):
    """How many were compared, and how many of them differ."""

    compared: int
    different: int


class PageCounts(TypedDict):
    """Pages by what the comparison gave."""

    compared: int
    equal: int
    """Equal in every byte that counts."""
    masked_equal: int
    """Equal in all that WAL promises, as PostgreSQL's masks have it, and different elsewhere for
    reasons that are known."""
    masked: dict[str, int]
    """How many of these there are for each of the reasons; a page may have several."""
    permitted: dict[str, int]
    """Different for a reason that is known, by the name of the reason."""
    different: int
    absent: int
    """Not compared, since a compute does not have them on its disk."""


class Difference(TypedDict):
    """One thing that differs."""

    kind: str
    """What it is: ``page``, ``size``, ``relation``, ``file``, ``wal``, ``image``, ``checksum``,
    ``amcheck`` or ``dump``."""
    relation: str | None
    """Numbers of tablespace, database and file: ``1663/5/16384``."""
    fork: str | None
    name: str | None
    """The relation's name, or the file's path."""
    block: int | None
    our_lsn: str | None
    """LSN on the page server's page."""
    their_lsn: str | None
    """LSN on the other page; where that is an image in a record, the record's end."""
    record: str | None
    """Where the record with the image begins."""
    resource_manager: str | None
    """That record's resource manager."""
    detail: str


class Seconds(TypedDict):
    """How long the parts took."""

    reading: float
    copying: float
    recovering: float
    comparing: float
    judging: float


class AmcheckCounts(TypedDict):
    """What ``pg_amcheck`` says of a compute."""

    relations: int
    different: int


class ChecksumCounts(TypedDict):
    """The page server's pages by their checksums."""

    enabled: bool
    """Whether the cluster has any; otherwise the rest is 0."""
    pages: int
    new_pages: int
    """Never written to, which have none."""
    different: int


class DumpCounts(TypedDict):
    """Dumps of a compute and of the stock server."""

    bytes: int
    """Equal ones; the first difference ends the comparison."""
    different: int


class DeepCounts(TypedDict):
    """What servers say that run on the pages."""

    amcheck: AmcheckCounts
    checksums: ChecksumCounts
    dump: DumpCounts
    seconds: float


class Verification(TypedDict):
    """Result of ``Repository.verify`` and ``Compute.verify``."""

    branch: str
    timeline: str
    lsn: str
    since: str | None
    """From where on a stock server recovered, beginning with what the page server had there, since
    older WAL was removed; ``None``: from the beginning of history, or it was no stock server."""
    compute: str | None
    """The compute that it is about; ``None``: a stock server that recovered."""
    wal_bytes: int
    """Bytes of the compute's WAL that were compared."""
    different: int
    stored_files: Count
    """Files that the page server keeps of the branch and its ancestors; those that differ are
    damaged, and nothing else was compared then."""
    relations: Count
    pages: PageCounts
    slru_segments: Count
    files: Count
    deep: DeepCounts | None
    """``None`` unless it was asked for."""
    differences: list[Difference]
    seconds: Seconds


class FilesVerification(TypedDict):
    """Result of ``Repository.verify_files``."""

    branch: str
    files: int
    bytes: int
    different: int
    differences: list[Difference]
    seconds: float


class ManagerCounts(TypedDict):
    """Records and images of one resource manager."""

    records: int
    consistency_images: int
    applied_images: int
    different: int


class RecordsVerification(TypedDict):
    """Result of ``Repository.verify_records``."""

    branch: str
    timeline: str
    since: str
    lsn: str
    different: int
    records: int
    images: PageCounts
    resource_managers: dict[str, ManagerCounts]
    differences: list[Difference]
    seconds: float
