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

    def folder(self, name: str) -> Path:
        """A folder for one part, which may be there already."""
        folder = self.scratch / name
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
        return folder
