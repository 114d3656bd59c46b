"""One damaged small file: everything else is served, it is named, and used again once mended."""

import time
from pathlib import Path

import zenith
from fixtures.cli import Cli

PATIENCE = 30


def use_again(repo: zenith.Repository, name: str) -> zenith.Branch:
    """The branch, once the page server has noticed that its files are whole."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return repo.branch(name)
        except zenith.PageServerError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_damaged_files_of_a_branch(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli, allowed_log: list[str]
) -> None:
    allowed_log.append("cannot be used")
    with main.compute() as pg:
        pg.psql("create table t as select n from generate_series(1, 100) n")
    dev = repo.create_branch("dev")
    with dev.compute() as pg:
        pg.psql("insert into t values (0)")
    repo.create_branch("other")
    files: list[Path] = [
        repo.path / "timelines" / dev.timeline / "manifest",
        repo.path / "refs" / "branches" / "dev",
    ]
    for path in files:
        whole = path.read_bytes()
        repo.stop()
        path.write_bytes(whole[: len(whole) // 2])
        repo.start()
        assert str(path) in cli("status")
        assert str(path) in cli.run("branch").stderr
        listed = {branch["name"]: branch for branch in cli.json("branch")}
        assert {name: branch["usable"] for name, branch in listed.items()} == {
            "dev": False,
            "main": True,
            "other": True,
        }
        assert str(path) in listed["dev"]["cause"]
        # Of a damaged reference it is the timeline that is not known.
        known = dev.timeline if path.name == "manifest" else None
        assert listed["dev"]["timeline"] == known
        assert set(listed["dev"]) == set(listed["main"])
        for refused in [("branch", "more", "dev"), ("branch", "--delete", "dev")]:
            line = cli.refused(*refused)
            assert "dev" in line, line
            assert str(path) in line, line
        if path.name == "manifest":
            # Nobody can tell what the damaged branch stands on.
            assert "dev" in cli.refused("branch", "--delete", "other")
        with repo.compute("main") as pg:
            assert pg.psql("select count(*) from t") == "100"
        # Put back, without a restart.
        path.write_bytes(whole)
        use_again(repo, "dev")
        with repo.compute("dev") as pg:
            assert pg.psql("select count(*) from t") == "101"
    repo.branch("other").delete()
