"""What the page server does with the history that it has; no record comes of it."""

import json

from fixtures.cli import Cli

from ..chance import Chance
from ..line import Line
from ..report import Failure
from .base import Operation


class PutIntoLayers(Operation):
    """What was in memory is read from a layer from then on, and no WAL indexed again."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        made = line.branch.checkpoint()
        line.report.say(f"{line.branch.name}: {len(made['layers'])} layers up to {made['lsn']}")
        line.report.count("checkpoints of branches")


class Compact(Operation):
    """Layers are merged, and there is an image: pages are read from there."""

    weight = 0.4

    def run(self, line: Line, chance: Chance) -> None:
        made = line.branch.compact()
        line.report.say(f"{line.branch.name}: compact up to {made['lsn']}")
        line.report.count("compactions")


class Collect(Operation):
    """Layers go that are needed for nothing; in runs that keep all of history there are none."""

    weight = 0.8

    def run(self, line: Line, chance: Chance) -> None:
        found = Cli(line.repo.path.parent).json("gc", line.branch.name)
        line.report.say(f"{line.branch.name}: gc {json.dumps(found)[:300]}")
        line.report.count("collections")


class Detach(Operation):
    """The branch needs what it was made from no more, while its clients go on."""

    weight = 0.4

    def run(self, line: Line, chance: Chance) -> None:
        wait = chance.often(0.5)
        if line.depth > 0:
            detached = line.branch.detach(wait=wait)
            if wait and detached.ancestor is not None:
                raise Failure(f"{line.branch.name} is not detached")
            line.report.say(f"{line.branch.name}: detached{'' if wait else ' soon'}")
            line.report.count("branches detached")


OPERATIONS: list[Operation] = [PutIntoLayers(), Compact(), Collect(), Detach()]
