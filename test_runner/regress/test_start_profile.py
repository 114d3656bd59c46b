"""What every start reads is fetched in one go, once a branch or one before it has learnt it."""

from pathlib import Path

import zenith
from fixtures.page_counts import PageCounts, asked_for


def profiles(repo: zenith.Repository) -> Path:
    return repo.path / "profiles"


def asked_for_by_start(repo: zenith.Repository, branch: zenith.Branch) -> PageCounts:
    """What a new compute's start and first answer ask for."""
    pg = branch.compute()

    def start() -> None:
        pg.start()
        assert pg.psql("select count(*) from t", dbname="app") == "10"

    counts = asked_for(repo, start)
    pg.destroy()
    return counts


def test_a_start_is_learnt(repo: zenith.Repository, main: zenith.Branch) -> None:
    with main.compute() as pg:
        pg.psql("create database app")
        pg.psql("create table t as select * from generate_series(1, 10)", dbname="app")
    # Nobody has started a compute that has all this to fetch.
    (profiles(repo) / main.timeline).unlink()
    first = repo.create_branch("first")
    untaught = asked_for_by_start(repo, first)
    again = asked_for_by_start(repo, first)
    child = repo.create_branch("child", at="first")
    inherited = asked_for_by_start(repo, child)
    for counts in (again, inherited):
        # Whatever the server still waits for by itself is not part of every start.
        assert counts.batches * 3 < untaught.batches, (untaught, counts)
        assert counts.pages < untaught.pages * 2, (untaught, counts)

    # Pages that are there no more, files that never were, and nonsense.
    profile = profiles(repo) / child.timeline
    learnt = profile.read_text()
    assert (profiles(repo) / first.timeline).read_text() in learnt
    stale = [line.rsplit(" ", 2)[0] + " 9000 3" for line in learnt.splitlines()]
    profile.write_text("\n".join(["\0", "base/1/77 0 1", *stale, ""]) + learnt)
    assert asked_for_by_start(repo, child).batches * 3 < untaught.batches

    # Gone with its branch, as soon as another one learns.
    child.delete()
    assert asked_for_by_start(repo, repo.create_branch("other")).pages > 0
    assert not profile.exists()
