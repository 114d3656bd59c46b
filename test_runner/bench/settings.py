"""How much is measured with, and where."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bench:
    """A run."""

    scratch: Path
    branches: int
    scale: int
    """pgbench's: 15 MB of database each."""
    transactions: int
    seconds: int
    """How long each turn of pgbench takes."""
    cold_seconds: int
    """The same on a compute that has no page yet."""
    scan_bytes: int
    """Of the table that is read from one end to the other."""

    def folder(self, name: str) -> Path:
        """A folder for one part, which may be there already."""
        folder = self.scratch / name
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
        return folder
