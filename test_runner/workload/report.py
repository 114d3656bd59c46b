"""What happened, step by step, in a file that a person can read and search."""

import time
from pathlib import Path


class Failure(AssertionError):
    """Something that must hold does not."""


class Report:
    """The log of one run. It is written line by line, so that it is there whatever happens."""

    def __init__(self, path: Path, echo: bool = False) -> None:
        self.path = path
        self._file = open(path, "w", buffering=1)  # noqa: SIM115 (closed in close)
        self._echo = echo
        self._began = time.monotonic()
        self.step = 0
        self.counts: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Writes a line."""
        line = f"[{self.step}] {time.monotonic() - self._began:.2f} {text}"
        self._file.write(line + "\n")
        if self._echo:
            print(line, flush=True)

    def count(self, what: str, number: int = 1) -> None:
        """Adds to a sum that is told at the end."""
        self.counts[what] = self.counts.get(what, 0) + number

    def close(self) -> None:
        """Ends the file with the sums."""
        for what, number in sorted(self.counts.items()):
            self._file.write(f"{number:8} {what}\n")
        self._file.close()
