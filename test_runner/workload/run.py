"""One run: a fresh repository, so many steps, all checks at the end."""

import dataclasses
from pathlib import Path

import zenith
from fixtures import log_scan

from .chance import Chance
from .line import Line, Names
from .operations.registry import OPERATIONS
from .oracles.contents import check_contents
from .oracles.indexes import check_indexes
from .oracles.pages import verify_compute, verify_pages, verify_records
from .report import Failure, Report
from .settings import Settings

LOG_NAME = "operations.txt"

# What the faults leave in the logs.
ALLOWED_LOG = [
    r"redo|walredo",
    r"terminating (connection|walsender|background worker)",
    r"the database system (is|was)",
    r"could not (receive|send) data (from|to)",
    r"WARN .*(follow|receiv|stream|connection|server closed)",
    r"crash of another server process",
]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is decided before it begins."""

    seed: int
    steps: int

    def replay(self) -> str:
        """The command that does the same again."""
        return f"scripts/torture --seed {self.seed} --steps {self.steps}"

    def execute(self, folder: Path, echo: bool = False) -> dict[str, int]:
        """Does it in a folder with a new repository; returns what was counted.

        The log of operations is in the folder, next to the repository.
        """
        report = Report(folder / LOG_NAME, echo)
        chance = Chance(self.seed)
        settings = Settings.choose(chance.fork("settings"))
        report.say(f"{self.replay()}: {settings}")
        settings.write(folder / ".zenith" / "zenith.toml")
        try:
            with zenith.Repository.open(folder) as repo:
                self._steps(repo, chance, settings, report)
            strange = log_scan.unexpected(folder, ALLOWED_LOG)
            if strange:
                raise Failure("unexpected in the logs:\n" + "\n".join(strange[:50]))
        except BaseException as error:
            report.say(f"FAILED: {type(error).__name__}: {error}")
            raise
        finally:
            report.close()
        return report.counts

    def _steps(
        self, repo: zenith.Repository, chance: Chance, settings: Settings, report: Report
    ) -> None:
        line = Line(repo, repo.branch("main"), settings, report, Names())
        line.start()
        line.prepare_from_nothing()
        weights = [operation.weight for operation in OPERATIONS]
        try:
            for step in range(1, self.steps + 1):
                report.step = step
                own = chance.fork("step", step)
                operation = own.weighted(OPERATIONS, weights)
                report.count("steps")
                operation.run(line, own)
            self._finish(line)
        finally:
            line.close()
        line.compute.stop()

    @staticmethod
    def _finish(line: Line) -> None:
        check_contents(line)
        check_indexes(line, with_catalogs=True)
        verify_pages(line, line.flush())
        if line.settings.has_images:
            verify_records(line, line.flush())
        line.restart_cleanly(verify_compute)
        # The same from the page server alone.
        line.lose_and_replace_compute()
        check_contents(line)
        check_indexes(line, with_catalogs=False)
