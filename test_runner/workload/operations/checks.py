"""The oracles, at places that chance chooses."""

from ..chance import Chance
from ..line import Line
from ..oracles.contents import adopt_moment, check_contents
from ..oracles.indexes import check_indexes
from ..oracles.pages import verify_compute, verify_pages, verify_records
from .base import Operation
from .transactions import finish_prepared

BRANCH_DEPTH_MAX = 2


class VerifyPages(Operation):
    """All pages at a point against a stock server."""

    weight = 1.5
    on_branches = False  # Those have one at their end, often enough.

    def run(self, line: Line, chance: Chance) -> None:
        place = line.lsns.choose(chance.fork("place"), line.flush())
        line.report.say(f"verify {line.branch.name} at {place}")
        verify_pages(line, place.lsn)
        if line.settings.has_images and chance.often(0.3):
            verify_records(line, place.lsn)


class CheckHere(Operation):
    """The line's own compute against the ledger."""

    weight = 0.7

    def run(self, line: Line, chance: Chance) -> None:
        check_contents(line)
        check_indexes(line, with_catalogs=chance.often(0.1))


class LookAtBranch(Operation):
    """A branch from any place, its compute against the ledger, work on it, and checks again."""

    weight = 4

    def run(self, line: Line, chance: Chance) -> None:
        if line.depth >= BRANCH_DEPTH_MAX:
            return
        end = line.flush()
        if chance.often(0.15):
            # Nothing may come behind what the branch is to see.
            line.report.say(f"{line.branch.name}: kill -9 of the compute before a branch")
            line.kill_compute()
            line.restart_after_kill()
        place = line.lsns.choose(chance.fork("place"), end)
        line.children += 1
        name = f"{line.branch.name}-{line.children}"
        line.report.say(f"branch {name} at {place}")
        line.report.count(f"branches {'of branches' if line.depth else 'of main'}")
        moments = line.history.at(place.lsn)
        branch = line.repo.create_branch(name, at=(line.branch, place.lsn))
        child = Line(line.repo, branch, line.settings, line.report, line.names, line.depth + 1)
        child.start()
        adopt_moment(child, moments)
        check_indexes(child, with_catalogs=chance.often(0.2))
        work_on(child, chance.fork("work"))
        child.close()
        is_crash = chance.often(0.5)
        child.compute.stop(immediate=is_crash)
        if not is_crash and chance.often(0.5):
            verify_compute(child)
        child.compute.destroy()
        branch.delete()


def work_on(line: Line, chance: Chance) -> None:
    """Some operations on a young branch, and the checks at its end."""
    from .registry import OPERATIONS

    if chance.often(0.25):
        return
    possible = [operation for operation in OPERATIONS if operation.on_branches]
    weights = [operation.weight for operation in possible]
    for step in range(chance.between(5, 40)):
        own = chance.fork(step)
        own.weighted(possible, weights).run(line, own)
    if chance.often(0.5):
        for name in sorted(line.prepared):
            finish_prepared(line, name, chance.often(0.6))
    check_contents(line)
    check_indexes(line, with_catalogs=False)
    if chance.often(0.4):
        verify_pages(line, line.flush())


OPERATIONS: list[Operation] = [VerifyPages(), CheckHere(), LookAtBranch()]
