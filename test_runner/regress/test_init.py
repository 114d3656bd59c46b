"""``zenith init``: what it makes, and what it refuses."""

import os
from pathlib import Path

import pytest
import zenith
from fixtures import postgres
from fixtures.cli import USAGE, Cli


def test_makes_a_repository(cli: Cli) -> None:
    cli("init")
    assert (cli.folder / ".zenith" / "zenith.toml").is_file()
    # Nothing but the repository, and no process.
    assert os.listdir(cli.folder) == [".zenith"]
    cli("start")
    assert [branch["name"] for branch in cli.json("branch")] == ["main"]
    cli("stop")


def test_folders_on_the_way_are_made(cli: Cli) -> None:
    repo = zenith.Repository.init(cli.folder / "a" / "b")
    assert repo.path == cli.folder / "a" / "b" / ".zenith"


def test_a_second_one_is_refused(fresh: Path, cli: Cli) -> None:
    before = sorted(os.listdir(fresh / ".zenith"))
    assert "exists already" in cli.refused("init")
    with pytest.raises(zenith.AlreadyExists):
        zenith.Repository.init(fresh)
    assert sorted(os.listdir(fresh / ".zenith")) == before


def test_postgresql_missing(cli: Cli) -> None:
    line = cli.refused("init", env={"ZENITH_PG_BIN": "/nonexistent"})
    assert "/nonexistent" in line
    assert "postgresql-15" in line
    assert os.listdir(cli.folder) == []


def test_postgresql_of_another_major_version(cli: Cli) -> None:
    other = cli.folder / "bin"
    other.mkdir()
    other.chmod(0o755)
    for program in ("postgres", "initdb"):
        (other / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'\n")
        (other / program).chmod(0o755)
    line = cli.refused("init", env={"ZENITH_PG_BIN": str(other)})
    assert "PostgreSQL 16.4" in line
    assert "15" in line
    assert os.listdir(cli.folder) == ["bin"]


def test_programs_missing(cli: Cli) -> None:
    line = cli.refused("init", env={"ZENITH_BIN_DIR": str(cli.folder)})
    assert "make build" in line
    assert os.listdir(cli.folder) == []


@pytest.mark.skipif(postgres.account() is None, reason="only root runs PostgreSQL as another")
def test_a_folder_that_the_account_cannot_reach(cli: Cli) -> None:
    private = cli.folder / "private"
    private.mkdir(mode=0o700)
    os.chown(private, 0, 0)
    line = Cli(private).refused("init")
    assert f"cannot enter {private}" in line
    assert os.listdir(private) == []


def test_no_repository(cli: Cli) -> None:
    for command in (["start"], ["status"], ["branch"], ["pg", "list"], ["psql", "main"]):
        assert "zenith init" in cli.refused(*command)
    with pytest.raises(zenith.NotFound):
        zenith.Repository.open(cli.folder)


def test_another_format_version(fresh: Path, cli: Cli) -> None:
    config = fresh / ".zenith" / "zenith.toml"
    config.write_text(config.read_text().replace("format_version = 1", "format_version = 2"))
    line = cli.refused("start")
    assert "format 2" in line
    assert not (fresh / ".zenith" / "pageserver.pid").exists()
    with pytest.raises(zenith.Conflict):
        zenith.Repository.open(fresh)


def test_usage(cli: Cli) -> None:
    for arguments in ([], ["frobnicate"], ["pg", "create"], ["branch", "--nonsense"]):
        cli.refused(*arguments, code=USAGE)
    assert "branch" in cli("--help")
    assert cli("--version").startswith("zenith ")
