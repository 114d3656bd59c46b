"""Tags: names for points, from the command line and from Python."""

import pytest
import zenith
from fixtures.cli import USAGE, Cli
from zenith import Lsn


def test_a_tag_can_stand_wherever_a_point_can(
    repo: zenith.Repository, main: zenith.Branch, cli: Cli
) -> None:
    with main.compute() as pg:
        pg.psql("create table t as select 1 as n")
        made = cli.json("tag", "v1")  # With the commit just made, as `zenith branch` has it.
        pg.psql("drop table t")
    assert (made["name"], made["branch"], made["usable"]) == ("v1", "main", True)
    assert [tag["lsn"] for tag in cli.json("tag")] == [made["lsn"]]
    assert "v1" in cli("tag")

    assert cli("psql", "v1", "-Atc", "select n from t") == "1\n"
    fixed = repo.create_branch("fixed", at=repo.tag("v1"))
    assert fixed.ancestor == (main.timeline, Lsn(made["lsn"]))
    assert repo.create_tag("v2", at="v1").lsn == Lsn(made["lsn"])
    assert [(tag.name, tag.branch) for tag in repo.tags()] == [("v1", "main"), ("v2", "main")]

    assert "a point by itself" in cli.refused("branch", "x", "v1@0/16B3748", code=USAGE)
    assert "tag" in cli.refused("branch", "v1")
    assert "branch" in cli.refused("tag", "main")
    with pytest.raises(zenith.AlreadyExists):
        repo.create_branch("v1")
    with pytest.raises(zenith.NotFound):
        repo.delete_tag("fixed")
    cli("tag", "tip", "fixed")
    assert "tip" in cli.refused("branch", "-d", "fixed")
    cli("tag", "-d", "tip")
    cli("branch", "-d", "fixed")
    repo.delete_tag("v1")
    repo.tag("v2").delete()
    assert cli.json("tag") == []
