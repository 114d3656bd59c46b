"""How long branches are kept: protected ones, and those that go by themselves."""

from datetime import timedelta
from pathlib import Path

import pytest
import zenith
from fixtures.cli import Cli
from fixtures.waiting import wait_until


@pytest.fixture
def repo(fresh: Path) -> zenith.Repository:
    """A repository whose branches go as soon as they have expired; not started."""
    config = fresh / ".zenith" / "zenith.toml"
    config.write_text(config.read_text() + "[branches]\nexpiry_grace_seconds = 0\n")
    return zenith.Repository.open(fresh)


def test_protection_and_expiry(repo: zenith.Repository, cli: Cli) -> None:
    with repo:
        cli("branch", "dev", "main", "--expires-in", "1h")
        cli("branch", "--protect", "dev")
        [dev] = [branch for branch in cli.json("branch") if branch["name"] == "dev"]
        assert dev["protected"] is True
        assert dev["expires"].endswith("Z")
        assert "protected, until " in cli("branch")
        assert "--unprotect dev" in cli.refused("branch", "-d", "dev")
        cli("branch", "--unprotect", "dev")
        assert "POINT" in cli.refused("branch", "--expires-in", "1h", "nowhere")
        cli("branch", "--expires-in", "never", "dev")
        branch = repo.branch("dev")
        assert (branch.expires, branch.is_protected) == (None, False)
        assert branch.retention == "default"
        cli("branch", "--retention", "7d,10GB", "dev")
        assert "history 7d,10GB" in cli("branch")
        [dev] = [branch for branch in cli.json("branch") if branch["name"] == "dev"]
        assert dev["retention"] == "7d,10GB"
        assert branch.retain("unlimited").retention == repo.branch("dev").retention == "unlimited"
        assert "POINT" in cli.refused("branch", "--retention", "7d", "nowhere")

        cli("branch", "leaf", "dev")
        assert "leaf" in cli.refused("branch", "-d", "dev")
        cli("branch", "-d", "dev", "--reparent")
        assert cli.json("status")["server"]["kept_timelines"] == "1"
        branch = repo.create_branch("dev", at="leaf")
        repo.branch("leaf").delete(reparent=True)

        with branch.compute() as pg:
            branch.expire_in(timedelta(0))
            wait_until(
                "keeping a branch with a compute",
                lambda: "expired, but" in (kept_because(cli, "dev") or ""),
            )
            assert pg.psql("select 1") == "1"
        wait_until(
            "deleting the branch", lambda: [branch.name for branch in repo.branches()] == ["main"]
        )
        repo.compute("dev").destroy()


def kept_because(cli: Cli, name: str) -> str | None:
    """Why a branch that has expired is still there."""
    [because] = [b["kept_because"] for b in cli.json("branch") if b["name"] == name]
    assert because is None or isinstance(because, str)
    return because
