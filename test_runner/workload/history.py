"""What a line of history has held when: the ledger that branches are judged by."""

import dataclasses
from collections.abc import Mapping

from zenith import Lsn

from .contents import Contents
from .transaction import Transaction

Prepared = Mapping[str, Transaction]
"""Prepared transactions by their names. They do not change any more."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """A state, and between which places of the WAL its record ends."""

    after: Lsn
    until: Lsn
    contents: Contents
    prepared: Prepared
    what: str


class History:
    """The states that were acknowledged, in their order."""

    def __init__(self, first: Moment) -> None:
        self._moments = [first]

    def add(self, moment: Moment) -> None:
        """Appends a state whose record lies behind ``moment.after``."""
        # Not everything that a server has written survives its crash, so positions that were read
        # before it may be too far; what is known is that the older record comes before the new one.
        self.cut_bounds(moment.after)
        self._moments.append(moment)

    def cut_bounds(self, end: Lsn) -> None:
        """All records so far end at ``end`` at the latest."""
        for at in range(len(self._moments) - 1, -1, -1):
            old = self._moments[at]
            if old.until <= end:
                break
            self._moments[at] = dataclasses.replace(old, until=end, after=min(old.after, end))

    def at(self, lsn: Lsn) -> list[Moment]:
        """The states that there can be at ``lsn``: usually one, more if it is within a commit."""
        certain = max(n for n, moment in enumerate(self._moments) if n == 0 or moment.until <= lsn)
        possible = [m for m in self._moments[certain + 1 :] if m.after < lsn]
        return [self._moments[certain], *possible]
